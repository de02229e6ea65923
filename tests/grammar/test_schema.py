"""JSON schemas: every keyword, what is refused and why, layouts, and texts as tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
from grammar.schema_refused import REFUSED, UNSATISFIABLE
from grammar.schema_rows import ROWS, table
from grammar.schema_value_rows import Case

from lmx.cli import main
from lmx.errors import (
    GrammarError,
    GrammarLimitError,
    GrammarSyntaxError,
    UnsatisfiableSchemaError,
    UnsupportedSchemaError,
)
from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo
from lmx.grammar.constraint import parse
from lmx.grammar.schema import explain

BYTES = TokenizerInfo([*(bytes([b]) for b in range(256)), b"</s>"], stop_ids=[256])
COMPILER = Compiler(BYTES)


def accepts(grammar: Grammar, text: str, compiler: Compiler = COMPILER) -> bool:
    matcher = Matcher(compiler.compile(grammar))
    data = list(text.encode())
    return matcher.accept_many(data) == len(data) and matcher.is_completed()


def text_of(value: Any) -> str:
    if isinstance(value, str) and value.startswith("!"):
        return value[1:]
    return json.dumps(value, ensure_ascii=False)


CASES = [
    pytest.param(case, id=f"{row.keywords[:30]}-{i}")
    for row in ROWS
    for i, case in enumerate(row.cases)
]


@pytest.mark.parametrize("order", ["schema", "any"])
@pytest.mark.parametrize("case", CASES)
def test_keywords(case: Case, order: str):
    grammar = Grammar.from_json_schema(case.schema, order=order)
    for value in case.good:
        assert accepts(grammar, text_of(value)), f"refuses {text_of(value)}"
    for value in case.bad:
        assert not accepts(grammar, text_of(value)), f"accepts {text_of(value)}"


@pytest.mark.parametrize("case", CASES)
def test_written_out_it_is_the_same_language(case: Case):
    if case.schema == {"type": "integer", "multipleOf": 1000000}:  # a rule per remainder
        with pytest.raises(GrammarLimitError, match="when it is written out"):
            str(Grammar.from_json_schema(case.schema))
        return
    again = Grammar.from_ebnf(str(Grammar.from_json_schema(case.schema)), "root")
    for value in case.good:
        assert accepts(again, text_of(value)), f"refuses {text_of(value)}"
    for value in case.bad:
        assert not accepts(again, text_of(value)), f"accepts {text_of(value)}"


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_refused_with_pointer_and_reason(schema: Any, message: str):
    with pytest.raises(UnsupportedSchemaError) as caught:
        Grammar.from_json_schema(schema)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("schema", UNSATISFIABLE)
def test_unsatisfiable(schema: Any):
    with pytest.raises(UnsatisfiableSchemaError, match="grammar admits no string"):
        Grammar.from_json_schema(schema)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON:1:2: expected a key"),
        ('{"a": 1,\n]', "JSON:2:1: expected a key"),
        ('{"a": "\\ud800"}', "JSON:1:14: expected the escape of a low surrogate"),
        ("[" * 3000, "at most 2000 open brackets"),
    ],
)
def test_text_that_is_not_json(text: str, message: str):
    with pytest.raises(GrammarSyntaxError, match=message):
        Grammar.from_json_schema(text)


def test_lenient_drops_and_says_so():
    schema = {"properties": {"a": {"not": {"additionalProperties": False}}, "b": {"type": "null"}}}
    grammar = Grammar.from_json_schema(schema, lenient=True)
    assert [w.split(":")[0] for w in grammar.warnings] == ["#/properties/a/not"]
    assert accepts(grammar, '{"a": {}}')
    assert not accepts(grammar, '{"b": 1}')
    assert explain(schema) == [w.removesuffix("; ignored") for w in grammar.warnings]


def test_strict():
    schema = {"type": "object", "properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}
    strict = Grammar.from_json_schema(schema, strict=True)
    assert accepts(strict, '{"a": {"x": 1}, "b": [1]}')
    assert not accepts(strict, '{"c": 1}')
    assert accepts(
        Grammar.from_json_schema(schema | {"additionalProperties": True}, strict=True), '{"c": 1}'
    )


def test_formats():
    schema = {"type": "string", "format": "colour"}
    assert "unknown format" in Grammar.from_json_schema(schema).warnings[0]
    with pytest.raises(UnsupportedSchemaError, match="#/format: unknown format"):
        Grammar.from_json_schema(schema, formats="strict")
    assert accepts(Grammar.from_json_schema({"format": "date"}, formats="off"), '"x"')


OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {}},
    "additionalProperties": False,
}


@pytest.mark.parametrize("value", [{}, {"a": []}, {"a": [1, 2], "b": {"c": [{}], "d": {}}}])
@pytest.mark.parametrize("order", ["schema", "any"])
def test_layouts(value: Any, order: str):
    def holds(text: str, **layout: Any) -> bool:
        return accepts(Grammar.from_json_schema(OBJECT, order=order, **layout), text)

    assert holds(json.dumps(value, separators=(",", ":")), whitespace="compact")
    assert holds(json.dumps(value), whitespace="compact", separators=(", ", ": "))
    for indent in (0, 2, 3):
        text = json.dumps(value, indent=indent)
        assert holds(text, whitespace=indent)
        assert holds(text)
        assert "\n" not in text or not holds(text.replace("\n", "\n "), whitespace=indent)
    if value:
        assert not holds(json.dumps(value), whitespace="compact")
        assert not holds("{" + " " * 65 + json.dumps(value)[1:])
        assert holds("{" + " " * 65 + json.dumps(value)[1:], max_whitespace=None)
        assert holds(json.dumps(value), whitespace=" ")


def test_order():
    schema = {
        "type": "object",
        "properties": dict.fromkeys("abc", {"type": "null"}),
        "required": ["b"],
    }
    texts = [
        '{"c": null, "b": null, "a": null}',
        '{"x": 1, "b": null}',
        '{"b": null, "c": null, "x": 1}',
    ]
    in_order, any_order = (
        Grammar.from_json_schema(schema),
        Grammar.from_json_schema(schema, order="any"),
    )
    assert [accepts(in_order, t) for t in texts] == [False, False, True]
    assert all(accepts(any_order, t) for t in texts)
    for grammar in (in_order, any_order):
        assert not accepts(grammar, '{"b": null, "b": null}')
        assert not accepts(grammar, '{"a": null}')


def test_escapes():
    schema = {"enum": ["a\u00e9\U0001f600/"]}
    spelled = '"\\u0061\\u00E9\\ud83D\\ude00\\/"'
    assert json.loads(spelled) == schema["enum"][0]
    assert not accepts(Grammar.from_json_schema(schema), spelled)
    every = Grammar.from_json_schema(schema, escapes="all")
    assert accepts(every, spelled)
    assert accepts(every, json.dumps(schema["enum"][0]))
    pattern = {"type": "string", "pattern": "^[\u00e0-\U0001f640]+$", "maxLength": 2}
    every = Grammar.from_json_schema(pattern, escapes="all")
    assert accepts(every, '"\\ud83d\\ude00\u00e9"')
    assert not accepts(every, '"\\ud83d\\udeff"')
    assert not accepts(every, '"\\u0061"')


def test_integer_fraction():
    grammar = Grammar.from_json_schema({"type": "integer", "minimum": 3}, integer_fraction=True)
    assert accepts(grammar, "4.00")
    assert not accepts(grammar, "4.5")


def test_registry():
    remote = {"http://a.b/c": {"$defs": {"n": {"type": "null"}}, "type": "integer"}}
    schema = {"properties": {"a": {"$ref": "http://a.b/c"}, "b": {"$ref": "http://a.b/c#/$defs/n"}}}
    grammar = Grammar.from_json_schema(schema, registry=remote)
    assert accepts(grammar, '{"a": 1, "b": null}')
    assert not accepts(grammar, '{"a": null}')


def test_options_that_are_none():
    for options in (
        {"order": "x"},
        {"formats": "x"},
        {"escapes": "x"},
        {"whitespace": -1},
        {"max_whitespace": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            Grammar.from_json_schema({}, **options)
    with pytest.raises(TypeError, match="schema: expected text, a dict or a pydantic type"):
        Grammar.from_json_schema(3)


def test_pydantic():
    pydantic = pytest.importorskip("pydantic")

    class Point(pydantic.BaseModel):
        x: int
        label: str | None = None

    for schema in (Point, Point.model_json_schema()):
        grammar = Grammar.from_json_schema(schema)
        assert accepts(grammar, '{"x": 1, "label": null}')
        assert not accepts(grammar, '{"label": "a"}')
    assert accepts(Grammar.from_json_schema(list[Point]), '[{"x": 1}]')


def test_a_key_never_leads_to_a_dead_end():
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/never"}, "b": {"type": "null"}},
        "additionalProperties": False,
        "$defs": {"never": {"allOf": [{"type": "string"}, {"type": "integer"}]}},
    }
    assert accepts(Grammar.from_json_schema(schema), '{"b": null}')
    matcher = Matcher(COMPILER.compile(Grammar.from_json_schema(schema)))
    matcher.accept_bytes('{"')
    assert matcher.forced_bytes() == b'b"'


def test_union_and_serialized():
    grammar = Grammar.union([Grammar.from_json_schema({"const": 1}), Grammar.from_regex("x+")])
    assert accepts(grammar, "1")
    assert accepts(grammar, "xx")
    from lmx.grammar import deserialize, serialize

    again = deserialize(serialize(COMPILER.compile(Grammar.from_json_schema(OBJECT))), BYTES)
    matcher = Matcher(again)
    assert matcher.accept_bytes('{"a": [1]}')
    assert matcher.is_completed()


def test_errors_are_grammar_errors():
    assert issubclass(UnsupportedSchemaError, GrammarError)
    assert issubclass(UnsatisfiableSchemaError, GrammarError)


def test_the_page_shows_the_rows():
    page = Path(__file__).resolve().parents[2] / "docs" / "grammar.md"
    assert table() in page.read_text(encoding="utf-8"), "run tools/schema_docs.py"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"type": "object", "required": ["a"]}', encoding="utf-8")
    bad.write_text(
        '{"items": {"uniqueItems": true}, "not": {"uniqueItems": true}}', encoding="utf-8"
    )
    assert main(["grammar", "check", str(good), "--text", '{"a": 1}']) == 0
    assert main(["grammar", "check", str(good), "--text", "{}"]) == 1
    assert main(["grammar", "check", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "all supported" in out
    assert "not supported: #/items/uniqueItems: " in out
    assert "not supported: #/not: " in out


def test_short_form(tmp_path: Path):
    path = tmp_path / "schema.json"
    path.write_text('{"const": 3}', encoding="utf-8")
    assert accepts(parse(f"schema:{path}"), "3")
