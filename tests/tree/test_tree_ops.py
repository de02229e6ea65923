"""The room's ops beside their references, with known answers and invariants."""

import pytest
import torch
from helpers import run, some
from samples import Sample, samples_of

from lmx.tree import reference

OPS = (
    "prepare",
    "verify_greedy",
    "verify_target",
    "commit",
    "recycle_expand",
    "recycle_update",
)


def good(op: str) -> list[Sample]:
    """The samples without a status: those that a reference takes."""
    status_at = {"prepare": 5, "verify_greedy": 6, "verify_target": 10, "commit": 8}
    status_at |= {"recycle_expand": 6, "recycle_update": 6}
    samples = samples_of(f"tree_{op}")
    return [s for s in samples if len(s.args) <= status_at[op] or s.args[status_at[op]] is None]


def without_slack(sample: Sample) -> Sample:
    """Cut off nodes of no sequence, which a reference does not expect."""
    rows = sample.rows
    if rows is None or rows.num_rows is not None or not rows.per_node:
        return sample
    used = int(sample.args[rows.indptr][-1])
    return sample.map(lambda k, v: v[:used] if k in rows.per_node and v is not None else v)


@pytest.mark.parametrize("op", OPS)
def test_equals_its_reference(ops, op):
    expected_of = getattr(reference, op)
    for sample in some(ops, good(op)):
        cut = without_slack(sample)
        ours, fresh = run(ops, f"tree_{op}", cut), cut.fresh()
        args = fresh.args[:8] if op == "commit" else fresh.args
        expected = expected_of(*args)
        expected = (fresh.args[0],) if expected is None else expected
        expected = expected if isinstance(expected, tuple) else (expected,)
        if op == "recycle_update":
            ours = ours[:1]  # the matrix
        for a, b in zip(ours[: len(expected)], expected, strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b), f"{sample.name}: {a} is not {b}"


def test_rows_of_no_sequence_are_neutral(ops):
    sample = next(s for s in samples_of("tree_prepare") if s.name == "slack")
    depth, first, following, bits = ops("tree_prepare", *sample.args)
    used = int(sample.args[1][-1])
    assert not depth[used:].any() and not bits[used:].any()
    assert (first[used:] == -1).all() and (following[used:] == -1).all()


# ---- known answers -------------------------------------------------------------------------

FIRST_CHILD = [1, 2, -1, 4, 5, -1, 4, 2, 3, -1, 5, -1]
NEXT_SIBLING = [-1, 3, -1, -1, -1, -1, -1, -1, -1, -1, 1, -1]  # the second tree's ids fall
TOKENS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]


def known_trees():
    target = torch.full((12,), 99)
    target[[0, 3, 4, 5]] = torch.tensor([3, 4, 5, 18])
    target[[6, 10, 11]] = torch.tensor([11, 12, 18])
    links = [torch.tensor(t, dtype=torch.int32) for t in (FIRST_CHILD, NEXT_SIBLING)]
    return torch.tensor(TOKENS), torch.tensor([0, 6, 12], dtype=torch.int32), *links, target


def test_greedy_known_answer(ops):
    path, length, out = ops("tree_verify_greedy", *known_trees(), 4)
    assert path.tolist() == [[0, 3, 4, 5, -1], [0, 4, 5, -1, -1]]
    assert out.tolist() == [[3, 4, 5, 18, -1], [11, 12, 18, -1, -1]]
    assert length.tolist() == [3, 2]


def test_max_depth_cuts_a_path(ops):
    path, length, out = ops("tree_verify_greedy", *known_trees(), 1)
    assert path.tolist() == [[0, 3], [0, 4]]
    assert out.tolist() == [[3, 4], [11, 12]]
    assert length.tolist() == [1, 1]


def test_a_one_hot_law_is_greedy(ops):
    """Temperature 0 within a sampled batch: any coin, the same path."""
    *tree, target = known_trees()
    probs = torch.zeros(12, 100).scatter_(1, target[:, None], 1.0)
    greedy = ops("tree_verify_greedy", *tree, target, 4)
    for u in (0.0, 0.5, 1 - 2**-24):
        coins, final = torch.full((12,), u), torch.full((2,), u)
        sampled = ops("tree_verify_target", *tree, probs, coins, final, 4)
        for a, b in zip(greedy, sampled, strict=True):
            assert torch.equal(a, b)


def test_verifiers_keep_their_invariants(ops):
    for op in ("verify_greedy", "verify_target"):
        for sample in some(ops, samples_of(f"tree_{op}")):
            tokens, indptr, max_depth = sample.args[0], sample.args[1].tolist(), None
            max_depth = sample.args[7 if op == "verify_target" else 5]
            path, length, out = ops(f"tree_{op}", *sample.fresh().args)
            for b, a in enumerate(length.tolist()):
                nodes = path[b, : a + 1].tolist()
                assert 0 <= a <= max_depth and (path[b, a + 1 :] == -1).all()
                assert (out[b, a + 1 :] == -1).all() and nodes == sorted(set(nodes))
                for j in range(a):
                    assert out[b, j] == tokens[indptr[b] + nodes[j + 1]]


def test_a_walk_without_a_next_token_keeps_what_was_accepted(ops):
    *tree, target = known_trees()
    target[5] = -1
    status = torch.zeros(2, dtype=torch.int32)
    path, length, out = ops("tree_verify_greedy", *tree, target, 4, status)
    assert status.tolist() == [4, 0] and length.tolist() == [3, 2]
    assert out.tolist() == [[3, 4, 5, -1, -1], [11, 12, 18, -1, -1]]
    probs = torch.zeros(12, 100).scatter_(1, target.clamp(min=0)[:, None], 1.0)
    probs[5] = 0.0
    status.zero_()
    args = (*tree, probs, torch.zeros(12), torch.zeros(2), 4)
    sampled = ops("tree_verify_target", *args, 1.0, 1.0, status)
    assert status.tolist() == [4, 0]
    for a, b in zip((path, length, out), sampled, strict=True):
        assert torch.equal(a, b)


def test_coins_flip_where_the_law_says(ops):
    """A child is accepted just below its share, and not at it; siblings share one coin."""
    indptr = torch.tensor([0, 4], dtype=torch.int32)
    parents = torch.tensor([-1, 0, 0, 0], dtype=torch.int32)
    _, first, following, _ = ops("tree_prepare", parents, indptr, 4)
    tokens = torch.tensor([9, 2, 2, 0])  # 2 twice: it counts once
    probs = torch.tensor([[0.25, 0.125, 0.5, 0.125]]).repeat(4, 1)
    step = 2.0**-24
    for u, child in ((0.0, 1), (0.5 - step, 1), (0.5, 3), (0.75 - step, 3), (0.75, -1)):
        coins = torch.full((4,), u)
        for final, token in ((0.0, 1), (0.5 - step, 1), (0.5, 3), (1 - step, 3)):
            final = torch.tensor([final])
            args = (tokens, indptr, first, following, probs, coins, final, 1)
            path, length, out = ops("tree_verify_target", *args)
            assert int(length) == (child >= 0) and (child < 0 or int(path[0, 1]) == child)
            if child < 0:
                assert int(out[0, 0]) == token


# ---- token recycling -----------------------------------------------------------------------


def test_update_stores_the_last_row_or_the_accepted_one(ops):
    logits = torch.eye(4, 6)[:, :, None].flatten(1)  # row i likes token i best
    tokens = torch.tensor([5, 2, 5, 5])
    indptr = torch.tensor([0, 4], dtype=torch.int32)
    path = torch.tensor([[0, 1, -1]], dtype=torch.int32)
    for given, owner in ((None, 3), (path, 0)):
        matrix = torch.full((1, 6, 2), -7, dtype=torch.int32)
        ops("tree_recycle_update", matrix, tokens, logits, indptr, given)
        others = [0] if owner else [1]
        assert matrix[0, 5].tolist() == [owner, *others]
        assert matrix[0, 2].tolist() == [1, 0]
        assert (matrix[0, [0, 1, 3, 4]] == -7).all()


def test_update_sorts_by_logit_and_leaves_out_what_cannot_follow(ops):
    row = torch.tensor([[3.0, -torch.inf, 7.0, torch.nan, 7.0, 3.5]])
    matrix = torch.zeros(1, 6, 8, dtype=torch.int32)
    ops("tree_recycle_update", matrix, torch.tensor([1]), row, torch.tensor([0, 1]).int())
    assert matrix[0, 1].tolist() == [2, 4, 5, 0, -1, -1, -1, -1]


def test_large_rows_are_sorted_like_torch(ops):
    if ops.name == "simt":
        pytest.skip("a long row takes the harness a minute")
    logits = torch.randn(3, 49_152)
    matrix = torch.zeros(1, 49_152, 8, dtype=torch.int32)
    tokens = torch.tensor([7, 8, 9])
    ops("tree_recycle_update", matrix, tokens, logits, torch.tensor([0, 3]).int())
    assert torch.equal(matrix[0, tokens].long(), logits.topk(8).indices)
