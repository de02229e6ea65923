"""The rows of objects and arrays, and all rows together; see schema_value_rows.py."""

from grammar.schema_value_rows import VALUE_ROWS, Case, Row

AB = {"a": {"type": "integer"}, "b": {"type": "string"}}

ROWS = [
    *VALUE_ROWS,
    Row(
        "`properties`, `required`, `additionalProperties`",
        "yes",
        [
            Case(
                {
                    "type": "object",
                    "properties": AB,
                    "required": ["a"],
                    "additionalProperties": False,
                },
                [{"a": 1}, {"a": 1, "b": "x"}, '!{ "a" : 1 }'],
                [{}, {"b": "x"}, {"a": "x"}, {"a": 1, "c": 1}],
            ),
            Case(
                {"type": "object", "properties": AB},
                [{}, {"b": "x"}, {"aa": 1, "": 2}, {"a": 1, "z": None}],
                [{"a": "x"}, '!{"\\u0061": "x"}'],
            ),
            Case(
                {"type": "object", "additionalProperties": {"type": "null"}},
                [{}, {"a": None}],
                [{"a": 1}],
            ),
            Case(
                {
                    "type": "object",
                    "properties": {'a"\n': {}},
                    "required": ['a"\n'],
                    "additionalProperties": False,
                },
                [{'a"\n': 1}],
                [{"a": 1}],
            ),
            Case(
                {"type": "object", "required": ["x"], "additionalProperties": {"type": "null"}},
                [{"x": None}],
                [{}, {"x": 1}],
            ),
            Case({"required": ["a"]}, [{"a": 1}, 3, "x"], [{}]),
        ],
    ),
    Row(
        "`patternProperties`, `propertyNames`",
        "yes, intersected where they overlap",
        [
            Case(
                {
                    "type": "object",
                    "patternProperties": {"^x": {"type": "integer"}},
                    "additionalProperties": False,
                },
                [{}, {"x1": 1}],
                [{"x1": "a"}, {"y": 1}],
            ),
            Case(
                {
                    "type": "object",
                    "patternProperties": {"^x": {"type": "integer"}, "y$": {"minimum": 5}},
                },
                [{"xy": 5, "x": 1, "z": "a"}],
                [{"xy": 4}, {"xy": "a"}, {"x": "a"}, {"y": 1}],
            ),
            Case(
                {
                    "type": "object",
                    "properties": {"xa": {"maximum": 3}},
                    "patternProperties": {"^x": {"minimum": 1}},
                    "additionalProperties": {"type": "null"},
                },
                [{"xa": 2, "xb": 9, "c": None}],
                [{"xa": 0}, {"xa": 4}, {"c": 1}],
            ),
            Case(
                {"type": "object", "propertyNames": {"maxLength": 2}}, [{}, {"ab": 1}], [{"abc": 1}]
            ),
            Case(
                {
                    "type": "object",
                    "propertyNames": {"enum": ["a", "b"]},
                    "additionalProperties": {"type": "integer"},
                },
                [{"a": 1}],
                [{"c": 1}, {"a": "x"}],
            ),
            Case(
                {
                    "type": "object",
                    "propertyNames": {"pattern": "^a"},
                    "patternProperties": {"b$": {"type": "null"}},
                },
                [{"ab": None, "a": 1}],
                [{"ab": 1}, {"b": None}],
            ),
        ],
    ),
    Row(
        "`minProperties`, `maxProperties`",
        "yes; further members may repeat a name",
        [
            Case(
                {"type": "object", "properties": AB, "minProperties": 1, "maxProperties": 2},
                [{"a": 1}, {"a": 1, "b": "x"}, {"c": 1}, {"c": 1, "d": 2}],
                [{}, {"a": 1, "b": "x", "c": 1}],
            ),
            Case(
                {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
                [{"a": 1, "b": 2}],
                [{}, {"a": 1}],
            ),
            Case({"type": "object", "maxProperties": 0}, [{}], [{"a": 1}]),
            Case(
                {
                    "type": "object",
                    "properties": {c: {"type": "null"} for c in "abcd"},
                    "required": ["c"],
                    "additionalProperties": False,
                    "maxProperties": 2,
                },
                [{"c": None}, {"a": None, "c": None}, {"c": None, "d": None}],
                [{}, {"a": None, "b": None}, {"a": None, "b": None, "c": None}],
            ),
        ],
    ),
    Row(
        "`dependentRequired`, `dependentSchemas`, `dependencies`",
        "yes; at most 256 combinations",
        [
            Case(
                {"type": "object", "dependentRequired": {"a": ["b"]}},
                [{}, {"b": 1}, {"a": 1, "b": 1}],
                [{"a": 1}],
            ),
            Case(
                {
                    "type": "object",
                    "properties": {"a": {}, "b": {}},
                    "dependentSchemas": {"a": {"properties": {"b": {"type": "null"}}}},
                },
                [{"b": 1}, {"a": 1, "b": None}],
                [{"a": 1, "b": 1}],
            ),
            Case(
                {
                    "type": "object",
                    "properties": {"a": {}, "b": {}},
                    "dependencies": {"a": ["b"], "b": {"required": ["a"]}},
                },
                [{}, {"a": 1, "b": 1}],
                [{"a": 1}, {"b": 1}],
            ),
        ],
    ),
    Row(
        "`items`, `prefixItems`, `additionalItems`",
        "yes, also draft 2019-09's array of items",
        [
            Case({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["a"], [1, "a"]]),
            Case(
                {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}]},
                [[], [1], [1, None], [1, None, "x"]],
                [[None], [1, 1]],
            ),
            Case(
                {"type": "array", "prefixItems": [{"const": 1}], "items": False},
                [[], [1]],
                [[1, 1], [2]],
            ),
            Case(
                {
                    "type": "array",
                    "items": [{"const": 1}],
                    "additionalItems": {"const": 2},
                    "$schema": "http://json-schema.org/draft-07/schema#",
                },
                [[1, 2, 2]],
                [[2], [1, 1]],
            ),
        ],
    ),
    Row(
        "`minItems`, `maxItems`",
        "yes",
        [
            Case(
                {"type": "array", "items": {"const": 0}, "minItems": 2, "maxItems": 3},
                [[0, 0], [0, 0, 0]],
                [[], [0], [0] * 4],
            ),
            Case({"type": "array", "minItems": 1}, [[1], [1, 2]], [[]]),
            Case({"type": "array", "maxItems": 0}, [[]], [[1]]),
            Case(
                {
                    "type": "array",
                    "prefixItems": [{"const": 1}, {"const": 2}],
                    "minItems": 1,
                    "maxItems": 3,
                },
                [[1], [1, 2], [1, 2, 9]],
                [[], [1, 2, 3, 4]],
            ),
        ],
    ),
    Row(
        "`uniqueItems`",
        "items of a list of at most 4,096 values, or one item",
        [
            Case(
                {"type": "array", "items": {"enum": ["a", "b", 1]}, "uniqueItems": True},
                [[], ["a", 1], [1, "b", "a"]],
                [["a", "a"], [1, "a", 1]],
            ),
            Case({"type": "array", "uniqueItems": True, "maxItems": 1}, [[], [1]], [[1, 1]]),
            Case(
                {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "minItems": 2},
                [[True, False]],
                [[], [True], [True, True]],
            ),
        ],
    ),
    Row(
        "`contains`, `minContains`, `maxContains`",
        "yes; `maxContains` where the complement can be expressed",
        [
            Case({"type": "array", "contains": {"type": "null"}}, [[None], [1, None]], [[], [1]]),
            Case(
                {
                    "type": "array",
                    "items": {"type": "integer"},
                    "contains": {"minimum": 5},
                    "minContains": 2,
                    "maxItems": 3,
                },
                [[5, 5], [1, 6, 7]],
                [[5], [1, 2, 5], [5, 5, 5, 5]],
            ),
            Case(
                {"type": "array", "contains": {"const": 1}, "maxContains": 1},
                [[1], [1, 2]],
                [[], [1, 1], [2]],
            ),
            Case({"type": "array", "contains": {"const": 1}, "minContains": 0}, [[], [2]], []),
        ],
    ),
    Row(
        "`unevaluatedProperties`, `unevaluatedItems`",
        "after `allOf` and `$ref`, branch by branch; not beside `contains`",
        [
            Case(
                {
                    "type": "object",
                    "allOf": [{"properties": {"a": {}}}],
                    "properties": {"b": {}},
                    "unevaluatedProperties": False,
                },
                [{"a": 1, "b": 1}, {}],
                [{"c": 1}],
            ),
            Case(
                {
                    "type": "object",
                    "anyOf": [
                        {"properties": {"a": {}}, "required": ["a"]},
                        {"properties": {"b": {}}, "required": ["b"]},
                    ],
                    "unevaluatedProperties": False,
                },
                [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}],
                [{}, {"a": 1, "c": 1}],
            ),
            Case(
                {
                    "type": "array",
                    "prefixItems": [{}],
                    "allOf": [{"prefixItems": [{}, {}]}],
                    "unevaluatedItems": False,
                },
                [[1, 2]],
                [[1, 2, 3]],
            ),
        ],
    ),
    Row(
        "annotations, unknown keywords",
        "ignored; unknown ones with a warning",
        [Case({"title": "t", "default": 1, "x-a": 1, "my": 2, "type": "null"}, [None], [1])],
    ),
]


def table() -> str:
    """The rows as docs/grammar.md shows them; tools/schema_docs.py writes it there."""
    lines = ["| keyword | honoured | tested: schemas, texts |", "|---|---|---|"]
    for row in ROWS:
        texts = sum(len(case.good) + len(case.bad) for case in row.cases)
        lines.append(f"| {row.keywords} | {row.scope} | {len(row.cases)}, {texts} |")
    return "\n".join(lines) + "\n"
