"""Typed faces of ``torch.ops.lmx.attention_*``.

Heads are float32, bfloat16 or float16, of at most 256 elements, a multiple of 8. No op has a
backward.

Raises, all of them: RuntimeError where a shape, dtype, device or stride is wrong, or an argument
has a value that is not built yet; ValueError where a value is out of its range and no ``status`` is
given (CPU; CUDA does not look), or where autograd would need a backward.
"""

import torch
from torch import Tensor

from .._faces import forbid_grad


def paged(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    ancestors: Tensor | None,
    kv_pages: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    query_pos: Tensor,
    key_pos: Tensor,
    *,
    softmax_scale: float,
    max_q: int,
    max_slots: int,
    causal: bool = True,
    window: int = -1,
    num_sinks: int = 0,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    slot_pos: Tensor | None = None,
    slot_pos_table: Tensor | None = None,
    kv_scale: Tensor | None = None,
    key_keep: Tensor | None = None,
    part: str = "all",
    key_store: str = "post_rope",
    positions: str = "orig",
    clamp: int = 0,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    slot_rank: Tensor | None = None,
    query_rank: Tensor | None = None,
    transform: str = "softmax",
    transform_power: int = 15,
    transform_n: Tensor | None = None,
    row_weight: Tensor | None = None,
    lse_in: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend to the slots of a sequence in pages and to the fresh keys of this step.

    Rows of sequence ``b`` are ``[cu_seqlens[b], cu_seqlens[b + 1])``; rows from ``cu_seqlens[B]``
    on are neither read nor written. Without ``ancestors`` the query rows of a sequence are its last
    fresh rows, each of which sees the fresh keys up to its own (all of them where not ``causal``).

    Args:
        query: ``[Tq, num_heads, head_dim]``, contiguous in its last dimension.
        key, value: ``[Tk, num_kv_heads, head_dim]``, in the dtype of ``query``; at most 2,048 rows
            a sequence. Query head ``h`` reads key head ``h // (num_heads // num_kv_heads)``.
        cu_seqlens_q, cu_seqlens_k: int32 ``[B + 1]``, ascending from 0.
        ancestors: int32 ``[Tq, W]``; bit ``j`` (of word ``j // 32``, the least significant first)
            of row ``i`` says that row ``i`` sees the ``j``-th fresh key of its sequence.
        kv_pages: ``[num_pages, 2, num_kv_heads, page_size, head_dim]``, keys then values: one
            layer's view of the pool; contiguous in its last two dimensions. Page 0 is the null
            page. ``page_size`` is 8, 16, 32, 64 or 128.
        block_table: int32 ``[B, 1, M]``, page ids. Entries at or past ``ceil(num_slots /
            page_size)`` are not looked at.
        num_slots: int32 ``[B, 1]``, the number of slots in pages.
        query_pos, key_pos: int32 ``[Tq]``, ``[Tk]``: positions.
        softmax_scale: multiplies scores, usually ``head_dim ** -0.5``.
        max_q, max_slots: bounds of a sequence's query rows and slots; they never change a bit.
        causal: a key at a later position is not seen.
        window: a key is seen from fewer than ``window`` positions behind; negative: from any.
        num_sinks: keys at positions below it stay in sight of a window.
        softcap: scores become ``softcap * tanh(score / softcap)``; 0: they stay.
        alibi_slopes: float32 ``[num_heads]``; scores get ``-slope * distance``.
        slot_pos: int32 ``[num_pos_pages, page_size]``, the positions of slots; negative: the slot
            is dead. Without it the position of slot ``s`` is ``s``.
        slot_pos_table: int32 ``[B, 1, M]``, which row of ``slot_pos`` belongs to a page; 0: none,
            the positions of its slots are their indices.
        key_keep: bool ``[Tk, num_kv_heads]``; a fresh key that is not kept is seen by its own row
            alone (with ``ancestors``: the row that sees no later fresh key).
        part: ``"all"``; ``"prefix"``, the slots alone; ``"fresh"``, the fresh keys alone. `merge`
            joins the two.
        kv_scale, key_store, positions, clamp, cos, sin, slot_rank, query_rank, transform,
            transform_power, transform_n, row_weight, lse_in: not built yet; only the defaults.
        status: int32 ``[B]``, receives bits (``csrc/common/status.h``) of a bad sequence instead of
            an exception; its rows are 0, their lse ``-inf``.

    Returns:
        ``out [Tq, num_heads, head_dim]`` in the dtype of ``query``; ``lse [Tq, num_heads]``,
        float32, the natural log of the sum of exponentials; 0 and ``-inf`` where a row sees no key.
        ``column_prefix`` and ``column_fresh`` have no elements. A row's bits depend on its own
        sequence alone.

    Source: arXiv 2205.14135, section 3.1; arXiv 2309.06180, section 4.1.
    Reference: ``lmx.attention.reference.paged``.
    """
    forbid_grad("lmx.attention.paged", query, key, value, kv_pages)
    return torch.ops.lmx.attention_paged.default(
        query,
        key,
        value,
        cu_seqlens_q,
        cu_seqlens_k,
        ancestors,
        kv_pages,
        block_table,
        num_slots,
        query_pos,
        key_pos,
        softmax_scale=softmax_scale,
        causal=causal,
        window=window,
        num_sinks=num_sinks,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        slot_pos=slot_pos,
        slot_pos_table=slot_pos_table,
        kv_scale=kv_scale,
        key_keep=key_keep,
        part=part,
        key_store=key_store,
        positions=positions,
        clamp=clamp,
        cos=cos,
        sin=sin,
        slot_rank=slot_rank,
        query_rank=query_rank,
        transform=transform,
        transform_power=transform_power,
        transform_n=transform_n,
        row_weight=row_weight,
        lse_in=lse_in,
        max_q=max_q,
        max_slots=max_slots,
        status=status,
    )


def rope(
    query: Tensor,
    key: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    interleaved: bool = False,
    *,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rotate the first elements of query and key heads by the angles of their positions.

    Args:
        query, key: ``[T, heads, head_dim]``, contiguous in their last dimension.
        cos, sin: float32 ``[num_positions, rotary_dim / 2]``; elements from ``rotary_dim`` on pass
            unchanged.
        positions: int32 ``[T]``, in ``[0, num_positions)``.
        interleaved: pairs are elements ``(2i, 2i + 1)``, else ``(i, i + rotary_dim / 2)``.
        status: int32 ``[T]``, receives a bit for a bad position, whose rows are 0.

    Returns:
        Both, rotated, contiguous; computed in float32.

    Source: arXiv 2104.09864, equation 34.
    Reference: ``lmx.attention.reference.rope``.
    """
    forbid_grad("lmx.attention.rope", query, key)
    return torch.ops.lmx.attention_rope.default(
        query, key, cos, sin, positions, interleaved, status
    )


def merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Join attention over two disjoint sets of keys, as `paged` returns it.

    Args:
        out_a, out_b: ``[T, num_heads, head_dim]``, contiguous.
        lse_a, lse_b: float32 ``[T, num_heads]``; ``-inf``: no keys, the out is not looked at.

    Returns:
        ``out`` and ``lse`` over both; 0 and ``-inf`` where neither has keys.

    Source: arXiv 2501.01005, section 2.2.
    Reference: ``lmx.attention.reference.merge``.
    """
    forbid_grad("lmx.attention.merge", out_a, lse_a, out_b, lse_b)
    return torch.ops.lmx.attention_merge.default(out_a, lse_a, out_b, lse_b)
