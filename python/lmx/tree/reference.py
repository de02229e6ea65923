"""The room's ops in plain torch: slow, clear, safe in float64. Tests compare with these.

They take good trees: what bad ones get is tested apart.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_Walked = tuple[Tensor, Tensor, Tensor]


def _spans(indptr: Tensor) -> Iterator[tuple[int, int, int]]:
    bounds = indptr.tolist()
    yield from ((b, *bounds[b : b + 2]) for b in range(len(bounds) - 1))


def prepare(
    parents: Tensor, indptr: Tensor, max_nodes: int, *_unchecked: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``lmx.tree.prepare``."""
    depth = torch.zeros_like(parents)
    first_child, next_sibling = torch.full_like(parents, -1), torch.full_like(parents, -1)
    seen = torch.zeros(len(parents), -(-max_nodes // 32) * 32, dtype=torch.int64)
    for _, begin, end in _spans(indptr):
        last: dict[int, int] = {}  # a parent's latest child
        for i, parent in enumerate(parents[begin:end].tolist()):
            seen[begin + i, i] = 1
            if parent < 0:
                continue
            depth[begin + i] = depth[begin + parent] + 1
            seen[begin + i] += seen[begin + parent]
            if parent in last:
                next_sibling[begin + last[parent]] = i
            else:
                first_child[begin + parent] = i
            last[parent] = i
    words = (seen.view(len(parents), -(-max_nodes // 32), 32) << torch.arange(32)).sum(-1)
    return (
        depth,
        first_child,
        next_sibling,
        torch.where(words < 1 << 31, words, words - 2**32).int(),
    )


def _children(first_child: Tensor, next_sibling: Tensor, begin: int, node: int) -> Iterator[int]:
    child = int(first_child[begin + node])
    while child >= 0:
        yield child
        child = int(next_sibling[begin + child])


def _walked(num_seqs: int, max_depth: int, walks: dict[int, tuple[list[int], int]]) -> _Walked:
    """Pack paths without their roots and last tokens; `tokens` of accepted nodes come before."""
    path = torch.full((num_seqs, max_depth + 1), -1, dtype=torch.int32)
    length = torch.zeros(num_seqs, dtype=torch.int32)
    out = torch.full((num_seqs, max_depth + 1), -1, dtype=torch.int64)
    for b, (nodes, last) in walks.items():
        length[b] = len(nodes) - 1
        path[b, : len(nodes)] = torch.tensor(nodes, dtype=torch.int32)
        out[b, len(nodes) - 1] = last
    return path, length, out


def _fill_accepted(walked: _Walked, tokens: Tensor, indptr: Tensor) -> _Walked:
    path, length, out = walked
    for b, begin, _ in _spans(indptr):
        for j in range(int(length[b])):
            out[b, j] = tokens[begin + int(path[b, j + 1])]
    return walked


def verify_greedy(
    tokens: Tensor,
    indptr: Tensor,
    first_child: Tensor,
    next_sibling: Tensor,
    target_ids: Tensor,
    max_depth: int,
) -> _Walked:
    """See ``lmx.tree.verify_greedy``."""
    walks = {}
    for b, begin, end in _spans(indptr):
        nodes, wanted = [0], -1
        while end > begin:
            wanted = int(target_ids[begin + nodes[-1]])
            children = _children(first_child, next_sibling, begin, nodes[-1])
            match = next((c for c in children if tokens[begin + c] == wanted), None)
            if match is None or len(nodes) > max_depth or wanted < 0:
                walks[b] = nodes, wanted
                break
            nodes.append(match)
    walked = _walked(indptr.numel() - 1, max_depth, walks)
    return _fill_accepted(walked, tokens, indptr)


def verify_target(
    tokens: Tensor,
    indptr: Tensor,
    first_child: Tensor,
    next_sibling: Tensor,
    target_probs: Tensor,
    u_node: Tensor,
    u_final: Tensor,
    max_depth: int,
    threshold_single: float = 1.0,
    threshold_acc: float = 1.0,
) -> _Walked:
    """See ``lmx.tree.verify_target``; float64, so a draw within rounding of a border may differ."""
    walks = {}
    for b, begin, end in _spans(indptr):
        nodes = [0] if end > begin else []
        while nodes and b not in walks:
            row = begin + nodes[-1]
            p = target_probs[row].double()
            total, mass, coin = p.sum(), 0.0, u_node[row].double()
            rest, accepted = p.clone(), None
            for c in _children(first_child, next_sibling, begin, nodes[-1]):
                y = int(tokens[begin + c])
                if len(nodes) > max_depth or rest[y] != p[y]:  # the second of equal siblings
                    continue
                mass += float(p[y])
                rest[y] = -1.0
                is_single = threshold_single < 1 and p[y] >= threshold_single * total
                if coin * total < mass / threshold_acc or is_single:
                    accepted = c
                    break
            if accepted is not None:
                nodes.append(accepted)
                continue
            sums = rest.clamp(min=0).cumsum(0)
            drawn = int((sums <= u_final[b].double() * sums[-1]).sum()) if sums[-1] > 0 else -1
            walks[b] = nodes, drawn
    walked = _walked(indptr.numel() - 1, max_depth, walks)
    return _fill_accepted(walked, tokens, indptr)


def commit(
    path: Tensor,
    accept_length: Tensor,
    indptr: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    num_rows: int,
    page_size: int,
    num_pages: int,
) -> Tensor:
    """See ``lmx.tree.commit``."""
    slots = torch.full((block_table.shape[1], num_rows), -1, dtype=torch.int64)
    for b, begin, end in _spans(indptr):
        for j in range(int(accept_length[b]) + 1 if end > begin else 0):
            at = num_slots[b].long() + j  # [table_rows]
            page = block_table[b].gather(1, (at // page_size)[:, None])[:, 0].long()
            slots[:, begin + int(path[b, j])] = page * page_size + at % page_size
    return slots


def recycle_expand(
    matrix: Tensor,
    roots: Tensor,
    template_parent: Tensor,
    template_rank: Tensor,
    sizes: Tensor | None = None,
    matrix_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``lmx.tree.recycle_expand``; with the rows behind the last tree."""
    capacity, rows, indptr = len(roots) * len(template_parent), [], [0]
    for b, root in enumerate(roots.tolist()):
        own = int(matrix_ids[b]) if matrix_ids is not None else b if len(matrix) > 1 else 0
        kept: dict[int, tuple[int, int]] = {}  # node of the template -> its id here, its token
        for i in range(int(sizes[b]) if sizes is not None else len(template_parent)):
            above = int(template_parent[i])
            if i == 0 or above in kept:
                rank = int(template_rank[i])
                token = root if i == 0 else int(matrix[own, kept[above][1], rank])
                if token >= 0:
                    rows.append((token, -1 if i == 0 else kept[above][0], i))
                    kept[i] = len(kept), token
        indptr.append(len(rows))
    rows += [(-1, -1, -1)] * (capacity - len(rows))
    tokens, parents, nodes = torch.tensor(rows).reshape(-1, 3).long().unbind(1)
    return (
        tokens.contiguous(),
        parents.int(),
        torch.tensor(indptr, dtype=torch.int32),
        nodes.int(),
    )


def recycle_update(
    matrix: Tensor,
    tokens: Tensor,
    logits: Tensor,
    indptr: Tensor,
    path: Tensor | None = None,
    matrix_ids: Tensor | None = None,
) -> None:
    """See ``lmx.tree.recycle_update``."""
    k = matrix.shape[2]
    for is_second in (False, True):  # rows on the path are written last
        for b, begin, end in _spans(indptr):
            own = int(matrix_ids[b]) if matrix_ids is not None else b if len(matrix) > 1 else 0
            on_path = [] if path is None else path[b].tolist()
            for row in range(begin, end):
                if (row - begin in on_path) != is_second:
                    continue
                x = logits[row].double()
                x = torch.where(x.isnan(), -torch.inf, x)
                value, ids = torch.sort(x, descending=True, stable=True)
                best = torch.where(value[:k] == -torch.inf, -1, ids[:k]).int()
                matrix[own, tokens[row]] = torch.nn.functional.pad(
                    best, (0, k - len(best)), value=-1
                )
