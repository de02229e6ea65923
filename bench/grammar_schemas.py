"""Schemas of many kinds, made up, each with instances that fit and some that do not."""

import json
from collections.abc import Iterator
from typing import Any

Tests = list[tuple[str, bool]]
STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def tests(good: list[Any], bad: list[Any]) -> Tests:
    def text(value: Any) -> str:
        return json.dumps(value, indent=2, ensure_ascii=False)

    return [*((text(v), True) for v in good), *((text(v), False) for v in bad)]


def object_of(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)} | more


def tool_calls() -> Iterator[tuple[str, Any, Tests]]:
    for i in range(12):
        arguments = object_of(
            {
                "city": STRING,
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "units": {"type": "string", "enum": ["metric", "imperial"]},
            },
            additionalProperties=i % 2 == 0,
        )
        call = object_of({"name": {"const": f"forecast_{i}"}, "arguments": arguments})
        good = {
            "name": f"forecast_{i}",
            "arguments": {"city": "S\u00e3o Paulo", "days": 3, "units": "metric"},
        }
        bad = {"name": "forecast", "arguments": {}}
        yield f"tool call {i}", call, tests([good], [bad])


def nested() -> Iterator[tuple[str, Any, Tests]]:
    for depth in (2, 4, 8, 16):
        schema: Any = {"type": "array", "items": STRING, "maxItems": 5}
        value: Any = ["leaf", "another leaf"]
        for level in range(depth):
            schema = object_of({f"level{level}": schema, "note": STRING})
            value = {f"level{level}": value, "note": f"a note at {level}, of some length"}
        yield f"nested {depth}", schema, tests([value], [{}])


def lists() -> Iterator[tuple[str, Any, Tests]]:
    for size in (10, 500, 5000):
        words = [f"value-{i * 7919 % size:05d}" for i in range(size)]
        yield (
            f"enum {size}",
            object_of({"x": {"enum": words}}),
            tests([{"x": words[3]}, {"x": words[-1]}], [{"x": "value-x"}]),
        )
    for low, high in ((0, 1), (0, 20), (5, 80), (0, 300), (10, 4000)):
        schema = object_of({"text": {"type": "string", "minLength": low, "maxLength": high}})
        text = "The quick brown fox jumps over the lazy dog. " * 100
        good = [{"text": text[:n]} for n in {low, (low + min(high, 400)) // 2, min(high, 400)}]
        yield f"length {low} {high}", schema, tests(good, [{"text": text[: high + 1]}])


def patterns() -> Iterator[tuple[str, Any, Tests]]:
    samples = {
        r"^[A-Z]{2}\d{4}$": ("AB1234", "AB12345"),
        r"^\+?[0-9 ()-]{7,20}$": ("+49 (30) 1234-567", "12"),
        r"^(https?|ftp)://\S+$": ("https://example.com/a?b=c", "example.com"),
        r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$": ("module.sub_module.name", "Module"),
        r"^#([0-9a-f]{3}|[0-9a-f]{6})$": ("#a0b1c2", "#a0b1"),
        r"(cat|dog)s?": ("two dogs and a bird", "a bird"),
        r"^(?!admin$).{3,}$": ("somebody", "admin"),
    }
    for pattern, (good, bad) in samples.items():
        yield (
            f"pattern {pattern}",
            object_of({"x": {"type": "string", "pattern": pattern}}),
            tests([{"x": good}], [{"x": bad}]),
        )
    both = {"type": "string", "pattern": "^[a-z]+( [a-z]+)*$", "minLength": 5, "maxLength": 60}
    yield (
        "pattern and length",
        object_of({"x": both}),
        tests([{"x": "some words in a row"}], [{"x": "a"}]),
    )


def formats() -> Iterator[tuple[str, Any, Tests]]:
    samples = {
        "date-time": ("2024-02-29T12:30:00Z", "2023-02-30T12:30:00Z"),
        "date": ("2024-12-31", "2024-13-01"),
        "email": ("first.last@example.co.uk", "first"),
        "uri": ("https://user@example.com:8080/a/b?c=d#e", "//x"),
        "ipv6": ("2001:db8::ff00:42:8329", "2001::1::2"),
        "uuid": ("123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        "hostname": ("www.example.com", "-x"),
    }
    for name, (good, bad) in samples.items():
        schema = object_of({"x": {"type": "string", "format": name}})
        yield f"format {name}", schema, tests([{"x": good}], [{"x": bad}])


def recursive() -> Iterator[tuple[str, Any, Tests]]:
    node = object_of(
        {"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}
    )
    tree: Any = {"name": "leaf", "children": []}
    for i in range(6):
        tree = {"name": f"node {i}", "children": [tree, {"name": "side", "children": []}]}
    yield "tree", {"$defs": {"node": node}, "$ref": "#/$defs/node"}, tests([tree], [{"name": 1}])
    term = {
        "anyOf": [
            INTEGER,
            object_of(
                {"op": {"enum": ["+", "-", "*"]}, "left": {"$ref": "#"}, "right": {"$ref": "#"}}
            ),
        ]
    }
    value: Any = 1
    for op in "+-*+-*":
        value = {"op": op, "left": value, "right": 7}
    yield "terms", term, tests([value], [{"op": "/", "left": 1, "right": 1}])


def unions() -> Iterator[tuple[str, Any, Tests]]:
    for count in (3, 12, 40):
        branches = [
            object_of(
                {"kind": {"const": f"kind{i}"}, f"field{i}": INTEGER if i % 2 else STRING},
                additionalProperties=False,
            )
            for i in range(count)
        ]
        good = [{"kind": "kind1", "field1": 5}, {"kind": "kind2", "field2": "x"}]
        for keyword in ("anyOf", "oneOf"):
            schema = {"type": "array", "items": {keyword: branches}}
            yield f"{keyword} {count}", schema, tests([good], [[{"kind": "kind1", "field1": "x"}]])
    base = object_of({"id": INTEGER})
    merged = {"allOf": [base, object_of({"name": STRING}), {"properties": {"id": {"minimum": 10}}}]}
    yield "allOf", merged, tests([{"id": 10, "name": "x"}], [{"id": 9, "name": "x"}])


def numbers_and_maps() -> Iterator[tuple[str, Any, Tests]]:
    price = {"type": "number", "minimum": 0, "maximum": 9999.99, "multipleOf": 0.01}
    yield "price", object_of({"price": price}), tests([{"price": 129.95}], [{"price": 1.005}])
    matrix = {
        "type": "array",
        "items": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
        "minItems": 2,
    }
    yield "matrix", matrix, tests([[[1, 2.5, -3], [1e-3, 0, 4]]], [[[1, 2]]])
    scores = {
        "type": "object",
        "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 100},
        "minProperties": 1,
    }
    yield "map", scores, tests([{"anna": 90, "bob smith": 71}], [{}])
    keys = {"type": "object", "patternProperties": {"^x-": STRING}, "additionalProperties": INTEGER}
    yield "patterned map", keys, tests([{"x-a": "b", "y": 3}], [{"x-a": 3}])
    wide = {
        "type": "object",
        "properties": {f"option_{i}": {"type": ["string", "null"]} for i in range(60)},
    }
    yield "wide", wide, tests([{f"option_{i}": "on" for i in range(0, 60, 3)}], [{"option_1": 1}])
    yield "anything", True, tests([{"a": [1, {"b": None}], "c": "d"}], [])


def made_schemas() -> Iterator[tuple[str, Any, Tests]]:
    """Name, schema, and instances as (text, whether it fits)."""
    for kind in (tool_calls, nested, lists, patterns, formats, recursive, unions, numbers_and_maps):
        yield from kind()
