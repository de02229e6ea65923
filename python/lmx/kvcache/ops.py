"""Typed faces of ``torch.ops.lmx.kv_*``.

Shared by all of them:

- ``kv_pages`` is one layer, ``[num_pages, 2, heads_per_page, page_size, head_dim]``, or all of
  them, ``[num_pages, num_layers, 2, heads_per_page, page_size, head_dim]``; float32, float16 or
  bfloat16, contiguous within a page of a layer. Index 0 of the axis of 2 is keys, 1 is values.
  ``heads_per_page`` is the number of key/value heads, or 1 where each head has pages of its own.
- A slot is ``page * page_size + offset``. Page 0 is the null page: no slot is in it.
- ``key`` and ``value`` are ``[num_tokens, num_kv_heads, head_dim]`` for one layer,
  ``[num_layers, num_tokens, num_kv_heads, head_dim]`` for all, contiguous in the last dimension.
- ``status``, int32, receives a bit per bad entry (``csrc/common/status.h``) instead of an
  exception. Nothing of a bad token, pair or sequence is written; the others are. Without it a CPU
  raises and writes nothing at all; CUDA leaves out what is bad without a word.

What is written twice by one call, or read and written, is not defined. Bits are moved, never
changed: NaN too.

Raises, all of them: RuntimeError where a shape, dtype, device or stride is wrong; ValueError where
a slot or page is out of its range and no ``status`` is given (CPU), or where autograd would need a
backward.
"""

from typing import Literal

import torch
from torch import Tensor

from .._faces import forbid_grad, written


def append(
    key: Tensor,
    value: Tensor,
    slot_mapping: Tensor,
    kv_pages: Tensor,
    *,
    scale: Tensor | None = None,
    meta_slots: Tensor | None = None,
    pos: Tensor | None = None,
    score: Tensor | None = None,
    meta_pos: Tensor | None = None,
    meta_score: Tensor | None = None,
    status: Tensor | None = None,
) -> None:
    """Store the keys and values of new tokens in their slots, of one layer or of all in one call.

    Args:
        key, value, kv_pages: see the module. Keys are stored as they are, never rotated.
        slot_mapping: int64; -1 = do not store. ``[num_tokens]`` where heads, and layers of a
            6-D pool, share a slot; ``[num_layers, num_tokens]`` where each layer has pages of its
            own in a 5-D pool; with another dimension ``num_kv_heads`` where each head has.
        scale: of quantised pools, which are not built yet; must be None.
        meta_slots: int64, of the shape of ``slot_mapping``: slots in the tables of positions and
            scores, which have a null page too; -1 = do not store.
        pos, meta_pos: int32 ``[num_tokens]`` and ``[num_meta_pages, page_size]``.
        score, meta_score: float32, of the shape of ``meta_slots`` and
            ``[num_meta_pages, page_size]``.
        status: int32 ``[num_tokens]``.

    Reference: ``lmx.kvcache.reference.append``.
    """
    forbid_grad("lmx.kvcache.append", key, value, kv_pages, score, meta_score)
    torch.ops.lmx.kv_append(
        key,
        value,
        slot_mapping,
        kv_pages,
        scale,
        meta_slots,
        pos,
        score,
        meta_pos,
        meta_score,
        status,
    )
    for tensor in (kv_pages, meta_pos, meta_score):
        if tensor is not None:
            written(tensor)


def copy_pages(src: Tensor, dst: Tensor, kv_pages: Tensor, *, status: Tensor | None = None) -> None:
    """Copy page ``src[i]`` to page ``dst[i]``.

    Args:
        src, dst: int32 ``[n]``, in ``[1, num_pages)``; no page is in ``dst`` twice, or in both.
        kv_pages: ``[num_pages, ...]`` of any dtype, contiguous within a page: a pool, or a table
            of positions or scores.
        status: int32 ``[n]``.

    Reference: ``lmx.kvcache.reference.copy_pages``.
    """
    forbid_grad("lmx.kvcache.copy_pages", kv_pages)
    torch.ops.lmx.kv_copy_pages(src, dst, kv_pages, status)
    written(kv_pages)


def swap_pages(
    page_ids: Tensor,
    kv_pages: Tensor,
    host_pages: Tensor,
    direction: Literal["out", "in"],
    *,
    status: Tensor | None = None,
) -> None:
    """Copy page ``page_ids[i]`` to page ``i`` of a host buffer, or back.

    Args:
        page_ids: int32 ``[n]``, in ``[1, num_pages)``, on the device of ``kv_pages``.
        kv_pages: ``[num_pages, ...]`` of any dtype, contiguous within a page.
        host_pages: ``[at least n, ...]`` of the same dtype and page shape, on the CPU; in pinned
            memory where ``kv_pages`` is on a GPU.
        direction: "out" writes ``host_pages``, "in" writes ``kv_pages``.
        status: int32 ``[n]``.

    Reference: ``lmx.kvcache.reference.swap_pages``.
    """
    forbid_grad("lmx.kvcache.swap_pages", kv_pages, host_pages)
    torch.ops.lmx.kv_swap_pages(page_ids, kv_pages, host_pages, direction, status)
    written(host_pages if direction == "out" else kv_pages)


def gather_slots(
    kv_pages: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    slots: Tensor,
    *,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the keys and values at logical slots of sequences, as packed tokens.

    Args:
        kv_pages: see the module.
        block_table: int32 ``[num_seqs, num_rows, max_pages]``: page ids in order. ``num_rows`` is
            1, or ``num_kv_heads`` where each head has pages of its own.
        num_slots: int32 ``[num_seqs, num_rows]``. Entries of pages behind the last slot, and
            entries that no slot needs, are not read.
        slots: int32 ``[num_seqs, num_rows, n]``, in ``[-1, num_slots)``; -1 gives zeros.
        status: int32 ``[num_seqs]``; all tokens of a bad sequence are zeros.

    Returns:
        key, value: ``[num_seqs * n, num_kv_heads, head_dim]``, for a 6-D pool with ``num_layers``
        before it: what `append` takes.

    Reference: ``lmx.kvcache.reference.gather_slots``.
    """
    forbid_grad("lmx.kvcache.gather_slots", kv_pages)
    return torch.ops.lmx.kv_gather_slots(kv_pages, block_table, num_slots, slots, status)


def scatter_slots(
    key: Tensor,
    value: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    slots: Tensor,
    kv_pages: Tensor,
    *,
    status: Tensor | None = None,
) -> None:
    """Write packed tokens to logical slots of sequences: the way back of `gather_slots`.

    Args:
        key, value: as `gather_slots` returns them.
        block_table, num_slots, slots, kv_pages: as there; -1 in ``slots`` = do not store.
        status: int32 ``[num_seqs]``; no token of a bad sequence is stored.

    Reference: ``lmx.kvcache.reference.scatter_slots``.
    """
    forbid_grad("lmx.kvcache.scatter_slots", key, value, kv_pages)
    torch.ops.lmx.kv_scatter_slots(key, value, block_table, num_slots, slots, kv_pages, status)
    written(kv_pages)
