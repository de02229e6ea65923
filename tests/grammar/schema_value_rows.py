"""Keywords of JSON Schema with instances: what the tests hold, and docs/grammar.md's table.

A row is (keywords, how far, cases); a case is (schema, values that fit, values that do not). Values
are JSON texts where they begin with ``!``: spellings count there, not only values.
"""

from typing import Any, NamedTuple

from grammar.schema_refused import FORMATS


class Case(NamedTuple):
    schema: Any
    good: list[Any]
    bad: list[Any]


class Row(NamedTuple):
    keywords: str
    scope: str
    cases: list[Case]


TREE = {
    "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
    "$ref": "#/$defs/tree",
}

VALUE_ROWS = [
    Row(
        "`type`, boolean schemas, empty schema",
        "yes",
        [
            Case(True, [None, 1, "a", [], {}], []),
            Case({}, [None, 1.5, {"a": [1]}], []),
            Case({"type": "null"}, [None], [0, False, ""]),
            Case({"type": "boolean"}, [True, False], [None, 0]),
            Case({"type": "integer"}, [0, -3, 10**30], ["!1.5", "!01", "!1e2", "!-", "a"]),
            Case({"type": "number"}, [0, -1.5, "!1e-7", "!0.50"], ["!.5", "!1.", "!+1", None]),
            Case(
                {"type": "string"},
                ["", 'a"\\\n', "\u00e9\U0001f600", '!"\\ud83d\\ude00"'],
                ['!"\\ud83d"', '!"\n"', '!"a', 1],
            ),
            Case({"type": ["integer", "null"]}, [1, None], ["!1.5", "a"]),
            Case({"type": "array"}, [[], [1, [2]], "![ 1 , 2 ]"], ["![1,]", {}]),
            Case({"type": "object"}, [{}, {"a": {"b": 1}}], ['!{"a":1,}', "!{a:1}", []]),
            Case({"properties": {"a": False}}, [{}, {"b": 1}, 3], [{"a": 1}]),
        ],
    ),
    Row(
        "`const`, `enum`",
        "yes, any value, with siblings",
        [
            Case({"const": 'a"b'}, ['a"b'], ["a", "ab", 1]),
            Case(
                {"const": {"a": [1, None]}},
                [{"a": [1, None]}],
                [{}, {"a": [1]}, {"a": [1, None], "b": 1}],
            ),
            Case(
                {"enum": [1, "1", None, True, [2], {}]},
                [1, "1", None, True, [2], {}],
                [2, "2", False, [], [2, 2]],
            ),
            Case(
                {"enum": [1, 2, "a", "bc"], "type": "string", "minLength": 2}, ["bc"], ["a", 1, 2]
            ),
            Case({"enum": [1, 5, 9], "minimum": 5, "not": {"const": 9}}, [5], [1, 9]),
            Case(
                {"enum": ["a", "b"], "anyOf": [{"const": "a"}, {"const": "c"}]}, ["a"], ["b", "c"]
            ),
            Case({"enum": [1.50, 1e2]}, ["!1.5", "!100"], ["!1.6", "!10"]),
        ],
    ),
    Row(
        "`$ref`, `$defs`, `definitions`, `$anchor`, `$id`",
        "yes, also recursive; other documents from `registry`",
        [
            Case(TREE, [[], [[], [[]]]], [[1], {}]),
            Case(
                {
                    "$defs": {"a/b~": {"type": "null"}},
                    "properties": {"x": {"$ref": "#/$defs/a~1b~0"}},
                },
                [{"x": None}],
                [{"x": 1}],
            ),
            Case(
                {"$defs": {"x": {"$anchor": "here", "type": "null"}}, "$ref": "#here"}, [None], [1]
            ),
            Case(
                {"$id": "http://a.b/c", "$defs": {"x": {"$id": "d", "type": "null"}}, "$ref": "d"},
                [None],
                [1],
            ),
            Case(
                {"$ref": "#/$defs/i", "minimum": 3, "$defs": {"i": {"type": "integer"}}},
                [3],
                [2, "a"],
            ),
            Case(
                {
                    "$schema": "http://json-schema.org/draft-07/schema#",
                    "minimum": 3,
                    "$ref": "#/definitions/i",
                    "definitions": {"i": {"type": "integer"}},
                },
                [2],
                ["a"],
            ),
            Case(
                {
                    "type": "object",
                    "properties": {"next": {"$ref": "#"}, "v": {"type": "integer"}},
                    "required": ["v"],
                    "additionalProperties": False,
                },
                [{"v": 1}, {"next": {"next": {"v": 1}, "v": 2}, "v": 3}],
                [{}, {"next": {}, "v": 1}],
            ),
        ],
    ),
    Row(
        "`$dynamicRef`, `$recursiveRef`",
        "as `$ref`, unless more than one schema could be meant",
        [
            Case(
                {"$dynamicAnchor": "n", "type": "array", "items": {"$dynamicRef": "#n"}},
                [[[]]],
                [[1]],
            ),
            Case(
                {
                    "$schema": "https://json-schema.org/draft/2019-09/schema",
                    "$recursiveAnchor": True,
                    "type": "array",
                    "items": {"$recursiveRef": "#"},
                },
                [[[]]],
                [[1]],
            ),
        ],
    ),
    Row(
        "`allOf`, `anyOf`",
        "yes; at most 256 combinations",
        [
            Case(
                {"allOf": [{"minimum": 2}, {"maximum": 4}, {"type": "integer"}]},
                [2, 4],
                [1, 5, "!2.5"],
            ),
            Case(
                {"anyOf": [{"type": "null"}, {"minLength": 2}], "type": ["null", "string"]},
                [None, "ab"],
                ["a", 1],
            ),
            Case(
                {
                    "allOf": [
                        {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                        {"properties": {"a": {"minimum": 3}, "b": {"type": "null"}}},
                    ],
                    "additionalProperties": {"type": "integer"},
                },
                [{"a": 3}],
                [{"a": 2}, {}, {"a": 3, "b": None}],
            ),
            Case(
                {
                    "allOf": [
                        {"anyOf": [{"const": 1}, {"const": 2}]},
                        {"anyOf": [{"const": 2}, {"const": 3}]},
                    ]
                },
                [2],
                [1, 3],
            ),
        ],
    ),
    Row(
        "`oneOf`",
        "where branches are disjoint, or their differences can be expressed",
        [
            Case({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ["a", 1], [None]),
            Case(
                {"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"},
                [2, 3, 4],
                [6, 0, 1],
            ),
            Case(
                {
                    "oneOf": [
                        {"type": "string", "pattern": "^a"},
                        {"type": "string", "maxLength": 2},
                    ]
                },
                ["abc", "b", "bc"],
                ["a", "ab", "bcd"],
            ),
            Case(
                {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"},
                [{"a": 1}, {"b": 1}, {"a": 1, "c": 2}],
                [{}, {"a": 1, "b": 1}],
            ),
            Case(
                {
                    "oneOf": [
                        {
                            "properties": {"k": {"const": c}, c: True},
                            "required": ["k", c],
                            "additionalProperties": False,
                        }
                        for c in ("x", "y")
                    ],
                    "type": "object",
                },
                [{"k": "x", "x": 1}, {"k": "y", "y": 1}],
                [{"k": "x", "y": 1}, {"k": "x"}],
            ),
            Case({"oneOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}, ["a", "c"], ["b", "d"]),
        ],
    ),
    Row(
        "`not`, `if` `then` `else`",
        "where the complement can be expressed: not of `additionalProperties`, "
        "`patternProperties`, `uniqueItems`",
        [
            Case({"not": {"type": ["string", "object"]}}, [None, 1, []], ["a", {}]),
            Case(
                {"not": {"enum": ["a", 1, None]}}, ["b", "aa", "", 2, "!1.5", True], ["a", 1, None]
            ),
            Case({"type": "string", "not": {"pattern": "ab"}}, ["", "ba", "a"], ["ab", "xaby"]),
            Case({"type": "string", "not": {"minLength": 2}}, ["", "\u00e9"], ["ab"]),
            Case({"type": "integer", "not": {"minimum": 3, "maximum": 5}}, [2, 6], [3, 4, 5]),
            Case({"type": "number", "not": {"type": "integer"}}, ["!1.5"], ["!1", "!1.0"]),
            Case({"type": "object", "not": {"required": ["a"]}}, [{}, {"b": 1}], [{"a": 1}]),
            Case(
                {"type": "object", "not": {"properties": {"a": {"type": "string"}}}},
                [{"a": 1}],
                [{}, {"a": "x"}],
            ),
            Case(
                {"type": "array", "not": {"items": {"type": "null"}}},
                [[1], [None, 1]],
                [[], [None]],
            ),
            Case(
                {
                    "type": "object",
                    "properties": {"t": {"enum": ["x", "y"]}, "v": {}},
                    "required": ["t"],
                    "if": {"properties": {"t": {"const": "x"}}},
                    "then": {"required": ["v"]},
                    "else": {"properties": {"v": False}},
                },
                [{"t": "x", "v": 1}, {"t": "y"}],
                [{"t": "x"}, {"t": "y", "v": 1}],
            ),
            Case(
                {"type": "integer", "if": {"minimum": 10}, "then": {"multipleOf": 10}},
                [3, 10, 20],
                [11],
            ),
        ],
    ),
    Row(
        "`minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`",
        "yes, digit by digit; draft 4's booleans too",
        [
            Case(
                {"type": "integer", "minimum": -12, "maximum": 105},
                [-12, 0, "!-0", 99, 105],
                [-13, 106, 1000],
            ),
            Case(
                {"type": "integer", "exclusiveMinimum": 0, "maximum": 9007199254740993},
                [1, 9007199254740993],
                [0, "!-0", 9007199254740994],
            ),
            Case(
                {"type": "number", "minimum": 0.5, "exclusiveMaximum": 2.25},
                ["!0.5", "!2.249", 1, "!0.50"],
                ["!0.49", "!2.25", "!2.250", 3, -1],
            ),
            Case(
                {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
                ["!1.5", "!1.0001"],
                [1, 2, "!1.0"],
            ),
            Case({"type": "number", "maximum": -0.1}, ["!-0.1", -5], [0, "!-0.05"]),
            Case({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, [4], [3]),
            Case({"minimum": 1e300}, [10**300, "a"], [10**299]),
        ],
    ),
    Row(
        "`multipleOf`",
        "yes, decimal; up to 10^6 without its point",
        [
            Case({"type": "integer", "multipleOf": 7}, [0, 7, -14, 7 * 10**9], [1, 8]),
            Case(
                {"type": "number", "multipleOf": 0.25},
                [1, "!0.5", "!-0.75", "!0.250"],
                ["!0.3", "!0.251"],
            ),
            Case({"type": "integer", "multipleOf": 0.5}, [1, 2], ["!1.5"]),
            Case({"type": "integer", "multipleOf": 1000000}, [0, 3000000], [1000001]),
            Case(
                {"type": "integer", "multipleOf": 4, "minimum": 5, "maximum": 13},
                [8, 12],
                [4, 16, 10],
            ),
        ],
    ),
    Row(
        "`minLength`, `maxLength`",
        "yes, with everything; in code points",
        [
            Case(
                {"type": "string", "minLength": 2, "maxLength": 3},
                ["ab", "\U0001f600\u00e9b", '!"\\n\\""'],
                ["a", "abcd", ""],
            ),
            Case({"type": "string", "maxLength": 300}, ["", "x" * 300], ["x" * 301]),
            Case(
                {"type": "string", "pattern": "^a(bc)*$", "minLength": 4, "maxLength": 6},
                ["abcbc"],
                ["abc", "abcbcbc"],
            ),
            Case(
                {"type": "string", "format": "ipv4", "maxLength": 8}, ["1.2.3.4"], ["11.22.33.44"]
            ),
            Case(
                {"type": "string", "pattern": "b", "maxLength": 2}, ["b", "ab", "bb"], ["a", "aab"]
            ),
        ],
    ),
    Row(
        "`pattern`",
        "yes, ECMAScript, searched; no backreferences",
        [
            Case({"type": "string", "pattern": "a+"}, ["a", "xay"], ["", "xyz"]),
            Case({"type": "string", "pattern": '^[^"\\\\]*$'}, ["ab"], ['a"', "a\\"]),
            Case({"type": "string", "pattern": "^\\S+$"}, ['a"b', "\u00e9"], ["", "a b"]),
            Case({"type": "string", "pattern": "^(?!no)[a-z]+$"}, ["yes"], ["no", "nope"]),
            Case({"type": "string", "pattern": "(^a|b$)"}, ["ax", "xb"], ["xa", "bx"]),
            Case(
                {"type": "string", "allOf": [{"pattern": "^a"}, {"pattern": "b$"}]},
                ["ab", "acb"],
                ["a", "b"],
            ),
            Case({"type": "string", "pattern": "^[\\x00-\\x1f]$"}, ["\n", "\u0001"], ["a", ""]),
        ],
    ),
    Row(
        "`format`",
        "19 of them; others are ignored with a warning, or refused",
        [
            Case({"type": "string", "format": name}, *instances)
            for name, instances in FORMATS.items()
        ],
    ),
]
