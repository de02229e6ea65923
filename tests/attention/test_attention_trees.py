"""Draft trees, chains and parts: what must agree with what, and how closely."""

import pytest
import torch
from attention_bound import assert_close_to_reference, in_pages
from attention_samples import Seq, depths, make_batch, random_parents, tree_bits
from helpers import same_bits, some

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def attend(ops, args, kwargs):
    return ops("attention_paged", *args, **kwargs)


def tree_call(nodes: int, slots: int, dtype, heads=(4, 2), dim=64):
    """A call with one random tree, and its parents."""
    args, kwargs = make_batch([Seq(slots, nodes)], heads, dim, 16, dtype)
    parents = random_parents(nodes)
    pos = torch.tensor(depths(parents)).int() + slots
    bits = tree_bits(parents, (nodes + 31) // 32)
    return (*args[:5], bits, *args[6:9], pos, pos.clone()), kwargs, parents


def path_to(parents: list[int], node: int) -> list[int]:
    path = [node]
    while parents[path[0]] >= 0:
        path.insert(0, parents[path[0]])
    return path


def test_a_branch_is_a_chain(ops):
    """Each path from the root to a leaf, alone as a causal chain, within the bound."""
    for dtype in some(ops, list(DTYPES)):
        args, kwargs, parents = tree_call(40, 70, dtype)
        out, lse, *_ = attend(ops, args, kwargs)
        assert_close_to_reference(args, kwargs, (out, lse))
        for leaf in sorted(set(range(40)) - set(parents))[:: 8 if ops.name == "simt" else 1]:
            path = path_to(parents, leaf)
            rows = torch.tensor(path)
            ends = torch.tensor([0, len(path)], dtype=torch.int32)
            chain = (*(t[rows] for t in args[:3]), ends, ends, None, *args[6:9])
            alone = attend(ops, (*chain, args[9][rows], args[10][rows]), kwargs)
            tolerance = 7.81e-3 if dtype == torch.bfloat16 else 2e-3 if dtype != DTYPES[0] else 2e-6
            torch.testing.assert_close(out[rows], alone[0], rtol=0, atol=tolerance)
            torch.testing.assert_close(lse[rows], alone[1], rtol=0, atol=1e-5)


def piece(args, pages, table, first: int, last: int, slots: int, bits=None) -> tuple:
    """Rows [first, last) of one sequence after so many slots of it."""
    ends = torch.tensor([0, last - first], dtype=torch.int32)
    pos = torch.arange(first, last, dtype=torch.int32)
    counts = torch.tensor([[slots]], dtype=torch.int32)
    rows = (t[first:last] for t in args[:3])
    return (*rows, ends, ends, bits, pages, table, counts, pos, pos.clone())


def test_a_chain_is_its_rows_one_at_a_time(ops):
    """Bit for bit: in a block, as a tree, and each after those before it went into pages."""
    count = 12
    chain = tree_bits(list(range(-1, count - 1)), 1)
    for dtype in some(ops, list(DTYPES)):
        args, kwargs = make_batch([Seq(0, 300)], (6, 2), 64, 16, dtype)
        kwargs["max_slots"] = 300
        stored = (args, *in_pages(args)[:2])
        for start in (0, 5, 16, 250):  # 250: over the border of a chunk
            block = attend(ops, piece(*stored, start, start + count, start), kwargs)
            as_tree = attend(ops, piece(*stored, start, start + count, start, chain), kwargs)
            for a, b in zip(block, as_tree, strict=True):
                assert same_bits(a, b)
            for i in range(start, start + count):
                one = attend(ops, piece(*stored, i, i + 1, i), kwargs)
                assert same_bits(one[0][0], block[0][i - start]), f"row {i} after {start} slots"
                assert same_bits(one[1][0], block[1][i - start])


def test_a_tree_of_one_node_is_a_decode_row(ops):
    for dtype in DTYPES:
        args, kwargs = make_batch([Seq(70), Seq(3)], dtype=dtype)
        with_bits = (*args[:5], torch.ones(2, 1, dtype=torch.int32), *args[6:])
        for a, b in zip(attend(ops, args, kwargs), attend(ops, with_bits, kwargs), strict=True):
            assert same_bits(a, b)


def test_another_topological_order(ops):
    """Permuting nodes permutes the rows; within a chunk only the order of sums changes."""
    args, kwargs, parents = tree_call(33, 20, torch.float32)
    out, lse, *_ = attend(ops, args, kwargs)
    order = sorted(range(33), key=lambda i: (depths(parents)[i], -i))
    place = {node: i for i, node in enumerate(order)}
    moved = [place[parents[node]] if node else -1 for node in order]
    rows = torch.tensor(order)
    bits = tree_bits(moved, 2)
    turned = (
        *(t[rows] for t in args[:3]),
        *args[3:5],
        bits,
        *args[6:9],
        *(t[rows] for t in args[9:]),
    )
    got = attend(ops, turned, kwargs)
    torch.testing.assert_close(got[0], out[rows], rtol=0, atol=2e-6)
    torch.testing.assert_close(got[1], lse[rows], rtol=0, atol=2e-6)


def test_other_nodes_change_nothing(ops):
    """Keys of nodes that are no ancestors may be anything, values any number: bit for bit."""
    for dtype in DTYPES:
        args, kwargs, parents = tree_call(40, 30, dtype)
        before = attend(ops, args, kwargs)
        for node in (7, 39):
            path = path_to(parents, node)
            others = torch.tensor(sorted(set(range(40)) - set(path)))
            key, value = args[1].clone(), args[2].clone()
            key[others], value[others] = torch.nan, 1e4
            after = attend(ops, (args[0], key, value, *args[3:]), kwargs)
            assert same_bits(after[0][node], before[0][node])
            assert same_bits(after[1][node], before[1][node])


def test_parts_merge_to_the_whole(ops):
    """Slots alone and fresh keys alone, joined; also where one side is empty."""
    for dtype in some(ops, list(DTYPES)):
        args, kwargs = make_batch(
            [Seq(80, 20), Seq(0, 3), Seq(400, 1)], (4, 2), 64, 16, dtype, True
        )
        whole = attend(ops, args, kwargs)
        a = attend(ops, args, kwargs | {"part": "prefix"})
        b = attend(ops, args, kwargs | {"part": "fresh"})
        out, lse = ops("attention_merge", a[0], a[1], b[0], b[1])
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(out, whole[0], rtol=2 * eps, atol=4 * eps)
        torch.testing.assert_close(lse, whole[1], rtol=0, atol=1e-5)


def test_a_shared_prefix_needs_no_fresh_keys(ops):
    """`part='prefix'` with the rows of several sequences at once, as cascades do."""
    args, kwargs = make_batch([Seq(50, 1), Seq(0, 6)], (4, 2), 64)
    rows = (args[0][1:], args[1][:0], args[2][:0], torch.tensor([0, 6]).int())
    none = torch.tensor([0, 0], dtype=torch.int32)
    pos = torch.full((6,), 60, dtype=torch.int32)
    call = (*rows, none, None, args[6], args[7][:1], args[8][:1], pos, none[:0])
    kwargs |= {"part": "prefix", "max_q": 6}
    assert_close_to_reference(call, kwargs, attend(ops, call, kwargs))


@pytest.mark.parametrize("tree", (False, True))
def test_key_keep_hides_all_but_the_own_key(ops, tree):
    for dtype in some(ops, list(DTYPES)):
        args, kwargs = make_batch([Seq(10, 40), Seq(0, 9)], (4, 2), 64, 16, dtype, tree)
        keep = torch.zeros(49, 2, dtype=torch.bool)
        keep[:, 1] = torch.rand(49) < 0.5
        results = attend(ops, args, kwargs | {"key_keep": keep})
        assert_close_to_reference(args, kwargs | {"key_keep": keep}, results)
        alone = attend(ops, args, kwargs | {"key_keep": keep, "part": "fresh"})
        own = args[2].repeat_interleave(2, 1)  # of head 0 nothing is kept: a row sees itself
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(alone[0][:, :2], own[:, :2], rtol=2 * eps, atol=0)


def test_sight_by_position(ops):
    """Windows and sinks hold for slots and fresh keys alike; not causal: later keys are seen."""
    for tree in (False, True):
        args, kwargs = make_batch([Seq(300, 30), Seq(4, 11)], (4, 2), 64, tree=tree)
        for options in (
            {"window": 0},
            {"window": 1},
            {"window": 5, "num_sinks": 3},
            {"window": 270},
            {"window": 17, "causal": False},
            {"causal": False, "num_sinks": 9},
        ):
            results = attend(ops, args, kwargs | options)
            assert_close_to_reference(args, kwargs | options, results)
