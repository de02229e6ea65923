"""Schemas that are refused or that no value fits, and instances of formats."""

from typing import Any

FORMATS = {
    "date-time": (
        ["2020-02-29T23:59:59Z", "1999-12-31t00:00:00.5+02:00"],
        ["2020-02-30T00:00:00Z"],
    ),
    "date": (["2020-12-31", "2021-02-28"], ["2020-13-01", "2020-04-31", "20-01-01"]),
    "time": (["12:30:00Z", "23:59:60Z"], ["12:30:00", "24:00:00Z"]),
    "duration": (["P1Y2M3DT4H5M6S", "P3W", "PT1H"], ["P", "1D", "PT", "P1W2D"]),
    "email": (["a.b@example.com", "x@[127.0.0.1]"], ["a", "a@", ".a@b.c", "a..b@c"]),
    "idn-email": (["a@b.c"], ["a"]),
    "hostname": (["example.com", "a", "x" * 63], ["-a", "a-", "x" * 64, "a..b", ""]),
    "idn-hostname": (["example.com"], ["a..b"]),
    "ipv4": (["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
    "ipv6": (
        ["::", "::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1::8"],
        ["1::2::3", ":::", "12345::"],
    ),
    "uri": (["http://a.b/c?d#e", "urn:x:y", "mailto:a@b"], ["//a.b/c", "a b:c", "http://a b"]),
    "uri-reference": (["http://a.b", "/c", "#x", ""], ["a b", "\\\\a"]),
    "iri": (["http://\u00e9.b/\u4e16"], ["/c", "\u00e9"]),
    "iri-reference": (["/\u00e9", ""], ["a b"]),
    "uri-template": (["http://a/{b}{?c,d*}", "x"], ["{", "{a", "a}"]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000"]),
    "json-pointer": (["", "/a/~0~1"], ["a", "/~2"]),
    "relative-json-pointer": (["0", "1/a", "2#"], ["/a", "01", "-1"]),
    "byte": (["", "YWI=", "YWJj"], ["Y", "YWI", "YW="]),
}

# What is refused, with the beginning of the message.
REFUSED: list[tuple[Any, str]] = [
    ({"properties": {"a": {"not": {"additionalProperties": False}}}}, "#/properties/a/not: "),
    ({"$ref": "http://a.b/c"}, '#/$ref: "http://a.b/c" is outside'),
    ({"$ref": "#/nothing"}, '#/$ref: "#/nothing" names nothing'),
    ({"items": {"pattern": "(a)\\1"}}, "#/items/pattern: regex: at 3: a backreference"),
    ({"pattern": "("}, "#/pattern: regex: "),
    ({"type": "array", "uniqueItems": True}, "#/uniqueItems: "),
    ({"type": "text"}, '#/type: unknown type "text"'),
    ({"type": 3}, "#/type: expected the name of a type"),
    ({"properties": 3}, "#/properties: expected an object, got number"),
    ({"properties": {"a": 3}}, "#/properties: expected a schema"),
    ({"required": "a"}, "#/required: expected an array of strings"),
    ({"minLength": -1}, "#/minLength: expected a non-negative integer"),
    ({"multipleOf": 0}, "#/multipleOf: expected a positive number"),
    ({"multipleOf": 10000019}, "#/multipleOf: "),
    ({"minimum": "a"}, "#/minimum: expected a number, got string"),
    ({"anyOf": []}, "#/anyOf: expected at least one schema"),
    ({"$schema": "http://json-schema.org/draft-02/schema#"}, "#/$schema: "),
    (
        {
            "oneOf": [
                {"additionalProperties": {"type": "null"}, "type": "object"},
                {"type": "object"},
            ]
        },
        "#/oneOf: ",
    ),
    (
        {"type": "array", "contains": {"const": 1}, "unevaluatedItems": False},
        "#/unevaluatedItems: ",
    ),
    ("[]", "#: expected an object or a boolean, got array"),
    ("3", "#: expected an object or a boolean, got number"),
]
UNSATISFIABLE: list[Any] = [
    False,
    {"type": "integer", "minimum": 3, "maximum": 2},
    {"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 3},
    {"type": "string", "enum": [1, 2]},
    {"type": "string", "minLength": 3, "maxLength": 2},
    {"type": "string", "pattern": "^a$", "minLength": 2},
    {"type": "object", "properties": {"a": False}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"type": "array", "minItems": 2, "maxItems": 1},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"allOf": [{"type": "string"}, {"type": "null"}]},
    {"$ref": "#"},
    {"anyOf": [{"$ref": "#"}]},
    {"type": "object", "minProperties": 2, "properties": {"a": {}}, "additionalProperties": False},
]
