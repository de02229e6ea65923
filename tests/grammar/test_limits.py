"""Statuses of a fill, and limits: what is said, and that the matcher stays as it was."""

import random

import pytest
import torch
from grammar.machines import allowed, matcher, small_info

from lmx import grammar
from lmx.errors import GrammarLimitError
from lmx.grammar import (
    ALL_ALLOWED,
    LIMIT,
    NO_TOKEN,
    PARTIAL,
    TERMINATED,
    BatchMatcher,
    Compiler,
    Matcher,
)

WORDS = ["".join("ab"[i >> k & 1] for k in range(14)) for i in range(2000)]


def many_states(length: int) -> str:
    """Every subset of the last letters is a state of its own."""
    return 'root ::= x*\nx ::= [ab]* "a" ' + "[ab] " * length


def test_statuses():
    info = small_info("a", "b", "c")
    texts = ("[abc]*", '"a"', '"x"', '"a"')
    matchers = [matcher(f"root ::= {text}", info) for text in texts]
    assert matchers[3].accept_many([0, 3]) == 2
    bitmask = grammar.new_bitmask(4, info.vocab_size)
    status = BatchMatcher().fill(matchers, bitmask)
    assert status.tolist() == [ALL_ALLOWED, PARTIAL, NO_TOKEN, TERMINATED]
    assert bitmask[:, 0].tolist() == [0b1111, 0b0001, 0, 0b1000]
    assert [m.fill(bitmask, i) for i, m in enumerate(matchers)] == [False, True, True, True]


def test_a_limit_in_a_batch():
    info = small_info("a", "b", *WORDS)
    m = Matcher(Compiler(info, max_steps=300).compile(many_states(14)))
    other = matcher('root ::= "a"', info)
    bitmask = grammar.new_bitmask(2, info.vocab_size)
    status = BatchMatcher().fill([m, other], bitmask)
    assert status.tolist() == [LIMIT, PARTIAL]
    assert torch.equal(bitmask[0], torch.zeros_like(bitmask[0])) and bitmask[1, 0] == 1
    assert m.steps == 0 and m.accept(0)


def test_a_limit_of_time():
    info = small_info("a", "b", *WORDS)
    text = many_states(14)
    m = Matcher(Compiler(info, limit_ms=1).compile(text))
    assert m.accept(0)
    with pytest.raises(GrammarLimitError, match="limit_ms is used up"):
        allowed(m, info)
    assert m.steps == 1 and m.accept(1)
    assert len(allowed(matcher(text, info, limit_ms=0), info)) > 2000


@pytest.mark.long
def test_a_limit_of_states():
    info = small_info("a", "b")
    m = matcher(many_states(18), info, max_steps=1 << 30, limit_ms=0, max_memory=1 << 33)
    rng = random.Random(0)
    with pytest.raises(GrammarLimitError, match="rule .* has more than 100000 states"):
        for _ in range(1 << 20):
            m.accept(rng.randrange(2))
    before = m.steps
    assert before > 10_000 and m.is_completed() in (True, False) and m.steps == before
    m.rollback(before)
    assert allowed(m, info) == {0, 1, 2}
