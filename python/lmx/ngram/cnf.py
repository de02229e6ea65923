"""Conjunctions of alternatives: strings that occur near each other.

Each clause is a list of strings, any of which will do. Windows ``[l, r]`` begin as the occurrences
of the rarest clause. For each next clause a window grows to the last occurrence before its end and
to the first at or behind its beginning, each where that is in the same document and at most
``max_diff_tokens`` away; a window with neither is dropped. The count is the number of windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .index import Index

Clauses = Sequence[Sequence[Sequence[int]]]


@dataclass(frozen=True)
class CnfResult:
    """Windows by shard, ``[n, 2]`` each; ``count`` is scaled up where clauses were sampled."""

    count: int
    approx: bool
    windows: list[Tensor]


def check_clauses(clauses: Clauses) -> None:
    """Raise ValueError for an empty conjunction, clause or string."""
    if not clauses or not all(clause and all(len(s) for s in clause) for clause in clauses):
        raise ValueError("lmx.ngram: expected clauses of strings of tokens, none of them empty")


def count_cnf(
    index: "Index", clauses: Clauses, max_clause_freq: int, max_diff_tokens: int, seed: int
) -> CnfResult:
    """See ``Index.count_cnf``."""
    check_clauses(clauses)
    if max_clause_freq < 1 or max_diff_tokens < 1:
        raise ValueError("lmx.ngram: expected max_clause_freq >= 1 and max_diff_tokens >= 1")
    occurrences = [_sampled(index, clause, max_clause_freq, seed) for clause in clauses]
    occurrences.sort(key=lambda found: found[1])
    scale = 1.0
    for _, total, kept in occurrences:
        scale *= total / kept if kept else 1.0
    windows = []
    for shard in range(len(index.tensors.shards)):
        first = occurrences[0][0][shard]
        found = torch.stack([first, first], -1)
        for positions, _, _ in occurrences[1:]:
            found = _grow(found, positions[shard], max_diff_tokens)
        left, right = (column.contiguous() for column in found.unbind(-1))
        inside = index.documents_at(shard, left) == index.documents_at(shard, right)
        windows.append(found[inside])
    count = sum(len(w) for w in windows)
    approx = any(total != kept for _, total, kept in occurrences)
    return CnfResult(round(count * scale), approx, windows)


def _sampled(
    index: "Index", clause: Sequence[Sequence[int]], limit: int, seed: int
) -> tuple[list[Tensor], int, int]:
    """A clause's positions by shard, ascending; how many there are, and how many were kept."""
    rng, counts = index.find([list(s) for s in clause])
    total, kept = int(counts.sum()), 0
    found: list[list[Tensor]] = [[] for _ in index.tensors.shards]
    for string, ranges in enumerate(rng.tolist()):
        for shard, (lo, hi) in enumerate(ranges):
            size = hi - lo
            if total > limit:  # a contiguous slice of the ranks
                size = max(1, size * limit // total) if size else 0
                generator = torch.Generator().manual_seed(seed * 1_000_003 + string)
                lo += (
                    int(torch.randint(hi - lo - size + 1, (1,), generator=generator)) if size else 0
                )
            found[shard].append(index._pointers(shard, lo, lo + size))
            kept += size
    return [torch.cat(parts).sort().values for parts in found], total, kept


def _grow(windows: Tensor, positions: Tensor, most: int) -> Tensor:
    if not len(positions) or not len(windows):
        return windows[:0]
    left, right = (column.contiguous() for column in windows.unbind(-1))
    before = torch.searchsorted(positions, right) - 1  # the last one before the end
    behind = torch.searchsorted(positions, left)  # the first at or behind the beginning
    a = positions[before.clamp(min=0)]
    b = positions[behind.clamp(max=len(positions) - 1)]
    to_left = (before >= 0) & (left - a <= most)
    to_right = (behind < len(positions)) & (b - right <= most)
    grown_left = torch.where(to_left, torch.minimum(left, a), left)
    grown_right = torch.where(to_right, torch.maximum(right, b), right)
    return torch.stack([grown_left, grown_right], -1)[to_left | to_right]


def documents_of_cnf(index: "Index", clauses: Clauses) -> list[int]:
    """See ``Index.docs``."""
    check_clauses(clauses)
    kept: set[int] | None = None
    for clause in clauses:
        here: set[int] = set()
        for string in clause:
            for shard, positions in enumerate(index.positions(string)):
                here.update(index.documents_at(shard, positions).tolist())
        kept = here if kept is None else kept & here
    return sorted(kept or ())
