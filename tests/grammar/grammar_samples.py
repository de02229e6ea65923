"""Cases of the grammar room's ops, for tests/samples.py. Matchers live as long as this module."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from lmx.grammar import Compiler, DeviceAutomaton, Grammar, Matcher, TokenizerInfo

TOKENS = ["a", "b", "ab", "(", ")", '"', "1", "12", " ", "{", "}", ":", ",", "é", b"\xc3", "</s>"]
PADDED = 70  # logits: more than tokens, and no multiple of 32


@lru_cache
def info() -> TokenizerInfo:
    return TokenizerInfo(TOKENS, vocab_size=PADDED)


@lru_cache
def compiler() -> Compiler:
    return Compiler(info())


@lru_cache
def matchers() -> list[Matcher]:
    """Matchers at many places of several grammars, one of them at its end."""
    out = []
    nested = 'root ::= "(" root ")" | [ab]+'
    for grammar, texts in (
        (Grammar.json(), [b"", b"{", b'{"a', b'{"a":1', b"{}"]),
        (Grammar.from_regex("[ab]*"), [b"", b"abba"]),
        (Grammar.from_ebnf(nested), [b"", b"((", b"((ab)"]),
    ):
        for text in texts:
            matcher = Matcher(compiler().compile(grammar))
            assert matcher.accept_bytes(text)
            out.append(matcher)
    ended = Matcher(compiler().compile(Grammar.from_regex("a")))
    ended.accept_many([0, TOKENS.index("</s>")])
    return [*out, ended]


def handles(count: int | None = None) -> Tensor:
    return torch.tensor([m.handle for m in matchers()[:count]], dtype=torch.int64)


def fills() -> Iterator:
    from samples import Sample

    n, words = len(matchers()), info().mask_words
    status = torch.zeros(n, dtype=torch.int32)
    yield Sample("all", (handles(), torch.zeros(n, words, dtype=torch.int32), status), ())
    rows = torch.tensor([4, 0, 2], dtype=torch.int32)
    bitmask = torch.full((6, words), 7, dtype=torch.int32)
    yield Sample("rows", (handles(3), bitmask, status[:3].clone(), rows, 2), ())
    none = torch.zeros(0, words, dtype=torch.int32)
    yield Sample("empty", (handles(0), none, status[:0].clone()), ())


@lru_cache
def _loops() -> list[Matcher]:
    """Matchers that a token never changes: accepting again gives the same answer."""
    compiled = compiler().compile(Grammar.from_regex("[ab]*"))
    return [Matcher(compiled) for _ in range(6)]


def accepts() -> Iterator:
    from samples import Sample

    numbers = torch.tensor([m.handle for m in _loops()])
    yield Sample("some", (numbers, torch.tensor([0, 1, 2, 3, 6, 69])), (0, 1))
    yield Sample("one", (numbers[:1], torch.tensor([2])), (0, 1))


def trees() -> Iterator:
    from samples import Sample

    parents = torch.tensor([-1, 0, 0, 1, 2, 3], dtype=torch.int32)
    tokens = torch.tensor([9, 5, 10, 0, 15, 5])  # { " } a </s> "
    for i, is_current in ((0, False), (1, True), (8, False)):
        bitmask = torch.zeros(6, info().mask_words, dtype=torch.int32)
        valid = torch.zeros(6, dtype=torch.int32)
        numbers = handles()[i : i + 1].clone()
        yield Sample(f"{i}", (numbers, parents, tokens, bitmask, valid, is_current), ())


@lru_cache
def automaton() -> DeviceAutomaton:
    return DeviceAutomaton(compiler().compile(Grammar.from_regex(r'"(a|b|12)*"|(é )+')))


def steps() -> Iterator:
    from samples import Sample

    a = automaton()
    tables = (a.transitions, a.classes, a.symbols, a.offsets)
    states = torch.arange(-1, a.num_states, dtype=torch.int32)
    for token in (0, 2, 5, 7, 13, 14, 15, 40):
        tokens = torch.full(states.shape, token)
        yield Sample(f"token-{token}", (states, tokens, *tables), (0, 1))
    many = torch.randint(-1, a.num_states, (1000,), dtype=torch.int32)
    yield Sample("many", (many, torch.randint(0, PADDED, (1000,)), *tables), (0, 1))
    bad_states = torch.tensor([0, -2, a.num_states, 1], dtype=torch.int32)
    bad_tokens = torch.tensor([-1, 0, 0, PADDED])
    status = torch.zeros(4, dtype=torch.int32)
    yield Sample("bad", (bad_states, bad_tokens, *tables, status), (0, 1, 6))


def pools() -> Iterator:
    from samples import Sample, make_bitmask

    for size in (1, 31, 33, 1000, 8447):
        pool = make_bitmask(5, size)
        ids = torch.tensor([4, -1, 0, 4, 2], dtype=torch.int32)
        yield Sample(f"{size}", (pool, ids, size), (1,))
    status = torch.zeros(4, dtype=torch.int32)
    ids = torch.tensor([0, 5, -2, -1], dtype=torch.int32)
    yield Sample("bad", (pool, ids, -1, status), (1, 3))


SAMPLES = {
    "grammar_fill": fills,
    "grammar_accept": accepts,
    "grammar_fill_tree": trees,
    "grammar_step": steps,
    "vocab_mask_gather": pools,
}
