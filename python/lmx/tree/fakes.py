"""Shapes and dtypes of the room's ops, for ``torch.compile`` and export."""

import torch
from torch import Tensor
from torch.library import register_fake

_I32, _I64 = torch.int32, torch.int64


@register_fake("lmx::tree_prepare")
def _prepare(
    parents: Tensor,
    indptr: Tensor,
    max_nodes: int,
    tokens: Tensor | None = None,
    vocab_size: int = 0,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    depth, first_child, next_sibling = (torch.empty_like(parents) for _ in range(3))
    ancestors = parents.new_empty(parents.shape[0], (max_nodes + 31) // 32)
    return depth, first_child, next_sibling, ancestors


def _walk(like: Tensor, indptr: Tensor, max_depth: int) -> tuple[Tensor, Tensor, Tensor]:
    num_seqs = indptr.shape[0] - 1
    return (
        like.new_empty(num_seqs, max_depth + 1, dtype=_I32),
        like.new_empty(num_seqs, dtype=_I32),
        like.new_empty(num_seqs, max_depth + 1, dtype=_I64),
    )


@register_fake("lmx::tree_verify_greedy")
def _verify_greedy(
    tokens: Tensor,
    indptr: Tensor,
    first_child: Tensor,
    next_sibling: Tensor,
    target_ids: Tensor,
    max_depth: int,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _walk(tokens, indptr, max_depth)


@register_fake("lmx::tree_verify_target")
def _verify_target(
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
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _walk(tokens, indptr, max_depth)


@register_fake("lmx::tree_commit")
def _commit(
    path: Tensor,
    accept_length: Tensor,
    indptr: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    num_rows: int,
    page_size: int,
    num_pages: int,
    status: Tensor | None = None,
) -> Tensor:
    return path.new_empty(block_table.shape[1], num_rows, dtype=_I64)


@register_fake("lmx::tree_recycle_expand")
def _recycle_expand(
    matrix: Tensor,
    roots: Tensor,
    template_parent: Tensor,
    template_rank: Tensor,
    sizes: Tensor | None = None,
    matrix_ids: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_seqs = roots.shape[0]
    rows = num_seqs * template_parent.shape[0]
    return (
        matrix.new_empty(rows, dtype=_I64),
        matrix.new_empty(rows),
        matrix.new_empty(num_seqs + 1),
        matrix.new_empty(rows),
    )


@register_fake("lmx::tree_recycle_update")
def _recycle_update(
    matrix: Tensor,
    tokens: Tensor,
    logits: Tensor,
    indptr: Tensor,
    path: Tensor | None = None,
    matrix_ids: Tensor | None = None,
    status: Tensor | None = None,
) -> None:
    return None
