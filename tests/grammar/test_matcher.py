"""Matchers: masks and accepts agree, history, stop tokens, forced text, trees, threads, memory."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from grammar.machines import EOS, allowed, matcher, row, small_info

from lmx import grammar
from lmx.grammar import (
    ALL_ALLOWED,
    NO_TOKEN,
    PARTIAL,
    TERMINATED,
    BatchMatcher,
    Compiler,
    DeviceAutomaton,
    Grammar,
    Matcher,
    TokenizerInfo,
    deserialize,
    serialize,
)

PIECES = [
    '{"',
    '"}',
    '":',
    '", "',
    "a",
    "b",
    "ab",
    "1",
    "12",
    ".5",
    "e",
    "-",
    " ",
    "  ",
    "\n",
    "[[",
]
PIECES += ["]]", "],", "{", "}", "[", "]", ",", ":", '"', "\\", "n", "u00", "0", "true", "tr", "ue"]
PIECES += [
    "é",
    b"\xc3",
    b"\xa9",
    "中",
    b"\xe4\xb8",
    b"\xad",
    "😀",
    b"\xf0\x9f",
    b"\x98\x80a",
    '\\"x',
]
DOC = '{"a": [1, 12.5e-1, "b\\u00e0é中", {"ab": true}], "": [[ ], [[1]]],\n "b": "\\"x😀"}'


def random_walk(m: Matcher, info: TokenizerInfo, rng: random.Random, steps: int) -> list[int]:
    tokens = []
    for _ in range(steps):
        some = sorted(allowed(m, info) - {info.vocab_size - 1})
        if not some:
            break
        tokens.append(rng.choice(some))
        assert m.accept(tokens[-1])
    return tokens


@pytest.mark.parametrize("seed", range(6))
def test_mask_is_accept_and_caches_change_nothing(seed):
    """At every place of random texts: bit t is accept(t), and a fresh plain walk gives the same."""
    info = small_info(*PIECES)
    rng = random.Random(seed)
    m = matcher(Grammar.json(), info)
    plain = matcher(Grammar.json(), info, cache=False)
    for token in random_walk(m.fork(), info, rng, 40):
        mask = allowed(m, info)
        assert mask == {t for t in range(info.vocab_size) if m.fork().accept(t)}
        assert torch.equal(row(m, info), row(plain, info))
        assert m.accept(token) and plain.accept(token)


def test_prefixes_not_substrings():
    info = small_info("luk", "luluk", "lu")
    assert allowed(matcher('root ::= "luluk"', info), info) == {1, 2}


CLASSES = ["[\\u0080-\\u07ff]", "[\\u0800-\\uffff]", "[\\U00010000-\\U0010ffff]", "[^a]", "[é中]"]
BORDERS = [0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF, 0xE9, 0x4E2D]


@pytest.mark.parametrize("text", CLASSES)
def test_tokens_inside_characters(text):
    """All byte strings of up to two bytes, at every border of UTF-8's lengths."""
    import re

    tokens = [bytes([b]) for b in range(256)] + [chr(c).encode()[:2] for c in BORDERS]
    info = TokenizerInfo([*tokens, *(chr(c).encode()[1:] + b"a" for c in BORDERS)])
    grammar_text = f'root ::= {text} "a"'
    m = matcher(grammar_text, info)
    pattern = re.compile(
        text.replace("\\U00010000", "\U00010000").replace("\\U0010ffff", "\U0010ffff")
    )
    for c in BORDERS:
        data = chr(c).encode()
        for cut in range(1, len(data) + 1):
            fork = m.fork()
            read = fork.accept_bytes(data[:cut])
            if cut == len(data):
                assert read == bool(pattern.fullmatch(chr(c)))
            if read:
                mask = allowed(fork, info)
                assert mask == {t for t in range(info.vocab_size) if fork.fork().accept(t)}
    for bad in (b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\x80", b"\xff"):
        assert not m.accept_bytes(bad)  # overlong, surrogate, too large, no lead byte


def test_history():
    info = small_info("a", "b", "(", ")")
    m = matcher('root ::= "(" root ")" | [ab]*', info)
    masks = [allowed(m, info)]
    for token in (2, 2, 0, 1, 3):
        assert m.accept(token)
        masks.append(allowed(m, info))
    twin = m.fork()
    assert twin.accept(3) and m.steps == 5 and allowed(m, info) == masks[5]
    for steps in (1, 2, 2):
        m.rollback(steps)
        assert allowed(m, info) == masks[m.steps]
    assert m.steps == 0
    with pytest.raises(ValueError, match=r"expected steps in \[0, 0\], got 1"):
        m.rollback(1)
    twin.reset()
    assert allowed(twin, info) == masks[0]
    assert m.validate([2, 2, 0, 2, 1]) == 3 and m.steps == 0
    assert m.accept_many([2, 0, 3, 3]) == 3 and m.steps == 3


def test_stop_tokens():
    info = TokenizerInfo(["a", "<eos>", EOS, "b"])
    m = matcher('root ::= "a"+', info)
    assert not m.accept(1) and m.steps == 0
    assert m.accept(0) and allowed(m, info) == {0, 1, 2}
    assert m.accept(2) and m.is_terminated() and m.steps == 2
    assert allowed(m, info) == {1, 2}
    assert not m.accept(0) and m.accept(1)
    m.rollback(2)
    assert not m.is_terminated() and m.accept(0)
    own = Matcher(m.compiled, stop_ids=[3])
    assert own.accept(0) and allowed(own, info) == {0, 3}
    assert own.accept(3) and own.is_terminated() and allowed(own, info) == {3}
    for token in (-1, 4):
        with pytest.raises(ValueError, match=rf"expected a token in \[0, 4\), got {token}"):
            m.accept(token)


def test_terminate_without_stop():
    info = small_info("a", "b")
    m = Matcher(Compiler(info).compile('root ::= "a" "b"?'), terminate_without_stop=True)
    assert m.accept(0) and not m.is_terminated()
    assert m.accept(1) and m.is_terminated() and allowed(m, info) == {2}


def test_equal_special_and_padding_tokens():
    info = TokenizerInfo(["a", "a", "", "<x>", EOS], vocab_size=70, special_ids=[3])
    m = matcher('root ::= "a" "<x>"', info)
    assert allowed(m, info) == {0, 1}
    assert m.accept(0) and allowed(m, info) == set()  # no other token spells <x>
    status = BatchMatcher().fill([m], grammar.new_bitmask(1, 70))
    assert status.tolist() == [NO_TOKEN]
    for token in (2, 3, 69):
        assert not m.accept(token)


def test_token_edges():
    info = small_info("a", "b", "ab")
    m = matcher('root ::= Token(1) "b" ExcludeToken(0) | "bb" Token(2)', info)
    assert allowed(m, info) == {1}
    assert m.accept(1) and allowed(m, info) == {1}
    assert m.accept(1) and allowed(m, info) == {1, 2}
    assert not m.accept(0) and m.accept(2) and allowed(m, info) == {3}
    m.reset()
    assert m.accept_bytes("b") and not m.is_completed()  # bytes never cross a token edge
    assert allowed(matcher("root ::= <[2]> | !<[0]>", info), info) == {1, 2}


def test_token_dispatch():
    info = small_info("a", "b", "<f>", "x")
    text = 'root ::= TokenTagDispatch((2, "ab"), excludes=(3))'
    for source in (text, str(Grammar.from_ebnf(text))):
        m = matcher(source, info)
        assert allowed(m, info) == {0, 1, 2, 4}
        assert m.accept_many([1, 0, 2]) == 3
        assert allowed(m, info) == {0}
        assert m.accept_many([0, 1]) == 2 and allowed(m, info) == {0, 1, 2, 4}
        assert not m.accept(3)
    once = matcher('root ::= TokenTagDispatch((2, "a"), loop_after_dispatch=false)', info)
    assert allowed(once, info) == {0, 1, 2, 3, 4}
    assert once.accept_many([3, 2, 0]) == 3 and allowed(once, info) == {4}


def test_forced_text():
    info = small_info("a", "b", "ab", "é")
    m = matcher('root ::= "abé" [xy]', info)
    assert m.forced_bytes() == "abé".encode()
    assert m.forced_tokens(lambda text: [2, 3]) == [2, 3]
    assert m.forced_tokens(lambda text: [0, 1, 3]) == [0, 1, 3]
    half = matcher('root ::= "a" [é\\u00e8]', info)
    assert half.forced_bytes() == b"a" and half.forced_bytes(utf8_complete=False) == b"a\xc3"
    more = matcher('root ::= "a" ("b" | "é")', small_info("a", "ab", "b"))
    assert more.forced_bytes() == b"a"
    assert more.forced_tokens(lambda text: [0]) == []  # "ab" begins so too


# ---- trees, batches, handles -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_trees_are_paths(seed):
    info = small_info(*PIECES)
    rng = random.Random(seed)
    start = matcher(Grammar.json(), info)
    random_walk(start, info, rng, rng.randrange(6))
    num_nodes = 24
    parents = torch.tensor([-1] + [rng.randrange(-1, i) for i in range(1, num_nodes)])
    tokens = torch.tensor([rng.randrange(info.vocab_size) for _ in range(num_nodes)])
    for i in range(1, num_nodes, 2):  # half of them may follow
        fork = start.fork()
        path, node = [], int(parents[i])
        while node >= 0:
            path.append(int(tokens[node]))
            node = int(parents[node])
        if fork.accept_many(path[::-1]) == len(path) and allowed(fork, info):
            tokens[i] = rng.choice(sorted(allowed(fork, info)))
    steps = start.steps
    for is_current in (False, True):
        bitmask = torch.full((num_nodes, info.mask_words), 5, dtype=torch.int32)
        valid = BatchMatcher().fill_tree(
            start, parents, tokens, bitmask, root_is_current=is_current
        )
        expected, flags = torch.empty_like(bitmask), torch.empty(num_nodes, dtype=torch.int32)
        args = parents.int(), tokens, expected, flags, is_current
        grammar.reference.fill_tree(start, *args)
        assert torch.equal(valid, flags) and torch.equal(bitmask, expected)
    assert start.steps == steps


def test_tree_errors():
    info = small_info("a")
    m = matcher('root ::= "a"*', info)
    with pytest.raises(ValueError, match=r"expected parent 1 in \[-1, 1\), got 1"):
        m.fill_tree([-1, 1], [0, 0], grammar.new_bitmask(2, info.vocab_size))
    with pytest.raises(ValueError, match="as many tokens and rows as parents, 2, got 2 and 1"):
        m.fill_tree([-1, 0], [0, 0], grammar.new_bitmask(1, info.vocab_size))


def test_batches():
    info = small_info(*PIECES)
    compiled = Compiler(info).compile(Grammar.json())
    rng = random.Random(1)
    matchers = [Matcher(compiled) for _ in range(40)]
    for m in matchers:
        random_walk(m, info, rng, rng.randrange(12))
    one = grammar.new_bitmask(40, info.vocab_size)
    status = BatchMatcher().fill(matchers, one)
    assert set(status.tolist()) <= {PARTIAL, ALL_ALLOWED, TERMINATED, NO_TOKEN}
    fresh = Compiler(info).compile(Grammar.json())
    twins = []
    for m in matchers:
        twin = m.fork()
        twins.append(twin)
    for batch in (BatchMatcher(3), BatchMatcher(8)):
        many = grammar.new_bitmask(40, info.vocab_size)
        assert torch.equal(batch.fill(twins, many), status) and torch.equal(one, many)
        later = grammar.new_bitmask(40, info.vocab_size)
        rows = list(reversed(range(40)))
        assert batch.fill_async(twins, later, rows).wait() == status.tolist()
        assert torch.equal(later.flip(0), one)
    assert BatchMatcher().accept(matchers[:2], [info.vocab_size - 1] * 2).dtype == torch.bool
    BatchMatcher().rollback(twins, [m.steps for m in twins])
    assert all(m.steps == 0 for m in twins)
    assert fresh.memory_bytes() > 0


def test_threads_share_a_grammar():
    info = small_info(*PIECES)
    doc = DOC.encode()

    def run(compiled) -> list[torch.Tensor]:
        rows, m = [], Matcher(compiled)
        for i in range(len(doc)):
            rows.append(row(m, info))
            assert m.accept_bytes(doc[i : i + 1])
        return rows

    alone = run(Compiler(info).compile(Grammar.json()))
    for _ in range(3):
        shared = Compiler(info).compile(Grammar.json())
        with ThreadPoolExecutor(4) as pool:
            for rows in pool.map(run, [shared] * 4):
                assert all(torch.equal(a, b) for a, b in zip(rows, alone, strict=True))


def test_handles():
    info = small_info("a")
    compiled = Compiler(info).compile('root ::= "a"*')
    m = Matcher(compiled)
    handle = torch.tensor([m.handle])
    assert grammar.accept(handle, torch.tensor([0])).tolist() == [True] and m.steps == 1
    bitmask, status = grammar.new_bitmask(1, 2), torch.zeros(1, dtype=torch.int32)
    for handles, rows, message in (
        ([m.handle, m.handle], [0, 1], "expected handles that differ"),
        ([m.handle], [3], r"expected rows in \[0, 2\), got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            grammar.fill(
                torch.tensor(handles),
                grammar.new_bitmask(2, 2),
                torch.zeros(len(handles), dtype=torch.int32),
                torch.tensor(rows, dtype=torch.int32),
            )
    with pytest.raises(ValueError, match="expected bitmask of 1 words a row, got 2"):
        grammar.fill(handle, torch.zeros(1, 2, dtype=torch.int32), status)
    del m
    with pytest.raises(ValueError, match="stale handle"):
        grammar.fill(handle, bitmask, status)
    other = Matcher(compiled)
    assert other.handle != int(handle)


BAD_BITMASKS = [
    (torch.zeros(2, 1), TypeError, None),
    (torch.zeros(2, 1, dtype=torch.int64), ValueError, "of dtype torch.int32, got torch.int64"),
    (torch.zeros(2, 3, dtype=torch.int32), ValueError, r"of shape \[\*, 1\], got"),
    (torch.zeros(1, dtype=torch.int32), ValueError, r"of shape \[\*, 1\], got"),
    (torch.zeros(2, 1, dtype=torch.int32, device="meta"), ValueError, "on the CPU, got meta"),
    (torch.zeros(2, 2, dtype=torch.int32)[:, :1], ValueError, "contiguous, got"),
    ([[0]], TypeError, "a torch.Tensor, got list"),
]


@pytest.mark.parametrize(("bitmask", "error", "message"), BAD_BITMASKS[1:])
def test_bad_bitmasks(bitmask, error, message):
    m = matcher('root ::= "a"', small_info("a"))
    with pytest.raises(error, match=r"lmx.Matcher.fill: expected bitmask " + message):
        m.fill(bitmask, 0)
    with pytest.raises(ValueError, match=r"expected row in \[0, 2\), got 2"):
        m.fill(torch.zeros(2, 1, dtype=torch.int32), 2)


# ---- memory, files ---------------------------------------------------------------------------


def test_new_generations_change_nothing():
    info = small_info(*PIECES)
    small = Compiler(info, max_memory=40_000).compile(Grammar.json())
    m, plain = Matcher(small), matcher(Grammar.json(), info)
    kept = []
    for i, byte in enumerate(DOC.encode() * 1):
        assert torch.equal(row(m, info), row(plain, info))
        assert m.accept_bytes(bytes([byte])) and plain.accept_bytes(bytes([byte]))
        if i % 20 == 0:
            kept.append((m.fork(), row(plain, info)))
    assert small.num_generations > 3
    for fork, expected in kept:
        assert torch.equal(row(fork, info), expected)
    m.rollback(30)
    plain.rollback(30)
    assert torch.equal(row(m, info), row(plain, info))


def test_serialize():
    info = small_info(*PIECES)
    compiled = Compiler(info).compile(Grammar.json())
    data = serialize(compiled)
    again = Matcher(deserialize(data, info))
    assert torch.equal(row(again, info), row(Matcher(compiled), info))
    with pytest.raises(ValueError, match="compiled for another tokenizer"):
        deserialize(data, small_info("a"))
    for bad in (data[:-1], b"x" + data, data[:20] + b"?" + data[21:], b""):
        with pytest.raises(ValueError, match="expected what serialize wrote"):
            deserialize(bad, info)


def test_compiler_remembers():
    compiler = Compiler(small_info("a"))
    first = compiler.compile('root ::= "a"')
    assert compiler.compile("# the same\nroot ::= 'a'".replace("'", '"')) is first
    compiler.clear()
    assert compiler.compile('root ::= "a"') is not first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_precompute():
    info = small_info(*PIECES)
    compiled = Compiler(info).compile(Grammar.json())
    before = compiled.memory_bytes()
    assert compiled.precompute(1000) > 10 and compiled.memory_bytes() > before


# ---- the automaton for devices -----------------------------------------------------------------


@pytest.mark.parametrize("pattern", [r"(a|b)*12?", r'\{"ab":(true|\[\])\}', "(é|中)+ ?"])
def test_device_automaton(ops, pattern):
    info = small_info(*PIECES)
    compiled = Compiler(info).compile(Grammar.from_regex(pattern))
    automaton = DeviceAutomaton(compiled)
    rng = random.Random(0)
    for _ in range(10):
        m, states = Matcher(compiled), automaton.start(1)
        for _ in range(6):
            mask = automaton.masks[automaton.mask_ids(states).long()][0]
            assert torch.equal(mask, row(m, info))
            some = sorted(allowed(m, info))
            token = rng.choice(some)
            tables = (automaton.transitions, automaton.classes, automaton.symbols)
            args = (states, torch.tensor([token]), *tables, automaton.offsets)
            wrong = rng.randrange(info.vocab_size)
            bad = ops("grammar_step", states, torch.tensor([wrong]), *tables, automaton.offsets)
            assert (int(bad) >= 0) == (wrong in some)
            states = ops("grammar_step", *args)
            assert torch.equal(states, grammar.reference.step(*args))
            assert m.accept(token)
    assert automaton.masks[automaton.mask_ids(torch.tensor([-1])).long()].sum() == 0


def test_no_device_automaton():
    info = small_info("(", ")")
    from lmx.errors import GrammarError, GrammarLimitError

    compiler = Compiler(info)
    with pytest.raises(GrammarLimitError, match="more than 500 configurations: not a regular"):
        DeviceAutomaton(compiler.compile('root ::= "(" root ")" | ""'), max_states=500)
    with pytest.raises(GrammarError, match="has no token edges"):
        DeviceAutomaton(compiler.compile("root ::= Token(1)"))


def test_json_documents_token_by_token():
    info = small_info(*PIECES)
    m = matcher(Grammar.json(), info)
    assert m.accept_bytes(json.dumps(json.loads(DOC)).encode()) and m.is_completed()
