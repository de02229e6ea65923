"""Masks over Llama-3's 128k tokens against a plain walk of all tokens, on the bench's grammars."""

import random
from functools import cache

import pytest
import torch
from grammar.machines import row
from helpers import ROOT

from bench.grammar import NAMES, llama3, source_and_text
from lmx.grammar import Compiler, Grammar, Matcher

SOME = ("json", "csv", "latex", "xml", "lambda")


@cache
def compilers():
    found = llama3()
    if found is None:
        pytest.skip("needs the packages llama-models and tiktoken")
    info, encoding = found
    return info, encoding, Compiler(info), Compiler(info, cache=False)


def check(name: str, places: int) -> None:
    """At some places of the text, and again from a fork: the row is that of the plain walk."""
    info, encoding, compiler, plain_compiler = compilers()
    source, text = source_and_text(name)
    language = Grammar.json() if name == "json" else Grammar.from_ebnf(source)
    m, plain = Matcher(compiler.compile(language)), Matcher(plain_compiler.compile(language))
    tokens = encoding.encode(text, disallowed_special=())
    chosen = set(random.Random(name).sample(range(len(tokens)), min(places, len(tokens)))) | {0}
    for i, token in enumerate(tokens):
        ours = row(m, info)  # every place, so that what is remembered is used
        if i in chosen:
            assert torch.equal(ours, row(plain, info)), (name, i)
            assert torch.equal(ours, row(m.fork(), info)), (name, i)
        assert m.accept(token) and plain.accept(token)


@pytest.mark.parametrize("name", SOME)
def test_some_places(name):
    check(name, 6)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_all_places(name):
    check(name, 1 << 20)


def test_the_grammars_are_thirty():
    assert len(list((ROOT / "bench" / "grammars").glob("*.ebnf"))) == 30
