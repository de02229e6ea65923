"""Benches of lmx.kvcache: storing tokens, moving pages and rows, and the books of the pool.

The pool rotates: every call writes or reads pages that no cache holds. Slots are shuffled.
"""

import pytest
import torch
from torch import Tensor

import lmx
from lmx import kvcache

from .figures import Gate
from .inputs import DTYPES, ROTATE_BYTES, Case
from .measure import Measure
from .race import Rotation
from .roof import Traffic

DEVICES = ("cpu",) if lmx.no_cuda else ("cpu", "cuda")
LAYERS, HEADS, DIM, PAGE = 30, 3, 64, 16  # SmolLM2-135M


def each(*rows: int) -> pytest.MarkDecorator:
    cases = [Case(device, "bf16", n) for device in DEVICES for n in rows]
    return pytest.mark.parametrize("case", cases, ids=str)


def copied(num_bytes: int) -> Traffic:
    return Traffic(read=num_bytes, write=num_bytes)


def pools(case: Case, smoke: bool, pages: int, layers: int = LAYERS) -> Tensor:
    """As many pools of so many pages as it takes to fill the rotation."""
    shape = (pages + 1, layers, 2, HEADS, PAGE, DIM)
    one = torch.zeros(shape, dtype=DTYPES[case.dtype], device=case.device)
    return one.repeat(2 if smoke else max(2, ROTATE_BYTES // one.nbytes), *[1] * 5, 1).view(
        -1, *shape
    )


def by_torch(key: Tensor, value: Tensor, slots: Tensor, pool: Tensor) -> None:
    """The same by indexing: page, offset and heads at once."""
    page, offset = slots // PAGE, slots % PAGE
    pool[page, :, 0, :, offset] = key.transpose(0, 1)
    pool[page, :, 1, :, offset] = value.transpose(0, 1)


def by_rows(key: Tensor, value: Tensor, slots: Tensor, pool: Tensor) -> None:
    """The same by scattering rows into a flat view, layer by layer."""
    heads = torch.arange(HEADS, device=slots.device)
    for layer, (k, v) in enumerate(zip(key, value, strict=True)):
        for kv, rows in enumerate((k, v)):
            block = ((slots // PAGE * LAYERS + layer) * 2 + kv)[:, None] * HEADS + heads
            at = block * PAGE + (slots % PAGE)[:, None]
            pool.view(-1, DIM).index_copy_(0, at.view(-1), rows.reshape(-1, DIM))


@each(8, 512, 4096)
def test_append(measure: Measure, case: Case, smoke: bool) -> None:
    """All layers in one call: a step of 8 sequences, and chunks of prompts."""
    tokens = 8 if smoke else case.rows
    pool = pools(case, smoke, max(tokens // PAGE, 1))
    slots = PAGE + torch.randperm(max(tokens // PAGE, 1) * PAGE, device=case.device)[:tokens]
    rows = torch.randn(2, LAYERS, tokens, HEADS, DIM, device=case.device).to(pool.dtype)
    count = len(pool)
    key, value = (r.repeat(count, 1, 1, 1).view(count, *r.shape) for r in rows)
    size = rows[0].numel()

    def by_copy(pool: Tensor, key: Tensor, value: Tensor) -> None:
        """The roof: as many bytes, one after the other, into memory that is there already."""
        flat = pool.view(-1)
        flat[:size].copy_(key.view(-1))
        flat[size : 2 * size].copy_(value.view(-1))

    measure(
        lambda pool, k, v: kvcache.append(k[0], v[0], slots, pool[0]),
        Rotation(1, pool, key, value),
        baseline={
            "index_put": lambda pool, k, v: by_torch(k[0], v[0], slots, pool[0]),
            "index_copy_": lambda pool, k, v: by_rows(k[0], v[0], slots, pool[0]),
        },
        peer={"copy_": by_copy},
        gate=Gate(0.7, "copy_", "peer") if (case.device, case.rows) == ("cpu", 4096) else None,
    )


@each(64)
def test_copy_pages(measure: Measure, case: Case, smoke: bool) -> None:
    """Copy-on-write of all layers of so many pages."""
    count = 4 if smoke else case.rows
    pool = pools(case, smoke, 2 * count)
    order = 1 + torch.randperm(2 * count, device=case.device)
    src, dst = order[:count].int(), order[count:].int()
    measure(
        lambda pool: kvcache.copy_pages(src, dst, pool[0]),
        Rotation(1, pool),
        bytes_moved=copied(pool[0, 0].nbytes * count),
        baseline={
            "index_copy_": lambda pool: pool[0].index_copy_(0, dst.long(), pool[0][src.long()])
        },
    )


@pytest.mark.parametrize("direction", ("out", "in"))
@each(64)
def test_swap_pages(measure: Measure, case: Case, smoke: bool, direction: str) -> None:
    """A sequence of so many pages to the host, or back."""
    count = 4 if smoke else case.rows
    pool = pools(case, smoke, count)
    ids = (1 + torch.randperm(count, device=case.device)).int()
    host = torch.zeros(pool[0, 1:].shape, dtype=pool.dtype, pin_memory=case.device == "cuda")

    def by_index(pool: Tensor) -> None:
        if direction == "out":
            host.copy_(pool[0].index_select(0, ids.long()))
        else:
            pool[0].index_copy_(0, ids.long(), host.to(pool.device))

    measure(
        lambda pool: kvcache.swap_pages(ids, pool[0], host, direction),
        Rotation(1, pool),
        bytes_moved=copied(host.nbytes),
        baseline={"index_select, index_copy_": by_index},
    )


def tables(case: Case, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """One sequence in shuffled pages, and all its slots."""
    pages = -(-tokens // PAGE)
    block_table = (1 + torch.randperm(pages, device=case.device)).int()[None, None]
    num_slots = torch.full((1, 1), tokens, dtype=torch.int32, device=case.device)
    return block_table, num_slots, torch.arange(tokens, device=case.device).int()[None, None]


@each(4096)
def test_gather_slots(measure: Measure, case: Case, smoke: bool) -> None:
    """The rows of one layer of a sequence, out of its pages."""
    tokens = 40 if smoke else case.rows
    where = tables(case, tokens)
    pool = pools(case, smoke, where[0].numel(), 1)[:, :, 0]
    pages = where[0].view(-1).long()

    def by_index(pool: Tensor) -> Tensor:
        return pool[0].index_select(0, pages).permute(1, 0, 3, 2, 4).reshape(2, -1, HEADS, DIM)

    measure(
        lambda pool: kvcache.gather_slots(pool[0], *where),
        Rotation(1, pool),
        bytes_moved=copied(2 * tokens * HEADS * DIM * pool.element_size()),
        baseline={"index_select, permute": by_index},
    )


@each(4096)
def test_scatter_slots(measure: Measure, case: Case, smoke: bool) -> None:
    """The way back."""
    tokens = 40 if smoke else case.rows
    where = tables(case, tokens)
    pool = pools(case, smoke, where[0].numel(), 1)[:, :, 0]
    pages = where[0].view(-1).long()
    key, value = torch.randn(2, tokens, HEADS, DIM, device=case.device).to(pool.dtype)
    full = torch.zeros(2, pages.numel() * PAGE, HEADS, DIM, dtype=pool.dtype, device=case.device)

    def by_index(pool: Tensor) -> None:
        full[0, :tokens], full[1, :tokens] = key, value
        blocks = full.view(2, -1, PAGE, HEADS, DIM).permute(1, 0, 3, 2, 4)
        pool[0].index_copy_(0, pages, blocks)

    measure(
        lambda pool: kvcache.scatter_slots(key, value, *where, pool[0]),
        Rotation(1, pool),
        bytes_moved=copied(key.nbytes + value.nbytes),
        baseline={"permute, index_copy_": by_index},
    )


# ---- books: no keys and values are moved --------------------------------------------------------


def books(tokens: int, max_seqs: int = 4) -> tuple[kvcache.PagedKVCache, int]:
    """A cache of one long sequence, of very narrow rows."""
    cache = kvcache.PagedKVCache(
        num_layers=1,
        num_kv_heads=1,
        head_dim=8,
        num_pages=3 * (tokens // PAGE) + max_seqs,
        max_seqs=max_seqs,
        max_tokens=tokens + PAGE,
        dtype=torch.bfloat16,
    )
    seq = cache.create()
    cache.append([seq], [tokens])
    return cache, seq


NOTHING = Rotation(1, torch.zeros(1000, 1))


@pytest.mark.parametrize("tokens", (1_600, 32_768, 1_600_000))
def test_fork(measure: Measure, smoke: bool, tokens: int) -> None:
    """A fork and its end; beside it a copy of its row of the table by torch."""
    tokens = 1_600 if smoke else tokens
    cache, seq = books(tokens)

    def ours(_: Tensor) -> None:
        cache.free(cache.fork(seq))

    row = cache.block_table[0, 0]
    measure(ours, NOTHING, baseline={"clone of the row": lambda _: row.clone()})


@pytest.mark.parametrize("tokens", (1_600, 32_768, 1_600_000))
def test_truncate(measure: Measure, smoke: bool, tokens: int) -> None:
    """Half of a fork's tokens, by way of the fork; less `test_fork` it is the truncation alone."""
    tokens = 1_600 if smoke else tokens
    cache, seq = books(tokens)

    def ours(_: Tensor) -> None:
        [fork] = cache.fork(seq)
        cache.truncate(fork, tokens // 2)
        cache.free(fork)

    row = cache.block_table[0, 0]
    measure(ours, NOTHING, baseline={"clone of the row": lambda _: row.clone()})


@pytest.mark.parametrize("num_seqs", (1, 8, 64))
def test_step(measure: Measure, num_seqs: int) -> None:
    """Slots for a token of each of a batch, and its commit: what a step costs the host."""
    cache, first = books(160, max_seqs=64)
    handles = [first, *cache.fork(first, num_seqs - 1)]
    ones, zeros = [1] * num_seqs, [0] * num_seqs

    def ours(_: Tensor) -> None:
        cache.reserve(handles, ones)
        cache.commit(handles, zeros)

    slots = torch.zeros(num_seqs, dtype=torch.int64)
    measure(ours, NOTHING, baseline={"clone of the slots": lambda _: slots.clone()})
