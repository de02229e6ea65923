"""Masks of long and deep texts cost what those of short ones do, and memory stays in bounds."""

import time

from grammar.machines import matcher, small_info

from lmx import grammar
from lmx.grammar import Grammar

PIECES = [bytes([b]) for b in range(32, 127)] + ["ab", '",', '":', "[[", "]]", "12", "  "]


def seconds_of_fills(m, bitmask, count: int = 200) -> float:
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            m.fill(bitmask)
        best = min(best, time.perf_counter() - start)
    return best


def test_ten_thousand_tokens():
    info = small_info(*PIECES)
    bitmask = grammar.new_bitmask(1, info.vocab_size)
    m = matcher(Grammar.json(), info)
    assert m.accept_bytes('["')
    short = seconds_of_fills(m, bitmask)
    memory = m.compiled.memory_bytes()
    assert m.accept_many([65 - 32] * 10_000) == 10_000
    assert seconds_of_fills(m, bitmask) < 3 * short + 1e-3
    assert m.compiled.memory_bytes() == memory  # the same place, again and again


def test_ten_thousand_brackets():
    info = small_info(*PIECES)
    bitmask = grammar.new_bitmask(1, info.vocab_size)
    m = matcher(Grammar.json(), info)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(1000):  # every fill is of a stack that was never seen
            assert m.accept(ord("[") - 32)
            m.fill(bitmask)
        times.append(time.perf_counter() - start)
    assert min(times[5:]) < 3 * min(times[:5]) + 1e-3
    assert m.compiled.memory_bytes() < 64 << 20
    assert m.accept_bytes("]" * 10_000) and m.is_completed()
    m.rollback(10_001)
    assert m.steps == 0
