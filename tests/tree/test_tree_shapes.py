"""How trees are made, merged and cut; templates."""

import pytest
import torch

from lmx import tree
from lmx.protocols import DraftTree

I32 = torch.int32


def draft(*trees):
    """A batch from lists of (token, parent)."""
    sizes = torch.tensor([0, *map(len, trees)]).cumsum(0).to(I32)
    flat = [node for t in trees for node in t]
    tokens = torch.tensor([t for t, _ in flat])
    return DraftTree(
        tokens=tokens, parents=torch.tensor([p for _, p in flat], dtype=I32), indptr=sizes
    )


def nodes(t: DraftTree) -> list[list[tuple[int, int]]]:
    pairs = list(zip(t.tokens.tolist(), t.parents.tolist(), strict=True))
    bounds = t.indptr.tolist()
    return [pairs[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


TWO = draft([(5, -1), (6, 0), (7, 0), (8, 1), (9, 1)], [(1, -1), (2, 0)])


def test_published_template():
    template = tree.token_recycling()
    depth = torch.tensor([len(path) for path in template.paths])
    assert template.num_nodes == 81 and int(depth.max()) == 6 and int(depth.sum()) == 243
    assert torch.bincount(depth).tolist() == [1, 8, 21, 25, 15, 8, 3]
    parents, indptr = template.parents, torch.tensor([0, 81], dtype=I32)
    _, first, _, ancestors = tree.prepare(parents, indptr, 81)
    assert int((first == -1).sum()) == 40
    bits = ancestors[..., None] >> torch.arange(32, dtype=I32) & 1
    assert int(bits.sum()) == 324


@pytest.mark.parametrize("paths", [[(0,), (0,)], [(0, 1)], [(0, 0), (0,)], [()]])
def test_templates_that_are_no_trees(paths):
    with pytest.raises(ValueError, match="from_paths: no tree"):
        tree.from_paths(paths)
    with pytest.raises(ValueError, match="Template: no tree: node 1 has parent 1"):
        tree.Template(torch.tensor([-1, 1], dtype=I32), torch.tensor([0, 0], dtype=I32))
    with pytest.raises(ValueError, match="Template: expected parents and ranks int32"):
        tree.Template(torch.tensor([-1]), torch.tensor([0]))


def test_likeliest_templates_are_each_the_start_of_the_next():
    large = tree.likeliest(81)
    for size in (1, 2, 4, 5, 17, 80):
        small = tree.likeliest(size)
        assert small.num_nodes == size and small.paths == large.paths[:size]
    values = [1.0]
    for parent, rank in zip(large.parents.tolist()[1:], large.ranks.tolist()[1:], strict=True):
        values.append(values[parent] * tree.template.RANK_PROBABILITIES[rank])
    pairs = zip(values, values[1:], strict=False)
    assert all(b <= a * (1 + 1e-9) for a, b in pairs)  # equal ones may differ by rounding
    assert tree.from_chain(3).paths == [(), (0,), (0, 0), (0, 0, 0)]


def test_chains():
    t = tree.from_tokens(torch.tensor([4, 5, 6]), [[1, 2], [], [3]])
    assert nodes(t) == [[(4, -1), (1, 0), (2, 1)], [(5, -1)], [(6, -1), (3, 0)]]
    with pytest.raises(ValueError, match="expected 3 drafts, got 1"):
        tree.from_tokens(torch.tensor([4, 5, 6]), [[]])


def test_padded():
    tokens = torch.tensor([[6, 7, -1, 8], [-1, -1, -1, -1]])
    parents = torch.tensor([[-1, 0, -1, 1], [-1, -1, -1, -1]], dtype=I32)
    t = tree.from_padded(torch.tensor([5, 1]), tokens, parents)
    assert nodes(t) == [[(5, -1), (6, 0), (7, 1), (8, 2)], [(1, -1)]]
    for bad in (2, 3, 4, -2):
        parents[0, 3] = bad
        with pytest.raises(ValueError, match=r"from_padded: .*parents\[0, 3\]"):
            tree.from_padded(torch.tensor([5, 1]), tokens, parents)


def test_masks():
    mask = tree.to_dense_mask(TWO)
    assert mask.shape == (2, 5, 5) and not mask[1, 2:].any()
    assert torch.equal(tree.from_mask(mask[0]), TWO.parents[:5])
    assert torch.equal(tree.from_mask(mask[1, :2, :2]), TWO.parents[5:])
    assert mask[0].int().tolist()[4] == [1, 1, 0, 0, 1]
    for i, j in ((0, 1), (3, 2), (3, 0), (3, 3)):
        bad = mask[0].clone()
        bad[i, j] = ~bad[i, j]
        with pytest.raises(ValueError, match="no tree has this mask"):
            tree.from_mask(bad)
    with pytest.raises(ValueError, match=r"expected bool \[n, n\]"):
        tree.from_mask(mask)


def test_retrieve():
    r = tree.to_retrieve(TWO)
    assert r.row.tolist() == [[0, 1, 2, 3, 4], [5, 6, -1, -1, -1]]
    assert r.next_token.tolist() == [[1, 3, -1, -1, -1], [1, -1, -1, -1, -1]]
    assert r.next_sibling.tolist() == [[-1, 2, -1, 4, -1], [-1, -1, -1, -1, -1]]


def test_merge_unites_equal_children_in_order():
    other = draft([(5, -1), (7, 0), (4, 0), (8, 1)], [(1, -1), (3, 0)])
    united = tree.merge([TWO, other])
    first = [(5, -1), (6, 0), (7, 0), (8, 1), (9, 1), (4, 0), (8, 2)]
    assert nodes(united) == [first, [(1, -1), (2, 0), (3, 0)]]
    assert nodes(tree.merge([TWO])) == nodes(TWO)
    with pytest.raises(ValueError, match="sequence 1 has different roots"):
        tree.merge([TWO, draft([(5, -1)], [(2, -1)])])
    with pytest.raises(ValueError, match="deterministic"):
        tree.merge([])


def test_prune_takes_what_hangs_below():
    keep = torch.tensor([False, False, True, True, True, True, True])
    assert nodes(tree.prune(TWO, keep)[0]) == [[(5, -1), (7, 0)], [(1, -1), (2, 0)]]
    assert nodes(tree.prune(TWO, torch.ones(7, dtype=torch.bool))[0]) == nodes(TWO)
    assert nodes(tree.prune(TWO, torch.zeros(7, dtype=torch.bool))[0]) == [[(5, -1)], [(1, -1)]]


def test_preorder():
    assert tree.reorder_dfs(TWO).tolist() == [0, 1, 3, 4, 2, 5, 6]
    chain = tree.from_tokens(torch.tensor([1]), [[2] * 500])
    assert tree.reorder_dfs(chain).tolist() == list(range(501))


def test_the_step_model():
    costs = tree.StepCosts((1, 2, 4), (2.0, 3.0, 4.0))
    assert [costs(n) for n in (1, 2, 3, 4, 6)] == [1.0, 1.5, 1.75, 2.0, 2.5]
    chain = tree.from_chain(3)
    assert tree.expected_tokens(chain, [0.5]) == [1.0, 1.5, 1.75, 1.875]
    assert tree.autosize(chain, costs, [0.5]) == 1
    assert tree.autosize(chain, costs, [0.9]) == 4
    assert tree.autosize(chain, costs, [0.9], most=2) == 2
    calls = []
    measured = tree.measure_costs(calls.append, (1, 2), repeats=2)
    assert calls == [1, 1, 2, 1, 2] and measured(1) == 1.0
    for sizes, seconds in (((2, 3), (1.0, 1.0)), ((1, 1), (1.0, 1.0)), ((1,), (0.0,))):
        with pytest.raises(ValueError, match="StepCosts"):
            tree.StepCosts(sizes, seconds)


def test_a_sizer_follows_each_text():
    template = tree.likeliest(16)
    sizer = tree.Sizer(template, tree.StepCosts((1, 16), (1.0, 2.0)))
    start = sizer.size(0, 16)
    sizer.watch(0, [0] * 200)
    sizer.watch(1, [-1] * 200)
    assert sizer.size(0, 16) > start > sizer.size(1, 16) == 1
    assert sizer.size(0, 3) <= 3 and sizer.size(2, 16) == start
    sizer.reset(0)
    assert sizer.size(0, 16) == start
