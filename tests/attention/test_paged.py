"""`attention_paged` against the reference in float64: tables, sizes, dtypes, positions."""

import pytest
import torch
from attention_bound import assert_close_to_reference, in_pages
from attention_samples import Seq, make_batch, make_pages, make_positions, poison_dead
from helpers import same_bits, some
from samples import samples_of

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def attend(ops, args, kwargs):
    results = ops("attention_paged", *args, **kwargs)
    assert_close_to_reference(args, kwargs, results)
    return results


def test_samples_match_the_reference(ops):
    for sample in some(ops, samples_of("attention_paged")):
        attend(ops, sample.args, sample.kwargs)


@pytest.mark.parametrize("page_size", (8, 16, 32, 64, 128))
def test_page_sizes_and_lengths(ops, page_size):
    """Around a page's border, prefill and decode in one batch, members without rows or slots."""
    lengths = (1, page_size - 1, page_size, page_size + 1)
    seqs = [Seq(n) for n in lengths] + [Seq(0, 3), Seq(page_size, 0), Seq(5, 7, 2), Seq(0, 0)]
    for dtype in some(ops, list(DTYPES)):
        args, kwargs = make_batch(seqs, (9, 3), 64, page_size, dtype)
        attend(ops, args, kwargs)


@pytest.mark.parametrize("group", (1, 3, 4, 7, 8))
@pytest.mark.parametrize("dim", (8, 64, 80, 128, 200, 256))
def test_groups_and_head_sizes(ops, group, dim):
    if ops.name == "simt" and (group, dim) not in {(1, 64), (7, 80), (4, 128), (3, 200)}:
        pytest.skip("few of them on the harness")
    dtype = DTYPES[(group + dim // 8) % 3]
    for tree in (False, True):
        args, kwargs = make_batch([Seq(70, 9), Seq(3, 1)], (2 * group, 2), dim, 16, dtype, tree)
        attend(ops, args, kwargs)


@pytest.mark.parametrize("slots", (0, 1, 63, 64, 65, 255, 256, 257, 4095, 7812))
def test_prefix_lengths(ops, slots):
    """Below, at and above the borders of pages, chunks and tiles, where one sequence is long."""
    if ops.name == "simt" and slots > 300:
        pytest.skip("long on the harness")
    for fresh in (1, 3):
        args, kwargs = make_batch([Seq(2), Seq(slots, fresh)], (6, 2), 64, 16, torch.bfloat16)
        attend(ops, args, kwargs)


@pytest.mark.parametrize("nodes", (1, 2, 31, 32, 33, 64, 65, 81, 768))
def test_tree_sizes(ops, nodes):
    if ops.name == "simt" and nodes > 65:
        pytest.skip("long on the harness")
    args, kwargs = make_batch([Seq(130, nodes), Seq(0, 2)], (4, 1), 64, tree=True)
    attend(ops, args, kwargs)


def test_a_table_of_any_order_gives_the_same_bits(ops):
    """Shuffled pages, other page sizes, other strides: where slots lie changes nothing."""
    args, kwargs = make_batch([Seq(0, 90), Seq(0, 37)], (4, 2), 64)
    key, value = args[1:3]
    ends = args[3].tolist()
    last = torch.tensor([ends[1] - 1, ends[2] - 1])
    rows = (args[0][last], key[last], value[last], torch.tensor([0, 1, 2]).int())
    pos = args[9][last]
    found = []
    for page_size in (8, 16, 128):
        pages, table, counts = in_pages(args, page_size)
        call = (*rows, rows[3], None, pages, table, counts - 1, pos, pos)
        found.append(attend(ops, call, kwargs | {"max_slots": 128}))
        wide = torch.nn.functional.pad(table, (0, 3), value=5)
        spread = pages.new_full((len(pages), 3, *pages.shape[1:]), torch.nan)
        spread[:, 2] = pages
        moved = (*rows, rows[3], None, spread[:, 2], wide[..., :-2], counts - 1, pos, pos)
        assert same_bits(attend(ops, moved, kwargs | {"max_slots": 999})[0], found[-1][0])
    for other in found[1:]:
        assert same_bits(other[0], found[0][0]) and same_bits(other[1], found[0][1])


def test_slots_in_any_order(ops):
    """Permuting slots together with their positions changes rounding alone."""
    for window in (-1, 30):
        args, kwargs = make_batch([Seq(100), Seq(100)], (4, 2), 64)
        kwargs |= {"window": window, "num_sinks": 2}
        args[7][0] = args[7][1]  # the same pages
        args[0][0], args[1][0], args[2][0] = args[0][1], args[1][1], args[2][1]
        order = torch.randperm(100)
        page_size, pages = args[6].shape[3], args[6]
        ids = args[7][1, 0, :7].long()
        flat = pages[ids].permute(1, 2, 0, 3, 4).flatten(2, 3).clone()
        flat[:, :, :100] = flat[:, :, :100][:, :, order]
        fresh_pages = torch.cat((pages, pages[ids]))
        turned = flat.unflatten(2, (7, page_size)).permute(2, 0, 1, 3, 4)
        fresh_pages[len(pages) :] = turned
        table = args[7].clone()
        table[1, 0, :7] = torch.arange(len(pages), len(pages) + 7)
        slot_pos = torch.full((8, page_size), -1, dtype=torch.int32)
        slot_pos[1:].view(-1)[:100] = order.int()
        own = torch.zeros_like(table)
        own[1, 0, :7] = torch.arange(1, 8)
        args = (*args[:6], fresh_pages, table, *args[8:])
        out, lse, *_ = attend(ops, args, kwargs | {"slot_pos": slot_pos, "slot_pos_table": own})
        torch.testing.assert_close(out[0], out[1], rtol=0, atol=2e-6)
        torch.testing.assert_close(lse[0], lse[1], rtol=0, atol=2e-6)


def test_dead_slots_are_not_there(ops):
    """NaN and infinity in dead slots do not leak, and their number changes no other row."""
    for dtype in some(ops, list(DTYPES)):
        args, kwargs = make_batch([Seq(40), Seq(300, 4), Seq(33, 2)], (6, 2), 80, 16, dtype)
        more = make_positions(args[8], args[7], 16, dead=0.6)
        before = attend(ops, args, kwargs | more)
        poison_dead(args, more)
        after = attend(ops, args, kwargs | more)
        assert all(same_bits(a, b) for a, b in zip(before, after, strict=True))


def test_a_sequence_of_dead_slots_has_no_keys(ops):
    args, kwargs = make_batch([Seq(9), Seq(40)], (2, 1), 64)
    more = make_positions(args[8], args[7], 16, dead=1.1)
    out, lse, *_ = attend(ops, args, kwargs | more | {"part": "prefix"})
    assert (out[1] == 0).all() and (lse[1] == -torch.inf).all() and lse[0].isfinite().all()


def test_a_nan_stays_in_its_row_and_head(ops):
    """NaN and +inf among scores make a row NaN as dense attention does; -inf is no weight."""
    args, kwargs = make_batch([Seq(20, 3), Seq(20, 3)], (4, 2), 64)
    good = attend(ops, args, kwargs)
    args[0][1, 2, 5] = torch.nan
    args[0][4] = args[0][4].abs()
    args[1][3, 0, 0] = torch.inf
    out, lse, *_ = ops("attention_paged", *args, **kwargs)
    assert out[1, 2].isnan().all() and lse[1, 2].isnan()
    touched = torch.zeros(6, 4, dtype=torch.bool)
    touched[1, 2] = touched[3:, :2] = touched[4] = True
    assert torch.equal(out[~touched], good[0][~touched])
    assert out[4, :2].isnan().all() and lse[4, :2].isnan().all()
    assert out[4, 2:].isfinite().all()


def test_rows_past_the_last_sequence_are_left_alone(ops):
    """`cu_seqlens[B]` may be below the number of rows: what lies behind is not read."""
    args, kwargs = make_batch([Seq(20, 3), Seq(4, 2)], (4, 2), 64)
    whole = attend(ops, args, kwargs)
    poison = [torch.cat((t, torch.full_like(t[:2], torch.nan))) for t in args[:3]]
    far = [torch.cat((t, torch.tensor([-5, 2**31 - 1]).int())) for t in args[9:]]
    out, lse, *_ = ops("attention_paged", *poison, *args[3:9], *far, **kwargs)
    assert same_bits(out[:5], whole[0]) and same_bits(lse[:5], whole[1])


def test_large_scores_and_far_positions(ops):
    """Scores of some thousands, positions up to the end of int32, windows that wrap nothing."""
    args, kwargs = make_batch([Seq(300, 5)], (4, 2), 64)
    args[0].mul_(300.0)
    attend(ops, args, kwargs)
    args[9].copy_(torch.arange(5) + 2**31 - 6), args[10].copy_(args[9])
    for window in (-1, 1, 3, 2**31 - 1, 2**40):
        attend(ops, args, kwargs | {"window": window, "num_sinks": 2})


def test_nothing_at_all(ops):
    for seqs in ([], [Seq(0, 0)], [Seq(30, 0)]):
        args, kwargs = make_batch(seqs)
        out, lse, *_ = ops("attention_paged", *args, **kwargs)
        assert out.shape == (0, 4, 64) and lse.shape == (0, 4)
    args, kwargs = make_batch([Seq(0, 1)])
    pages, table, counts = make_pages([0], 2, 64, 16, torch.float32)
    args = (*args[:6], pages[:0], table[..., :0], counts, *args[9:])
    out = attend(ops, args, kwargs)[0]
    torch.testing.assert_close(out[0, 0], args[2][0, 0], rtol=1e-6, atol=0)
