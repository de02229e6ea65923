"""Benches of lmx.ngram: the standard library's sources in SmolLM2's tokens, nine million of them.

The peer is infini-gram's engine on the same documents and queries, one query a call as it offers;
so its time is for as many calls as we have rows. `make bench` needs no more than what is installed.
"""

import importlib.util
import random
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from lmx import ngram
from lmx.ngram import Index, ragged

from . import ngram_corpus as data
from .figures import Gate
from .inputs import Case
from .measure import Measure
from .race import Rotation, Way, threads

ROWS = 1000
HAS_PEER = importlib.util.find_spec("infini_gram") is not None
cpu_case = pytest.mark.parametrize("case", [Case("cpu", "u16", ROWS)], ids=str)


@pytest.fixture
def index(smoke: bool) -> Index:
    return data.library_index(smoke)


@lru_cache(maxsize=2)
def contexts(smoke: bool, size: int) -> list[list[int]]:
    """Contexts from files that are not in the index."""
    if smoke:
        docs = data.corpus(True)
    else:
        docs = [d for i, d in enumerate(data.documents()) if i % data.HELD_BACK == 0]
    flat = np.concatenate(docs).astype(np.int64)
    draw = random.Random(size)
    starts = [draw.randrange(len(flat) - size) for _ in range(8 if smoke else ROWS)]
    return [flat[s : s + size].tolist() for s in starts]


def strings(smoke: bool) -> list[list[int]]:
    draw = random.Random(0)
    return [c[: draw.choice((1, 2, 3, 5, 8))] for c in contexts(smoke, 8)]


@lru_cache(maxsize=1)
def peer_engine():
    from infini_gram.engine import InfiniGramEngine

    folder = str(data.infini_gram_folder(False))
    return InfiniGramEngine(
        index_dir=folder, eos_token_id=data.EOS, vocab_size=data.VOCAB, load_to_ram=True
    )


def peer(smoke: bool, way: Callable[[object, list[int]], object], rows: list[list[int]]) -> dict:
    """infini-gram's time for all rows, from some of them."""
    if smoke or not HAS_PEER:
        return {}
    engine = peer_engine()
    return {"infini-gram": lambda *_: [way(engine, row) for row in rows]}


def once(*tensors: Tensor) -> Rotation:
    """The same inputs at every call: what is random here is the access to the index."""
    return Rotation(tensors[0].shape[0], *tensors)


def gate(smoke: bool, at_least: float) -> Gate | None:
    return Gate(at_least, "infini-gram") if HAS_PEER and not smoke else None


def within(measure: Measure, smoke: bool, seconds: float, items: int) -> None:
    """A gate on the time of an item."""
    if not smoke:
        each = measure._results[-1]["lmx"]["min"] / items
        assert each <= seconds, f"{each * 1e6:.2f} us an item, allowed {seconds * 1e6:.2f}"


def run(measure: Measure, fn: Way, rotate: Rotation, baseline: dict, gate: Gate | None = None):
    measure(fn, rotate, baseline=baseline, gate=gate)


# ---- counts --------------------------------------------------------------------------------------


@cpu_case
def test_count_single(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    """One query a call through Python, on both sides."""
    rows = strings(smoke)
    few = rows[:200]
    run(
        measure,
        lambda _: [index.count(row) for row in few],
        once(torch.zeros(1)),
        peer(smoke, lambda e, row: e.count(input_ids=row), few),
        gate(smoke, 3.5),
    )
    within(measure, smoke, 10e-6, len(few))


@cpu_case
def test_find(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    rows = strings(smoke)
    qtok, qoff = ragged(rows)
    run(
        measure,
        lambda _: ngram.find(index.tensors, qtok, qoff),
        once(torch.zeros(1)),
        peer(smoke, lambda e, row: e.find(input_ids=row), rows),
        gate(smoke, 3.5),
    )
    within(measure, smoke, 1e-6, len(rows))


@cpu_case
def test_longest_suffix(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    qtok, qoff = ragged(contexts(smoke, 256 if not smoke else 8))
    run(
        measure, lambda _: ngram.longest_suffix(index.tensors, qtok, qoff), once(torch.zeros(1)), {}
    )


@cpu_case
def test_longest_prefix(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    rows = contexts(smoke, 256 if not smoke else 8)[:20]
    qtok, qoff = ragged(rows)
    run(
        measure,
        lambda _: ngram.longest_prefix(index.tensors, qtok, qoff),
        once(torch.zeros(1)),
        peer(smoke, lambda e, row: e.creativity(input_ids=row), rows[:1]),
    )


# ---- distributions -------------------------------------------------------------------------------


def ranges(index: Index, smoke: bool) -> tuple[Tensor, Tensor]:
    qtok, qoff = ragged(contexts(smoke, 256 if not smoke else 8))
    length, rng, _ = ngram.longest_suffix(index.tensors, qtok, qoff)
    return rng, length


@cpu_case
def test_ntd(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    """Exact, at the longest suffix of 256 tokens, which is searched too, on both sides."""
    rows = contexts(smoke, 256 if not smoke else 8)
    few = rows[:50]
    qtok, qoff = ragged(rows)
    share = len(rows) / len(few)
    run(
        measure,
        lambda _: index.infgram_ntd((qtok, qoff)),
        once(torch.zeros(1)),
        peer(smoke, lambda e, row: e.infgram_ntd(prompt_ids=row), few),
        gate(smoke, 10 / share),
    )
    within(measure, smoke, 15e-6, len(rows))


@cpu_case
def test_ntd_dense(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    rng, length = (t[:64] for t in ranges(index, smoke))
    run(measure, lambda _: ngram.ntd_dense(index.tensors, rng, length), once(torch.zeros(1)), {})


@cpu_case
def test_ntd_topk(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    rng, length = ranges(index, smoke)
    run(measure, lambda _: ngram.ntd_topk(index.tensors, rng, length, 16), once(torch.zeros(1)), {})


@cpu_case
def test_next_prob(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    rng, length = ranges(index, smoke)
    tok = torch.arange(len(length)) % 20
    run(
        measure,
        lambda _: ngram.next_prob(index.tensors, rng, length, tok),
        once(torch.zeros(1)),
        {},
    )


@cpu_case
def test_score(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    rows = contexts(smoke, 256 if not smoke else 8)[:100]
    qtok, qoff = ragged(rows)
    few = rows[0][:50]

    def one_by_one(engine: object, row: list[int]) -> object:
        return [engine.infgram_prob(prompt_ids=row[:t], cont_id=row[t]) for t in range(len(row))]

    run(
        measure,
        lambda _: ngram.score(index.tensors, qtok, qoff),
        once(torch.zeros(1)),
        peer(smoke, one_by_one, [few]),
    )
    within(measure, smoke, 2e-6, len(qtok))


# ---- the rest ------------------------------------------------------------------------------------


@cpu_case
def test_locate(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    rng, _ = ranges(index, smoke)
    run(measure, lambda _: ngram.locate(index.tensors, rng, 10), once(torch.zeros(1)), {})


@cpu_case
def test_mix(measure: Measure, index: Index, smoke: bool, case: Case) -> None:
    """Eight rows of logits, against log-softmax, exponentials and a scatter."""
    rng, length = (t[:8] for t in ranges(index, smoke))
    found = index.distribution(rng, length)
    logits = torch.randn(64 if not smoke else 8, index.vocab_size)
    lse = torch.logsumexp(logits, -1)
    sizes = found.crow.diff()
    row = torch.repeat_interleave(torch.arange(8), sizes)
    share = found.num / found.den[row]

    def by_hand(x: Tensor, _: Tensor) -> Tensor:
        probs = torch.softmax(x, -1).mul_(0.9)
        return probs.index_put_((row, found.tok), (0.1 * share).float(), accumulate=True).log_()

    run(
        measure,
        lambda x, s: ngram.mix(x, s, found.crow, found.tok, found.num, 0.3, 0.1),
        Rotation(8, logits, lse),
        {"softmax+scatter+log": by_hand},
    )


@cpu_case
def test_sa_build(measure: Measure, smoke: bool, case: Case) -> None:
    """Half a million tokens; the whole index is compared in test_build."""
    docs = data.corpus(smoke)[:200]
    tensors = ngram.from_documents(docs, data.options()).tensors
    size = tensors.sa.numel()
    run(measure, lambda t: ngram.sa_build(t, data.VOCAB, size), once(tensors.text), {})


@pytest.mark.long
def test_build(tmp_path) -> None:
    """Wall time of the whole build, files included, on one core each."""
    if not HAS_PEER:
        pytest.skip("infini-gram is not installed")
    docs = data.corpus(False)
    started = time.perf_counter()
    ngram.build(docs, tmp_path / "a.lmxn", data.options())
    ours = time.perf_counter() - started
    (tmp_path / "peer").mkdir()
    data.write_tokenized(docs, tmp_path / "peer")
    started = time.perf_counter()
    data.index_with_infini_gram(tmp_path / "peer")
    theirs = time.perf_counter() - started
    print(f"build: {ours:.2f} s, infini-gram {theirs:.2f} s")
    assert ours <= theirs


# ---- beyond the caches ---------------------------------------------------------------------------

LARGE = 100_000_000  # tokens
STRINGS = 200_000  # together they touch more than the caches hold


@pytest.mark.long
def test_interleaving() -> None:
    """Searches in turns against one after the other, where what they touch exceeds the caches."""
    path = data.CACHE / "large.lmxn"
    if not path.exists():
        ngram.build(data.made_up(LARGE), path, data.options())
    index = data.open_index(path, mode="ram")
    starts = np.random.default_rng(1).integers(0, LARGE - 5, STRINGS)
    rows = index.tensors.text.numpy().view(np.uint16)[starts[:, None] + np.arange(5)]
    qtok = torch.from_numpy(rows.reshape(-1).astype(np.int64))
    qoff = torch.arange(0, qtok.numel() + 1, 5)
    arrays = (qtok.numpy(), qoff.numpy())
    in_turns, one_by_one = [], []
    with threads(1):
        for _ in range(7):
            started = time.perf_counter()
            total = int(ngram.find(index.tensors, qtok, qoff)[1].sum())
            in_turns.append(time.perf_counter() - started)
            started = time.perf_counter()
            assert index._searcher.sum_of_counts(*arrays) == total
            one_by_one.append(time.perf_counter() - started)
    ratio = min(one_by_one) / min(in_turns)
    each = min(in_turns) / STRINGS * 1e6
    print(f"{index.num_tokens:,} tokens: {each:.2f} us a count in turns, {ratio:.2f}x")
    assert ratio >= 2
