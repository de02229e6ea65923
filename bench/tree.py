"""Benches of lmx.tree at the published tree of 81 nodes and SmolLM2's vocabulary.

All but one op are bound by latency: their times are to be held against a step of the model, which
takes tens of milliseconds at best. Reading 81 rows of logits is what the room costs.
"""

import torch
from torch import Tensor

from lmx import tree, vocab
from lmx.tree import reference

from .inputs import ROTATE_BYTES
from .measure import Measure
from .race import Rotation
from .roof import Traffic

VOCAB = 49_152
TEMPLATE = tree.token_recycling()
NODES = TEMPLATE.num_nodes


def vocab_size(smoke: bool) -> int:
    return 1_003 if smoke else VOCAB


def one_tree() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """indptr, depth, first_child, next_sibling."""
    indptr = torch.tensor([0, NODES], dtype=torch.int32)
    depth, first, following, _ = tree.prepare(TEMPLATE.parents, indptr, NODES)
    return indptr, depth, first, following


def many(make: Tensor) -> Rotation:
    """Rows of small inputs; the caches hold them, as they do in a step."""
    return Rotation(NODES, make)


def logits_rotation(smoke: bool) -> Rotation:
    """Rows of logits for 81 nodes, together larger than any cache."""
    size = vocab_size(smoke)
    steps = 2 if smoke else max(2, ROTATE_BYTES // (NODES * size * 4))
    return Rotation(NODES, torch.randn(steps * NODES, size))


def test_prepare(measure: Measure) -> None:
    indptr, *_ = one_tree()
    parents = TEMPLATE.parents

    def closure(_: Tensor) -> Tensor:
        """Ancestors by repeated squaring of the parent relation, and nothing else."""
        above = torch.eye(NODES, dtype=torch.bool)
        above[torch.arange(1, NODES), parents[1:].long()] = True
        for _ in range(3):
            above = (above.float() @ above.float()) > 0
        return above

    measure(
        lambda _: tree.prepare(parents, indptr, NODES),
        many(torch.zeros(8 * NODES)),
        baseline={"ancestors by products": closure},
    )


def test_verify_greedy(measure: Measure) -> None:
    indptr, depth, first, following = one_tree()
    tokens = torch.randint(30, (8 * NODES,))
    target = torch.randint(30, (NODES,))
    deepest = int(depth.max())

    def by_mask(tokens: Tensor) -> Tensor:
        """Levels of the tree as tensors, without a loop over nodes."""
        alive = torch.ones(NODES, dtype=torch.bool)
        parents = TEMPLATE.parents.long()
        matches = tokens == target[parents.clamp(min=0)]
        for _ in range(deepest):
            alive = (matches & alive[parents.clamp(min=0)]) | (parents < 0)
        return (depth * alive).argmax()

    measure(
        lambda t: tree.verify_greedy(t, indptr, first, following, target, deepest),
        many(tokens),
        baseline={"masks": by_mask},
    )


def test_verify_target(measure: Measure, smoke: bool) -> None:
    """The walk reads the rows that it comes by: here two of 81."""
    indptr, depth, first, following = one_tree()
    size = vocab_size(smoke)
    probs = logits_rotation(smoke)
    tokens = torch.randint(size, (NODES,))
    coins, final = torch.full((NODES,), 0.5), torch.tensor([0.3])
    walk = (tokens, indptr, first, following)
    deepest = int(depth.max())

    def plain(x: Tensor) -> Tensor:
        """One draw from the root's row: what a step without drafts does."""
        return torch.multinomial(x[0].abs(), 1)

    measure(
        lambda x: tree.verify_target(*walk, x.abs_(), coins, final, deepest),
        probs,
        baseline={"abs, one multinomial": lambda x: plain(x.abs_())},
    )


def test_commit(measure: Measure) -> None:
    indptr, *_ = one_tree()
    path = torch.tensor([[0, 1, 9, 30, -1, -1, -1]], dtype=torch.int32)
    length = torch.tensor([3], dtype=torch.int32)
    table = torch.arange(1, 257, dtype=torch.int32)[None, None]
    slots = torch.tensor([[1000]], dtype=torch.int32)
    options = {"num_rows": NODES, "page_size": 16, "num_pages": 257}

    def scatter(_: Tensor) -> Tensor:
        at = slots[0, 0].long() + torch.arange(4)
        out = torch.full((NODES,), -1)
        out[path[0, :4].long()] = table[0, 0][at // 16].long() * 16 + at % 16
        return out

    measure(
        lambda _: tree.commit(path, length, indptr, table, slots, **options),
        many(torch.zeros(8 * NODES)),
        baseline={"index, scatter": scatter},
    )


def matrix_of(smoke: bool) -> Tensor:
    size = vocab_size(smoke)
    return torch.randint(size, (1, size, 8), dtype=torch.int32)


def test_recycle_expand(measure: Measure, smoke: bool) -> None:
    matrix = matrix_of(smoke)
    roots = torch.randint(vocab_size(smoke), (64,))
    parents, ranks = TEMPLATE.parents, TEMPLATE.ranks
    depth = torch.tensor([len(path) for path in TEMPLATE.paths])
    levels = [(depth == level).nonzero()[:, 0] for level in range(1, 7)]

    def by_level(root: Tensor) -> Tensor:
        """All six levels by gathers, without dropping what has no candidate."""
        tokens = torch.empty(NODES, dtype=torch.int64)
        tokens[0] = root[0]
        for level in levels:
            tokens[level] = matrix[0, tokens[parents[level].long()], ranks[level].long()].long()
        return tokens

    measure(
        lambda root: tree.recycle_expand(matrix, root, parents, ranks),
        Rotation(1, roots),
        baseline={"gathers": by_level},
    )


def test_recycle_update(measure: Measure, smoke: bool) -> None:
    matrix, tokens = matrix_of(smoke), torch.randperm(1_000)[:NODES]
    indptr = torch.tensor([0, NODES], dtype=torch.int32)

    def topk(logits: Tensor) -> None:
        matrix[0, tokens] = logits.topk(8).indices.int()

    measure(
        lambda x: tree.recycle_update(matrix, tokens, x, indptr),
        logits_rotation(smoke),
        bytes_moved=Traffic(read=NODES * vocab_size(smoke) * 4),
        baseline={"topk, index_put": topk},
    )


def test_references_agree() -> None:
    """What is timed is what is tested: the published tree, by op and by reference."""
    indptr, depth, first, following = one_tree()
    expected = reference.prepare(TEMPLATE.parents, indptr, NODES)
    for ours, theirs in zip((depth, first, following), expected, strict=False):
        assert torch.equal(ours, theirs)
    logits = torch.randn(NODES, 50)
    assert torch.equal(vocab.argmax(logits), logits.argmax(-1))
