"""Draft trees: how they are made, merged and cut, and the forms that others take them in."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..protocols import DraftTree
from . import ops

_I32 = torch.int32


class Retrieve(NamedTuple):
    """A batch of trees as SGLang's kernels and grammar walkers take it, -1 behind a tree's end."""

    row: Tensor  # [B, N], int32: the node's row, b * N + i
    next_token: Tensor  # [B, N], int32: the first child
    next_sibling: Tensor  # [B, N], int32


def from_tokens(pending: Tensor, drafts: Sequence[Sequence[int]]) -> DraftTree:
    """Return a chain per sequence: its pending token, then the drafted ones.

    Args:
        pending: ``[B]``, int64.
        drafts: B lists of tokens, any of them empty.
    """
    roots, sizes = pending.tolist(), [1 + len(draft) for draft in drafts]
    if len(roots) != len(drafts):
        raise ValueError(f"from_tokens: expected {len(roots)} drafts, got {len(drafts)}")
    tokens = [t for root, draft in zip(roots, drafts, strict=True) for t in (root, *draft)]
    parents = [i - 1 for size in sizes for i in range(size)]
    return DraftTree(
        tokens=torch.tensor(tokens, dtype=torch.int64, device=pending.device),
        parents=torch.tensor(parents, dtype=_I32, device=pending.device),
        indptr=_indptr(sizes, pending.device),
    )


def from_padded(pending: Tensor, tokens: Tensor, parents: Tensor) -> DraftTree:
    """Return trees from padded rows, as n-gram drafters give them.

    Args:
        pending: ``[B]``, int64: the roots.
        tokens: ``[B, N]``, int64; -1 is padding.
        parents: ``[B, N]``, int32: the index of the parent in the row, -1 = the pending token.

    Raises:
        ValueError: a parent is padding, or not before its node.
    """
    num_seqs, width = tokens.shape
    is_node = tokens >= 0
    local = is_node.cumsum(1)  # of a node: its id, the root's being 0
    above = parents.long()
    nearest = above.clamp(0, max(width - 1, 0))
    is_good = (above < torch.arange(width, device=above.device)) & (above >= -1)
    is_good &= (above < 0) | is_node.gather(1, nearest)
    if bad := (is_node & ~is_good).nonzero().tolist():
        b, i = bad[0]
        raise ValueError(
            f"from_padded: expected the parent of a node to be a node before it, or -1, got "
            f"parents[{b}, {i}] = {int(parents[b, i])}"
        )
    root = torch.ones(num_seqs, 1, dtype=torch.bool, device=tokens.device)
    used = torch.cat((root, is_node), 1)
    linked = torch.where(above < 0, 0, local.gather(1, nearest)).to(_I32)
    return DraftTree(
        tokens=torch.cat((pending[:, None], tokens), 1)[used],
        parents=torch.cat((linked.new_full((num_seqs, 1), -1), linked), 1)[used],
        indptr=_indptr(used.sum(1).tolist(), tokens.device),
    )


def from_mask(mask: Tensor) -> Tensor:
    """Return the parents, int32 ``[n]``, of the tree with this attention mask.

    Args:
        mask: bool ``[n, n]``; ``mask[i, j]`` says that node ``i`` is ``j`` or below it.

    Raises:
        ValueError: no tree has it.
    """
    size = mask.shape[0]
    if mask.dtype != torch.bool or mask.shape != (size, size):
        raise ValueError(f"from_mask: expected bool [n, n], got {mask.dtype} {list(mask.shape)}")
    eye = torch.eye(size, dtype=torch.bool, device=mask.device)
    above = mask & ~eye
    place = torch.arange(size, device=mask.device)
    parents = torch.where(above, place, -1).amax(1) if size else place
    same = torch.where((parents >= 0)[:, None], mask[parents] | eye, eye)
    is_root = parents < 0
    bad = (same != mask).any(1) | (parents >= place) | (is_root != (place == 0))
    if bad.any():
        node = int(bad.nonzero()[0])
        raise ValueError(f"from_mask: no tree has this mask: row {node} is not its parent's row")
    return parents.to(_I32)


def to_dense_mask(tree: DraftTree) -> Tensor:
    """Return bool ``[B, N, N]``, N nodes of the largest tree: whether node i is j or below it."""
    sizes = tree.indptr.diff()
    width = int(sizes.max()) if sizes.numel() else 0
    *_, words = ops.prepare(tree.parents, tree.indptr, width)
    bits = words[..., None] >> torch.arange(32, dtype=_I32, device=words.device) & 1
    rows = bits.bool().flatten(1)[:, :width]
    mask = rows.new_zeros(sizes.numel(), width, width)
    mask[_places(tree)] = rows[: int(tree.indptr[-1])]
    return mask


def to_retrieve(tree: DraftTree) -> Retrieve:
    """Return the links of a batch of trees, padded to the largest."""
    sizes = tree.indptr.diff()
    width = int(sizes.max()) if sizes.numel() else 0
    _, first_child, next_sibling, _ = ops.prepare(tree.parents, tree.indptr, width)
    index = first_child.new_full((sizes.numel(), width), -1)
    where, used = _places(tree), int(tree.indptr[-1])
    padded = Retrieve(index, index.clone(), index.clone())
    padded.row[where] = (where[0] * width + where[1]).to(_I32)
    padded.next_token[where] = first_child[:used]
    padded.next_sibling[where] = next_sibling[:used]
    return padded


def merge(trees: Sequence[DraftTree]) -> DraftTree:
    """Unite several drafts of the same sequences: equal children of a node become one.

    Children keep the order in which they come first. Only for deterministic drafts: a stochastic
    verifier counts on how each sibling was drawn.

    Raises:
        ValueError: there is none, a draft is stochastic or carries hidden rows, or roots differ.
    """
    if not trees or any(t.kind != "deterministic" or t.hidden is not None for t in trees):
        raise ValueError("merge: expected one or more deterministic trees without hidden rows")
    if any(t.indptr.numel() != trees[0].indptr.numel() for t in trees):
        raise ValueError("merge: expected trees of the same number of sequences")
    tokens: list[int] = []
    parents: list[int] = []
    sizes: list[int] = []
    drafts = [(t.tokens.tolist(), t.parents.tolist(), t.indptr.tolist()) for t in trees]
    for b in range(trees[0].indptr.numel() - 1):
        ids: dict[tuple[int, int], int] = {}  # parent and token -> node
        for draft_tokens, draft_parents, indptr in drafts:
            local: list[int] = []
            for row in range(indptr[b], indptr[b + 1]):
                above = draft_parents[row]
                key = (local[above] if above >= 0 else -1, draft_tokens[row])
                if key not in ids:
                    if key[0] < 0 and ids:
                        raise ValueError(f"merge: sequence {b} has different roots")
                    ids[key] = len(ids)
                    tokens.append(key[1])
                    parents.append(key[0])
                local.append(ids[key])
        sizes.append(len(ids))
    device = trees[0].tokens.device
    return DraftTree(
        tokens=torch.tensor(tokens, dtype=torch.int64, device=device),
        parents=torch.tensor(parents, dtype=_I32, device=device),
        indptr=_indptr(sizes, device),
    )


def prune(tree: DraftTree, keep: Tensor) -> tuple[DraftTree, Tensor]:
    """Drop nodes, and all that hang below them; roots stay.

    Lossless for deterministic trees: what is dropped may depend on anything but the random numbers
    of the step.

    Args:
        tree: a batch of trees.
        keep: bool ``[T]``.

    Returns:
        The trees, and which rows are left, bool ``[T]``.
    """
    root, above = _rows_above(tree)
    alive = keep[: root.numel()] | root
    for _ in range(root.numel()):
        below = alive & (alive[above] | root)
        if torch.equal(below, alive):
            break
        alive = below
    count = torch.nn.functional.pad(alive.cumsum(0), (1, 0))
    local = count[:-1] - count[tree.indptr[:-1].long()].repeat_interleave(tree.indptr.diff().long())
    parents = torch.where(root, -1, local[above]).to(_I32)
    pruned = DraftTree(
        tokens=tree.tokens[: root.numel()][alive],
        parents=parents[alive],
        indptr=count[tree.indptr.long()].to(_I32),
        kind=tree.kind,
        probs=None if tree.probs is None else tree.probs[: root.numel()][alive],
    )
    return pruned, alive


def reorder_dfs(tree: DraftTree) -> Tensor:
    """Return the rows of each tree in preorder, siblings in their order: int64 ``[T]``.

    Worth doing for trees of 256 nodes and more, whose masks become nearly block diagonal.
    """
    parents, order = tree.parents.tolist(), []
    for begin, end in pairwise(tree.indptr.tolist()):
        children: list[list[int]] = [[] for _ in range(begin, end)]
        for i in range(end - begin - 1, 0, -1):
            children[parents[begin + i]].append(i)  # last sibling first
        stack = [0] if end > begin else []
        while stack:
            node = stack.pop()
            order.append(begin + node)
            stack += children[node]
    return torch.tensor(order, dtype=torch.int64, device=tree.tokens.device)


def _indptr(sizes: Sequence[int], device: torch.device) -> Tensor:
    bounds = [0]
    for size in sizes:
        bounds.append(bounds[-1] + size)
    return torch.tensor(bounds, dtype=_I32, device=device)


def _places(tree: DraftTree) -> tuple[Tensor, Tensor]:
    """Sequence and local id of each row."""
    sizes = tree.indptr.diff().long()
    seq = torch.arange(sizes.numel(), device=sizes.device).repeat_interleave(sizes)
    return seq, torch.arange(seq.numel(), device=sizes.device) - tree.indptr.long()[seq]


def _rows_above(tree: DraftTree) -> tuple[Tensor, Tensor]:
    """Whether a row is a root, and its parent's row, its own for a root."""
    seq, _ = _places(tree)
    parents = tree.parents[: seq.numel()].long()
    root = parents < 0
    above = torch.where(root, torch.arange(seq.numel(), device=seq.device), 0)
    return root, torch.where(root, above, parents + tree.indptr.long()[seq])
