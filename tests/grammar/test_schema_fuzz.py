"""Random schemas against the package jsonschema, and texts generated from the grammars themselves.

Whatever a grammar accepts has to be valid; whatever is valid has to be accepted, its canonical text
with the members in the schema's order. Refused schemas prove nothing, so their share is bounded.
"""

import json
import random
from typing import Any

import pytest

from lmx.errors import GrammarError
from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo

BYTES = TokenizerInfo([*(bytes([b]) for b in range(256)), b"</s>"], stop_ids=[256])
STRINGS = ["", "a", "b", "ab", "aab", "\u00e9", 'q"', "x1"]
NUMBERS = [0, 1, 2, 3, 5, 6, 10, -1, -4, 12]
PATTERNS = ["a", "^a", "b$", "^[ab]*$", "^.?$", "^(a|x1)$"]
NAMES = ["a", "b", "ab", "x1"]


def value(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(6 if depth > 0 else 4)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.choice([0.5, 1.5, -2.25])
    if kind in (2, 3):
        return rng.choice(STRINGS)
    if kind == 4:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {name: value(rng, depth - 1) for name in NAMES if rng.random() < 0.5}


def schema(rng: random.Random, depth: int) -> Any:
    if rng.random() < 0.07:
        return rng.choice([True, True, False, {}])
    out: dict[str, Any] = {}
    inner = (
        (lambda: schema(rng, depth - 1))
        if depth > 0
        else (lambda: rng.choice([True, {"type": "integer"}]))
    )
    types = ["null", "boolean", "integer", "number", "string", "array", "object"]
    if rng.random() < 0.7:
        out["type"] = rng.choice(types) if rng.random() < 0.7 else rng.sample(types, 2)
    makers = {
        "enum": lambda: [value(rng, 1) for _ in range(rng.randrange(1, 5))],
        "const": lambda: value(rng, 1),
        "minimum": lambda: rng.choice(NUMBERS),
        "maximum": lambda: rng.choice(NUMBERS),
        "exclusiveMinimum": lambda: rng.choice(NUMBERS),
        "multipleOf": lambda: rng.choice([1, 2, 3, 0.5, 2.5]),
        "minLength": lambda: rng.randrange(3),
        "maxLength": lambda: rng.randrange(4),
        "pattern": lambda: rng.choice(PATTERNS),
        "items": inner,
        "prefixItems": lambda: [inner() for _ in range(rng.randrange(1, 3))],
        "minItems": lambda: rng.randrange(3),
        "maxItems": lambda: rng.randrange(4),
        "contains": inner,
        "properties": lambda: {n: inner() for n in rng.sample(NAMES, rng.randrange(1, 4))},
        "required": lambda: rng.sample(NAMES, rng.randrange(3)),
        "additionalProperties": lambda: rng.choice([False, True, inner()]),
        "patternProperties": lambda: {rng.choice(PATTERNS): inner()},
        "propertyNames": lambda: {rng.choice(["pattern"]): rng.choice(PATTERNS)},
        "minProperties": lambda: rng.randrange(3),
        "maxProperties": lambda: rng.randrange(4),
        "dependentRequired": lambda: {rng.choice(NAMES): rng.sample(NAMES, 1)},
        "dependentSchemas": lambda: {rng.choice(NAMES): inner()},
        "allOf": lambda: [inner() for _ in range(rng.randrange(1, 3))],
        "anyOf": lambda: [inner() for _ in range(rng.randrange(1, 4))],
        "oneOf": lambda: [inner() for _ in range(rng.randrange(1, 3))],
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "unevaluatedProperties": lambda: rng.choice([False, inner()]),
    }
    rare = {"enum", "const", "if", "then", "else", "not", "unevaluatedProperties"}
    for key, make in makers.items():
        if rng.random() < (0.04 if key in rare else 0.11):
            out[key] = make()
    return out


def written(rng: random.Random, grammar: Grammar, compiler: Compiler) -> str | None:
    """A random text of the grammar, or None where it grows too long."""
    from lmx.grammar import new_bitmask
    from lmx.grammar.constraint import allowed_ids

    matcher = Matcher(compiler.compile(grammar))
    bitmask = new_bitmask(1, BYTES.vocab_size)
    out = bytearray()
    while len(out) < 120:
        matcher.fill(bitmask)
        allowed = allowed_ids(bitmask[0])
        assert allowed, f"dead end after {bytes(out)!r}"
        if allowed[-1] == 256 and (len(allowed) == 1 or rng.random() < 0.5):
            return out.decode()
        # Brackets that close, quotes and few spaces: else texts never end.
        texts = [t for t in allowed if t != 256]
        choices = [t for t in texts if t not in b" \n\t\r\\"] or texts
        ending = [t for t in choices if t in b'"]}']
        token = rng.choice(ending) if ending and rng.random() < 0.5 else rng.choice(choices)
        matcher.accept(token)
        out.append(token)
    return None


def has_repeated_names(text: str) -> bool:
    found = []

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.append(len(dict(pairs)) < len(pairs))
        return dict(pairs)

    json.loads(text, object_pairs_hook=check)
    return any(found)


def run(seeds: range) -> tuple[int, int, int]:
    jsonschema = pytest.importorskip("jsonschema")
    refused = empty = checks = 0
    for seed in seeds:
        rng = random.Random(seed)
        made = schema(rng, 2)
        validator = jsonschema.Draft202012Validator(made)
        values = [value(rng, 2) for _ in range(30)]
        try:
            grammar = Grammar.from_json_schema(made, order="any")
        except GrammarError as error:
            if "admits no string" not in str(error):
                refused += 1
                continue
            empty += 1
            wrong = [v for v in values if validator.is_valid(v)]
            assert not wrong, f"seed {seed}: called empty, but {wrong[0]} fits {json.dumps(made)}"
            continue
        compiler = Compiler(BYTES)
        for v in values:
            matcher = Matcher(compiler.compile(grammar))
            data = list(json.dumps(v, ensure_ascii=False).encode())
            accepted = matcher.accept_many(data) == len(data) and matcher.is_completed()
            checks += 1
            verdict = "accepts" if accepted else "refuses"
            message = f"seed {seed}: {verdict} {json.dumps(v)} of {json.dumps(made)}"
            assert accepted == validator.is_valid(v), message
        for _ in range(6):
            text = written(rng, grammar, compiler)
            if text is None or has_repeated_names(text):
                continue
            checks += 1
            assert validator.is_valid(json.loads(text)), (
                f"seed {seed}: writes {text} of {json.dumps(made)}"
            )
    return refused, empty, checks


def test_random_schemas():
    refused, _, checks = run(range(150))
    assert refused <= 30
    assert checks >= 2000


@pytest.mark.long
def test_many_random_schemas():
    refused, empty, checks = run(range(1000, 9000))
    print(f"\n8000 schemas: {refused} refused, {empty} empty, {checks} checks")
    assert refused <= 1600
