"""Structural tags: each format, tool calls, and what is no structural tag."""

from typing import Any

import pytest

from lmx.errors import GrammarError, GrammarSyntaxError
from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo

TOKENS = ["<call>", "</call>", "ab"]
INFO = TokenizerInfo([*(bytes([b]) for b in range(256)), *TOKENS, "</s>"], stop_ids=[259])
CALL, END_CALL = 256, 257
INT = {"type": "json_schema", "json_schema": {"type": "integer"}}
TAGS = [
    {
        "begin": f"<f={name}>",
        "content": {"type": "json_schema", "json_schema": schema},
        "end": "</f>",
    }
    for name, schema in (
        ("add", {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}),
        ("stop", {"type": "null"}),
    )
]
TRIGGERED: dict[str, Any] = {"type": "triggered_tags", "triggers": ["<f="], "tags": TAGS}
SEPARATED: dict[str, Any] = {"type": "tags_with_separator", "tags": TAGS, "separator": ","}
ADD, STOP = '<f=add>{"x": 1}</f>', "<f=stop>null</f>"


def accepts(tag: Any, text: str | list[int]) -> bool:
    compiled = Compiler(INFO).compile(Grammar.from_structural_tag(tag, INFO))
    matcher = Matcher(compiled)
    tokens = list(text.encode()) if isinstance(text, str) else text
    return matcher.accept_many(tokens) == len(tokens) and matcher.is_completed()


def tokens(text: str) -> list[int]:
    return list(text.encode())


CASES: list[tuple[Any, list[Any], list[Any]]] = [
    ({"type": "const_string", "value": "yes"}, ["yes"], ["no", ""]),
    (INT, ["12"], ["x"]),
    ({"type": "grammar", "grammar": 'root ::= "a" x\nx ::= "b" | "c" x'}, ["ab", "accb"], ["a"]),
    ({"type": "regex", "pattern": "[ab]+"}, ["aab"], ["c"]),
    ({"type": "any_text"}, ["", "x\u00e9<"], []),
    ({"type": "any_text", "excludes": ["no"]}, ["n", "on"], ["a no"]),
    ({"type": "any_text", "max_chars": 2}, ["", "\u00e9b"], ["abc"]),
    (
        {"type": "sequence", "elements": [INT, {"type": "const_string", "value": "!"}]},
        ["1!"],
        ["1", "!"],
    ),
    ({"type": "or", "elements": [INT, {"type": "const_string", "value": "!"}]}, ["1", "!"], ["1!"]),
    ({"type": "optional", "content": INT}, ["", "1"], ["x"]),
    ({"type": "star", "content": {"type": "const_string", "value": "ab"}}, ["", "abab"], ["aba"]),
    ({"type": "plus", "content": {"type": "const_string", "value": "ab"}}, ["ab"], [""]),
    (
        {"type": "repeat", "min": 1, "max": 2, "content": {"type": "const_string", "value": "a"}},
        ["a", "aa"],
        ["", "aaa"],
    ),
    (
        {"type": "tag", "begin": "<a>", "content": INT, "end": ["</a>", "</b>"]},
        ["<a>1</a>", "<a>1</b>"],
        ["<a>1", "1"],
    ),
    (
        {"type": "tag", "begin": "<a>", "content": {"type": "any_text"}, "end": "</a>"},
        ["<a>x<</a>"],
        ["<a></a></a>"],
    ),
    (
        TRIGGERED,
        ["", "hello < f", f"a {ADD} b {STOP}c", "<f"],
        ["<f=", "<f=x>", f"{ADD}<f=stop>1</f>"],
    ),
    (TRIGGERED | {"at_least_one": True}, [ADD, f"{ADD} and {STOP}"], ["", f"a{ADD}"]),
    (TRIGGERED | {"stop_after_first": True}, ["a", f"a {ADD}"], [f"{ADD} b", f"{ADD}{ADD}"]),
    (TRIGGERED | {"at_least_one": True, "stop_after_first": True}, [STOP], ["", f"{STOP}x"]),
    (TRIGGERED | {"excludes": ["bad"]}, [f"ba {ADD}"], ["bad"]),
    (SEPARATED, ["", ADD, f"{ADD},{STOP}"], [f"{ADD}{STOP}", f"{ADD},"]),
    (SEPARATED | {"at_least_one": True, "stop_after_first": True}, [ADD], ["", f"{ADD},{STOP}"]),
    ({"type": "dispatch", "rules": [["<", INT]]}, ["a<1b<2"], ["<x"]),
    ({"type": "dispatch", "rules": [["<", INT]], "loop": False}, ["a<1"], ["<1<2"]),
    ({"type": "token", "token": CALL}, [[CALL]], [tokens("<call>"), [END_CALL]]),
    ({"type": "token", "token": "<call>"}, [[CALL]], [[END_CALL]]),
    ({"type": "exclude_token", "exclude_tokens": [CALL]}, [tokens("a"), [END_CALL]], [[CALL], []]),
    (
        {"type": "any_tokens", "exclude_tokens": [CALL], "max_tokens": 2},
        [[], tokens("ab")],
        [[CALL], tokens("abc")],
    ),
    (
        {
            "type": "tag",
            "begin": {"type": "token", "token": "<call>"},
            "content": {"type": "any_tokens"},
            "end": {"type": "token", "token": "</call>"},
        },
        [[CALL, *tokens("x"), END_CALL]],
        [[CALL], [CALL, END_CALL, END_CALL]],
    ),
    (
        {
            "type": "token_triggered_tags",
            "trigger_tokens": ["<call>"],
            "tags": [
                {
                    "begin": {"type": "token", "token": CALL},
                    "content": INT,
                    "end": {"type": "token", "token": END_CALL},
                }
            ],
        },
        [[], tokens("ab"), [*tokens("a"), CALL, *tokens("12"), END_CALL, *tokens("b")]],
        [[CALL, *tokens("x")], [CALL, END_CALL]],
    ),
    (
        {"type": "token_dispatch", "rules": [[CALL, INT]], "loop": False},
        [[*tokens("a"), CALL, *tokens("1")]],
        [[CALL, *tokens("1a")]],
    ),
]


@pytest.mark.parametrize(("tag", "good", "bad"), CASES, ids=[c[0]["type"] for c in CASES])
def test_formats(tag: Any, good: list[Any], bad: list[Any]):
    for text in good:
        assert accepts({"type": "structural_tag", "format": tag}, text), f"refuses {text}"
        assert accepts(tag, text)
    for text in bad:
        assert not accepts(tag, text), f"accepts {text}"


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ({"type": "x"}, '#: unknown type "x"'),
        ({}, "#: expected the member type"),
        (
            {"type": "structural_tag", "format": {"type": "sequence", "elements": []}},
            "#/format/elements: expected at",
        ),
        (TRIGGERED | {"triggers": ["<g="]}, "#/tags/0/begin: it begins with no trigger"),
        (
            TRIGGERED | {"triggers": ["<f", "<f="]},
            "#/tags/0/begin: it begins with more than one trigger",
        ),
        ({"type": "repeat", "min": 3, "max": 2, "content": INT}, "expected 0 <= min <= max"),
        ({"type": "token", "token": "<none>"}, "has no token '<none>'"),
    ],
)
def test_wrong_tags(tag: Any, message: str):
    with pytest.raises((GrammarSyntaxError, ValueError)) as caught:
        Grammar.from_structural_tag(tag, INFO)
    assert message in str(caught.value)


def test_words_that_overlap():
    tag = {"type": "dispatch", "rules": [["<", INT], ["<a", INT]]}
    with pytest.raises(GrammarError, match="is a part of"):
        Compiler(INFO).compile(Grammar.from_structural_tag(tag))
