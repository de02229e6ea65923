"""Random grammars and patterns against the oracle, at every prefix that can be reached."""

import random

import pytest
from grammar.machines import allowed, small_info
from grammar.oracle import (
    Earley,
    TooLarge,
    as_text,
    derivative,
    is_alive,
    nullable,
    random_pattern,
    random_rules,
    viable_words,
)

from lmx.errors import GrammarError, GrammarLimitError
from lmx.grammar import Compiler, Grammar, Matcher

SOME, ALL = 60, 2000
DEPTH = 6
LETTERS = "abc\n"
REFUSED: list[str] = []  # patterns over a limit, drawn again
TOKENS = [b"a", b"b", b"ab", b"ba", b"aab", b"bb", b"abab", b"aaa", b"c"]


def check_rules(seed: int, info, uncached: bool) -> int:
    rng = random.Random(seed)
    for _ in range(12):  # drawn again, mostly, where there are few texts or none
        rules = random_rules(rng)
        oracle = Earley(rules)
        if rng.random() < 0.1 or (not oracle.is_empty and len(oracle.look(b"", DEPTH)) > 9):
            break
    text = as_text(rules)
    if oracle.is_empty:
        with pytest.raises(GrammarError, match="admits no string"):
            Compiler(info).compile(text)
        return 0
    longest = max(map(len, TOKENS))
    viable = oracle.look(b"", DEPTH + (longest if uncached else 3))
    m = Matcher(Compiler(info).compile(text))
    plain = Matcher(Compiler(info, cache=False).compile(str(Grammar.from_ebnf(text))))
    prefixes = 0
    for word, is_complete in viable.items():
        if len(word) > DEPTH:
            continue
        known = [t for t in TOKENS if len(word + t) <= DEPTH + (longest if uncached else 3)]
        expected = {i for i, t in enumerate(TOKENS) if t in known and word + t in viable}
        expected |= {len(TOKENS)} if is_complete else set()
        unknown = {i for i, t in enumerate(TOKENS) if t not in known}
        at = m.fork()
        assert all(at.accept(b"ab".index(byte)) for byte in word)  # tokens of one byte
        assert allowed(at, info) - unknown == expected, (text, word)
        assert at.is_completed() == is_complete
        for i in {0, 1} - expected:
            assert not at.accept(i), (text, word)
        if uncached:
            here = plain.fork()
            assert here.accept_bytes(word)
            assert allowed(here, info) == expected, (text, word)
        prefixes += 1
    return prefixes


def draw_pattern(rng: random.Random) -> tuple[str, dict[str, int]]:
    """A pattern, and its viable prefixes with what may follow them."""
    while True:
        text, meaning = random_pattern(rng)
        try:
            words = dict(viable_words(meaning, LETTERS, 4))
            for token in TOKENS:
                for here in words.values():
                    is_alive(derivatives(here, token.decode()), LETTERS)
        except TooLarge:
            continue
        if len(words) > 5 or (words and rng.random() < 0.1):
            return text, words


def derivatives(here: int, text: str) -> int:
    for c in text:
        here = derivative(here, c)
    return here


def check_pattern(seed: int, info) -> int:
    rng = random.Random(seed)
    while True:
        text, words = draw_pattern(rng)
        try:
            start = Matcher(Compiler(info).compile(Grammar.from_regex(text)))
            break
        except GrammarLimitError:  # counts around lookaheads: rarely, and never without them
            assert "(?=" in text or "(?!" in text
            REFUSED.append(text)
    for word, here in words.items():
        m = start.fork()
        assert m.accept_bytes(word.encode()), (text, word)
        expected = {
            i
            for i, token in enumerate(TOKENS)
            if is_alive(derivatives(here, token.decode()), LETTERS)
        }
        expected |= {len(TOKENS)} if nullable(here) else set()
        assert allowed(m, info) == expected, (text, word)
    return len(words)


def run_rules(seeds: range) -> None:
    info = small_info(*TOKENS)
    assert sum(check_rules(seed, info, seed % 10 == 0) for seed in seeds) > 5 * len(seeds)


def run_patterns(seeds: range) -> None:
    info = small_info(*TOKENS)
    REFUSED.clear()
    assert sum(check_pattern(seed, info) for seed in seeds) > 5 * len(seeds)
    assert len(REFUSED) <= max(2, len(seeds) // 20)


def test_random_grammars():
    run_rules(range(SOME))


def test_random_patterns():
    run_patterns(range(SOME))


@pytest.mark.long
def test_random_grammars_all():
    run_rules(range(SOME, SOME + ALL))


@pytest.mark.long
def test_random_patterns_all():
    run_patterns(range(SOME, SOME + ALL))
