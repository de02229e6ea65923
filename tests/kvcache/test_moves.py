"""The ops against plain torch, bit for bit, and what must hold whatever they move."""

import pytest
import torch
from helpers import run, same_bits, some
from kvcache.kv_samples import DTYPES, POISON, SAMPLES, picked, some_rows, some_slots, tables
from samples import samples_of

import lmx
from lmx import kvcache
from lmx.kvcache import reference

BAD_PAGE, TOO_MANY = 1 << 4, 1 << 1


@pytest.mark.parametrize("op", sorted(SAMPLES))
def test_reference(ops, op):
    for sample in some(ops, samples_of(op)):
        if "bad" in sample.name:
            continue
        ours, theirs = run(ops, op, sample), sample.fresh()
        result = getattr(reference, op.removeprefix("kv_"))(*theirs.args, **theirs.kwargs)
        expected = (*(result or ()), *theirs.tensors().values())
        assert len(ours) == len(expected)
        for a, b in zip(ours, expected, strict=True):
            assert same_bits(a, b), sample.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_more_than_the_caches_hold(dtype, num_threads, threads):
    """Stored past the caches: every row in its place, and nothing beside it."""
    threads(num_threads)
    layers, tokens, heads, page_size, dim = 3, 2500, 4, 16, 64
    key, value = (some_rows(layers, tokens, heads, dim).to(dtype) for _ in range(2))
    num_pages = 1 + -(-tokens // page_size) * 2
    slots = some_slots(num_pages, page_size, tokens)
    pool = some_rows(num_pages, layers, 2, heads, page_size, dim).to(dtype)
    expected = pool.clone()
    stored = slots >= 0
    page, offset = slots[stored] // page_size, slots[stored] % page_size
    for kv, rows in enumerate((key, value)):
        expected[page, :, kv, :, offset] = rows[:, stored].transpose(0, 1)
    kvcache.append(key, value, slots, pool)
    assert same_bits(pool, expected)


def test_a_bad_token_is_left_out(ops):
    [sample] = [s for s in samples_of("kv_append") if s.name == "bad tokens"]
    before = sample.fresh()
    run_on = sample.fresh()
    ops("kv_append", *run_on.args, **run_on.kwargs)
    status = run_on.kwargs["status"]
    assert status.tolist() == [0, BAD_PAGE, 0, BAD_PAGE, BAD_PAGE, BAD_PAGE, 0]
    good = status == 0
    args = [a[good].contiguous() if i < 3 else a for i, a in enumerate(before.args)]
    names = ("meta_slots", "pos")
    kwargs = {k: v[good] if k in names else v for k, v in before.kwargs.items() if k != "status"}
    reference.append(*args, **kwargs)
    assert same_bits(run_on.args[3], args[3])
    assert same_bits(run_on.kwargs["meta_pos"], kwargs["meta_pos"])


def test_tokens_stored_one_by_one_in_any_order(ops):
    """Each token is stored the same alone and in a batch."""
    for sample in samples_of("kv_append")[3:30:7]:
        key, value, slots, pool = sample.fresh().args
        together, axis = pool.clone(), key.dim() - 3
        ops("kv_append", key, value, slots, together)
        for i in reversed(range(len(slots))):
            ops("kv_append", *(t.narrow(axis, i, 1) for t in (key, value)), slots[i : i + 1], pool)
        assert same_bits(pool, together), sample.name


def test_nothing_of_a_bad_sequence_is_moved(ops):
    [sample] = [s for s in samples_of("kv_gather_slots") if s.name == "bad"]
    key, value, pool, *_, status = run(ops, "kv_gather_slots", sample)
    assert status.tolist() == [BAD_PAGE, BAD_PAGE, TOO_MANY, TOO_MANY, 0, 0]
    for rows in (key, value):
        rows = rows.view(6, 20, 2, 8)
        assert not rows[:4].any()
        assert rows[4:].abs().nansum(dim=(1, 2, 3)).all()
    [sample] = [s for s in samples_of("kv_scatter_slots") if s.name == "bad"]
    key, value, block_table, num_slots, slots, pool, status = sample.fresh().args
    expected = pool.clone()
    good = slice(4, 6)
    kept = [t.view(6, 20, 2, 8)[good].flatten(0, 1) for t in (key, value)]
    reference.scatter_slots(*kept, *(t[good] for t in (block_table, num_slots, slots)), expected)
    ops("kv_scatter_slots", key, value, block_table, num_slots, slots, pool, status)
    assert same_bits(pool, expected) and status[:4].all() and not status[4:].any()


@pytest.mark.parametrize("num_rows", [1, 3])
def test_append_then_gather_is_identity(ops, num_rows):
    """Slots by logical number, through tables that hold 2e9 behind their ends."""
    page_size, heads, dim, lengths = 8, 3, 16, [1, 7, 8, 9, 40]
    block_table, num_slots, num_pages = tables(lengths, page_size, num_rows)
    assert (block_table == POISON).any()
    pool = torch.full((num_pages, 2, heads if num_rows == 1 else 1, page_size, dim), torch.nan)
    slots = picked(num_slots, 40)
    rows = slots.transpose(1, 2).flatten(0, 1).long()
    table = block_table.where(block_table < POISON, 0).repeat_interleave(40, 0).long()
    page = table.gather(2, (rows.clamp(min=0) // page_size)[:, :, None])[:, :, 0]
    mapping = (page * page_size + rows % page_size).where(rows >= 0, -1)
    mapping = mapping[:, 0].contiguous() if num_rows == 1 else mapping
    key, value = torch.randn(2, 200, heads, dim)
    ops("kv_append", key, value, mapping, pool)
    back = ops("kv_gather_slots", pool, block_table, num_slots, slots)
    kept = (rows >= 0)[:, :, None].expand(200, heads, dim)
    for ours, theirs in zip(back, (key, value), strict=True):
        assert torch.equal(ours, theirs.where(kept, 0))
    other = torch.full_like(pool, torch.nan)
    ops("kv_scatter_slots", *back, block_table, num_slots, slots, other)
    assert same_bits(pool, other)


def test_swap_out_then_in_is_identity(ops):
    pool = some_rows(9, 2, 2, 3, 8, 16)
    before, host = pool.clone(), torch.zeros(4, *pool.shape[1:])
    ids = torch.tensor([7, 1, 4], dtype=torch.int32)
    ops("kv_swap_pages", ids, pool, host, "out")
    assert same_bits(host[:3], before[ids.long()]) and not host[3].any()
    pool[ids.long()] = 0
    ops("kv_swap_pages", ids, pool, host, "in")
    assert same_bits(pool, before)


class Step(torch.nn.Module):
    """What a model does with its cache, to be traced."""

    def forward(self, key, value, slots, pool, block_table, num_slots, chosen, pages):
        kvcache.append(key, value, slots, pool)
        kvcache.copy_pages(pages[:1], pages[1:], pool)
        k, v = kvcache.gather_slots(pool, block_table, num_slots, chosen)
        kvcache.scatter_slots(v, k, block_table, num_slots, chosen, pool)
        return k + v


def test_compile_fullgraph():
    block_table, num_slots, num_pages = tables([5, 20], 8)
    args = (
        *torch.randn(2, 2, 4, 3, 16),
        some_slots(num_pages, 8, 4),
        torch.randn(num_pages + 2, 2, 2, 3, 8, 16),
        block_table,
        num_slots,
        picked(num_slots, 5),
        torch.tensor([1, num_pages], dtype=torch.int32),
    )
    with torch.inference_mode():
        pools = args[3].clone(), args[3].clone()
        eager = Step()(*args[:3], pools[0], *args[4:])
        traced = torch.compile(Step(), fullgraph=True, backend="aot_eager")
        compiled = traced(*args[:3], pools[1], *args[4:])
    assert torch.equal(eager, compiled) and torch.equal(*pools)


def test_ops_have_no_backward():
    key = torch.randn(1, 2, 8, requires_grad=True)
    slots, pool = torch.tensor([8]), torch.zeros(2, 2, 2, 8, 8)
    with pytest.raises(ValueError, match="lmx.kvcache.append has no backward"):
        kvcache.append(key, key, slots, pool)
    with torch.no_grad():
        lmx.kvcache.append(key, key, slots, pool)
    assert torch.equal(pool[1, 0, :, 0], key[0].detach())
