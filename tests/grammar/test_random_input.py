"""Random and damaged grammars, patterns and files: an error that lmx names, or masks that hold.

The seeded part of tests/fuzz/fuzz_grammar.cpp, which runs a million inputs under sanitizers.
"""

import random
import time

import pytest
from grammar.machines import allowed, small_info

from lmx.errors import GrammarError
from lmx.grammar import Compiler, Grammar, Matcher

EBNF = (
    "root ::= ", "root", "a", "b", " ::= ", "|", "(", ")", "[a-c]", "[^a]", '"a"', '"ab"', '""',
    "*", "+", "?", "{2}", "{0,3}", "{2,}", "{0,70}", "{1000000}", "{-1}", ".", 'Regex("a|b")',
    'Substring("a", "b")', 'TagDispatch(("a", "b"))', 'TokenTagDispatch((1, "a"), excludes=(2))',
    "Token(1)", "<[1]>", "!<[2]>", "\\x41", "\\u00e9", "\\", "#", "é", "(= ", "root ::= a b\n",
    'a ::= "a" a | "b"\n', 'b ::= b "a" | ""\n', ",", "1",
)  # fmt: skip
PATTERN = (
    "a", "b", "c", "|", "(", ")", "(?:", "(?=", "(?!", "(?<=", "(?<!", "[", "]", "[a-b]", "[^a]",
    "*", "+", "?", "{2}", "{0,9}", "{3,}", "{100000}", ".", "^", "$", "\\b", "\\B", "\\d", "\\W",
    "\\p{L}", "\\P{Lu}", "\\u00e9", "\\1", "\\", "é", "-", "{",
)  # fmt: skip
INFO = small_info("a", "b", "ab", "c", "ba", b"\xc3", b"\xa9", "1", " ", "aa", "é", b"\xa9b")
INPUTS = 1500


def joined(rng: random.Random, parts: tuple[str, ...], most: int) -> str:
    return "".join(rng.choices(parts, k=rng.randint(1, most)))


def draw(rng: random.Random) -> Grammar:
    if rng.random() < 0.5:
        return Grammar.from_ebnf("root ::= " * rng.randrange(2) + joined(rng, EBNF, 14))
    return Grammar.from_regex(joined(rng, PATTERN, 10), "".join(rng.sample("imsu", 2)))


def walk(rng: random.Random, grammar: Grammar) -> None:
    assert str(Grammar.from_ebnf(str(grammar))) == str(grammar)
    compiler = Compiler(INFO, max_steps=3000, max_memory=rng.choice((20_000, 1 << 24)))
    m = Matcher(compiler.compile(grammar))
    for _ in range(5):
        mask = allowed(m, INFO)
        assert {t for t in range(INFO.vocab_size) if m.fork().accept(t)} == mask
        if not mask or m.is_terminated():
            break
        m.accept(rng.choice(sorted(mask)))
        m.forced_bytes()
        m.rollback(rng.randrange(2))


def test_some_inputs():
    rng = random.Random(0)
    good, slowest = 0, 0.0
    for _ in range(INPUTS):
        start = time.thread_time()
        try:
            walk(rng, draw(rng))
            good += 1
        except GrammarError as error:
            assert str(error)
        slowest = max(slowest, time.thread_time() - start)
    assert good > INPUTS / 10
    assert slowest < 10


def test_damaged_files():
    rng = random.Random(1)
    data = INFO.native.save()
    for _ in range(300):
        bad = bytearray(data)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.3:
            del bad[rng.randrange(len(bad)) :]
        with pytest.raises(ValueError, match="TokenizerInfo"):
            type(INFO.native).load(bytes(bad))
