"""Hostile schemas: compiled or refused in time, and what a limit leaves behind."""

import json
import time
from typing import Any

import pytest

from lmx.errors import GrammarError, GrammarLimitError, GrammarSyntaxError
from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo, new_bitmask

BYTES = TokenizerInfo([*(bytes([b]) for b in range(256)), b"</s>"], stop_ids=[256])
SECONDS = 5  # a busy machine's; alone each takes well under one


def read(schema: Any, text: str, **options: Any) -> bool:
    """Compile, fill once and read a text, in time."""
    started = time.process_time()
    source = schema if isinstance(schema, str) else json.dumps(schema)
    matcher = Matcher(Compiler(BYTES).compile(Grammar.from_json_schema(source, **options)))
    matcher.fill(new_bitmask(1, BYTES.vocab_size))
    data = list(text.encode())
    accepted = matcher.accept_many(data) == len(data) and matcher.is_completed()
    assert time.process_time() - started < SECONDS
    return accepted


def nested(keyword: str, depth: int) -> Any:
    schema: Any = {"type": "object", "required": ["leaf"], "properties": {"leaf": {"type": "null"}}}
    for i in range(depth):
        other = {"type": "string", "maxLength": i + 1}
        schema = {keyword: [schema, other]} if keyword == "anyOf" else {
            keyword: [{"type": "object", "properties": {"n": schema}, "required": ["n"]},
                      {"type": "integer", "minimum": 10 * i, "maximum": 10 * i + 5}]}  # fmt: skip
    return schema


def test_nested_unions():
    assert read(nested("anyOf", 12), '{"leaf": null}')
    assert read(nested("oneOf", 12), '{"n":' * 12 + '{"leaf": null}' + "}" * 12)
    assert not read(nested("oneOf", 12), '{"n": 7}')


def test_products_are_bounded():
    halves = [{"anyOf": [{"required": [f"{c}{i}"]} for c in "ab"]} for i in range(12)]
    with pytest.raises(GrammarError, match="more than 256 combinations"):
        Grammar.from_json_schema({"type": "object", "allOf": halves})


def test_five_thousand_values():
    words = [f"word-{i}" for i in range(5000)]
    assert read({"enum": words}, '"word-4321"')
    assert not read({"enum": words}, '"word-5000"')
    assert read({"oneOf": [{"const": w} for w in words]}, '"word-77"')
    objects = [{"id": i, "name": w} for i, w in enumerate(words[:1000])]
    assert read({"enum": objects}, '{"id": 999, "name": "word-999"}')


def test_four_megabytes():
    members = {f"member_{i}": {"type": "string", "description": "x" * 60} for i in range(36000)}
    source = json.dumps({"type": "object", "properties": members})
    assert len(source) > 4_000_000
    assert read(source, '{"member_7": "a", "member_35999": "b"}')


def test_huge_repeats():
    assert read({"type": "string", "maxLength": 2**40}, '"abc"')
    assert read(
        {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 10**9},
        "[null,null]",
    )
    assert read({"type": "string", "pattern": "^(a{0,1000}){0,1000}$"}, '"aaa"')
    assert not read({"type": "string", "minLength": 10**9}, '"aaa"')


def test_deep_references():
    chain: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(900)}
    chain["d900"] = {"type": "null"}
    assert read({"$defs": chain, "$ref": "#/$defs/d0"}, "null")
    steps: dict[str, Any] = {
        f"d{i}": {
            "type": "object",
            "properties": {"x": {"$ref": f"#/$defs/d{i + 1}"}},
            "required": ["x"],
        }
        for i in range(800)
    }
    steps["d800"] = {"type": "null"}
    text = '{"x":' * 800 + "null" + "}" * 800
    assert read({"$defs": steps, "$ref": "#/$defs/d0"}, text)
    ring = {f"d{i}": {"$ref": f"#/$defs/d{(i + 1) % 50}"} for i in range(50)}
    with pytest.raises(GrammarError, match="refers to itself"):
        Grammar.from_json_schema({"$defs": ring, "$ref": "#/$defs/d0"})


def test_many_brackets():
    with pytest.raises(GrammarSyntaxError, match="at most 2000 open brackets"):
        Grammar.from_json_schema("[" * 100_000)
    with pytest.raises(GrammarSyntaxError, match="at most 2000 open brackets"):
        Grammar.from_json_schema('{"not":' * 100_000)
    deep = '{"items":' * 1900 + "{}" + "}" * 1900
    assert read(deep, "[" * 100 + "]" * 100)
    nested_instance = {"type": "array", "items": {"$ref": "#"}}
    assert read(nested_instance, "[" * 20000 + "]" * 20000)


def test_any_order_of_many_members():
    names = [f"option_{i}" for i in range(300)]
    schema = {"type": "object", "properties": dict.fromkeys(names, {"type": "boolean"}),
              "required": names[::2], "additionalProperties": False}  # fmt: skip
    text = json.dumps({name: True for name in reversed(names)})
    assert read(schema, text, order="any")
    assert not read(schema, json.dumps(dict.fromkeys(names[1:], True)), order="any")


def test_exponential_patterns():
    assert read({"type": "string", "pattern": "^(a|a)*$"}, '"aaaa"')
    assert read({"type": "string", "pattern": "(.*a.{20})"}, '"' + "a" * 30 + '"')
    with pytest.raises(GrammarLimitError, match="more than 20000 states"):  # counted too
        read({"type": "string", "pattern": "(.*a.{20})", "maxLength": 60}, '"a"')


def test_a_matcher_outlives_a_limit():
    """The values of `b` take too many states, which shows when they are reached; others do not."""
    hard = {"type": "string", "pattern": "a.{20}$", "maxLength": 60}
    schema = {"type": "object", "properties": {"a": {"type": "null"}, "b": hard}}
    matcher = Matcher(Compiler(BYTES).compile(Grammar.from_json_schema(schema)))
    assert matcher.accept_bytes('{"a": null, "b"')
    for _ in range(2):
        with pytest.raises(GrammarLimitError, match="more than 20000 states"):
            matcher.accept_bytes(": ")
    matcher.rollback(1)
    matcher.fill(new_bitmask(1, BYTES.vocab_size))
    assert matcher.accept_bytes('{"a": null, "c": 1}')
    assert matcher.is_completed()
