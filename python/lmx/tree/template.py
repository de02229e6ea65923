"""Templates of draft trees: which candidate of its parent's token each node is."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A tree of ranks; node 0 is the root.

    Raises:
        ValueError: it is no tree.
    """

    parents: Tensor  # [n], int32: -1, then 0 <= parents[i] < i
    ranks: Tensor  # [n], int32: rank among the candidates after the parent's token; the root's is 0

    def __post_init__(self) -> None:
        """Check that it is a tree."""
        size, place = self.parents.numel(), torch.arange(self.parents.numel())
        shapes = [list(t.shape) for t in (self.parents, self.ranks)]
        types = {self.parents.dtype, self.ranks.dtype}
        if types != {torch.int32} or shapes != [[size]] * 2 or not 1 <= size <= 1024:
            raise ValueError(
                f"Template: expected parents and ranks int32 [1 .. 1024], got {types} of {shapes}"
            )
        bad = (self.parents >= place) | (self.parents < 0) | (self.ranks < 0)
        bad[0] = self.parents[0] != -1
        if bad.any():
            node = int(bad.nonzero()[0])
            raise ValueError(
                f"Template: no tree: node {node} has parent {int(self.parents[node])} and rank "
                f"{int(self.ranks[node])}"
            )

    @property
    def num_nodes(self) -> int:
        """Return the nodes, the root included."""
        return self.parents.numel()

    @property
    def paths(self) -> list[tuple[int, ...]]:
        """Return the ranks from the root to each node."""
        found: list[tuple[int, ...]] = []
        for parent, rank in zip(self.parents.tolist(), self.ranks.tolist(), strict=True):
            found.append(() if parent < 0 else (*found[parent], rank))
        return found

    def to(self, device: torch.device) -> "Template":
        """Return it on another device."""
        return Template(self.parents.to(device), self.ranks.to(device))


def from_paths(paths: Sequence[Sequence[int]]) -> Template:
    """Return the template whose nodes, behind the root, are these paths of ranks, in this order.

    Raises:
        ValueError: a path is empty or listed twice, or the path above it is not listed before it.
    """
    ids: dict[tuple[int, ...], int] = {(): 0}
    parents, ranks = [-1], [0]
    for path in map(tuple, paths):
        if path in ids or path[:-1] not in ids:
            what = "is listed twice" if path in ids else "comes before the path above it"
            raise ValueError(f"from_paths: no tree: {list(path)} {what}")
        ids[path] = len(ids)
        parents.append(ids[path[:-1]])
        ranks.append(path[-1])
    i32 = torch.int32
    return Template(torch.tensor(parents, dtype=i32), torch.tensor(ranks, dtype=i32))


def from_chain(length: int) -> Template:
    """Return the chain of ``length`` nodes behind the root, each its parent's best candidate."""
    return from_paths([(0,) * depth for depth in range(1, length + 1)])


# The 80 nodes of Token Recycling (Luo et al. 2024, arXiv 2408.08696), "2.2.2": ranks along a path.
_TOKEN_RECYCLING = """
0 1 2 3 4 5 6 7
00 01 02 03 04 05 06 07 10 11 12 13 20 21 22 30 31 40 50 60 70
000 001 002 003 004 005 006 007 010 011 012 020 021 030 040 050 060 070 100 101 110 200 300 400 500
0000 0001 0002 0003 0004 0010 0011 0020 0030 0040 0100 0200 1000 2000 3000
00000 00001 00002 00010 00020 00100 01000 10000
000000 000001 000100
"""


@cache
def token_recycling() -> Template:
    """Return the published template of 80 nodes behind the root."""
    return from_paths([tuple(map(int, path)) for path in _TOKEN_RECYCLING.split()])


# How often the next token is candidate 0, 1, ... of the token before it, if that has candidates, in
# text that SmolLM2-135M-Instruct writes: tools/rank_probabilities.py.
RANK_PROBABILITIES = (0.435, 0.1, 0.066, 0.024, 0.021, 0.021, 0.021, 0.021)


@cache
def likeliest(size: int, probabilities: tuple[float, ...] = RANK_PROBABILITIES) -> Template:
    """Return the template of the ``size`` likeliest nodes, the likeliest first.

    A node is as likely as the product of its ranks' probabilities. The template of n nodes is the
    start of every larger one.

    Args:
        size: nodes, the root included, 1 to 1,024.
        probabilities: of each rank, not rising.
    """
    order: list[tuple[float, tuple[int, ...]]] = [(1.0, ())]
    heap: list[tuple[float, tuple[int, ...]]] = [
        (-probabilities[0], (0,))
    ]  # of every node whose parent and elder sibling are taken
    while len(order) < size:
        negative, path = heapq.heappop(heap)
        order.append((-negative, path))
        rank = path[-1]
        heapq.heappush(heap, (negative * probabilities[0], (*path, 0)))
        if rank + 1 < len(probabilities):
            sibling = negative / probabilities[rank] * probabilities[rank + 1]
            heapq.heappush(heap, (sibling, (*path[:-1], rank + 1)))
    return from_paths([path for _, path in order[1:]])
