"""The room's ops in plain torch: slow, clear, in float64. Tests compare with these."""

import torch
from torch import Tensor


def slots_of(
    b: int,
    kv_pages: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    slot_pos: Tensor | None = None,
    slot_pos_table: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values ``[slots, num_kv_heads, head_dim]`` of a sequence, and their positions."""
    count, page_size = int(num_slots[b, 0]), kv_pages.shape[3]
    pages = block_table[b, 0, : -(-count // page_size)].long()
    rows = kv_pages[pages].permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :count]
    pos = torch.arange(len(pages) * page_size).view(-1, page_size)
    if slot_pos is not None and slot_pos_table is not None:
        table = slot_pos_table[b, 0, : len(pages)].long()
        pos = torch.where(table[:, None] > 0, slot_pos[table].long(), pos)
    return rows[0], rows[1], pos.flatten()[:count]


def fresh_sight(num_q: int, num_k: int, ancestors: Tensor | None, causal: bool) -> Tensor:
    """Bool ``[num_q, num_k]``: which row may see which fresh key, positions apart."""
    if ancestors is not None:
        bits = ancestors[..., None] >> torch.arange(32, dtype=torch.int32) & 1
        return bits.bool().flatten(1)[:, :num_k]
    ones = torch.ones(num_q, num_k, dtype=torch.bool)
    return ones.tril(num_k - num_q) if causal else ones


def own_key(num_q: int, num_k: int, sight: Tensor, ancestors: Tensor | None) -> Tensor:
    """Bool ``[num_q, num_k]``: the fresh key that is the row itself."""
    ids = torch.arange(num_k)
    if ancestors is None:
        return ids == torch.arange(num_k - num_q, num_k)[:, None]
    return ids == torch.where(sight, ids, -1).amax(1, keepdim=True) if num_k else sight


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
    causal: bool = True,
    window: int = -1,
    num_sinks: int = 0,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    slot_pos: Tensor | None = None,
    slot_pos_table: Tensor | None = None,
    key_keep: Tensor | None = None,
    part: str = "all",
    max_q: int = 0,
    max_slots: int = 0,
) -> tuple[Tensor, Tensor]:
    """See ``lmx.attention.paged``; out and lse in float64."""
    num_heads, group = query.shape[1], query.shape[1] // key.shape[1]
    out = torch.zeros(query.shape, dtype=torch.float64)
    lse = torch.full(query.shape[:2], -torch.inf, dtype=torch.float64)
    for b in range(len(cu_seqlens_q) - 1):
        rows = slice(int(cu_seqlens_q[b]), int(cu_seqlens_q[b + 1]))
        fresh = slice(int(cu_seqlens_k[b]), int(cu_seqlens_k[b + 1]))
        num_q, num_k = rows.stop - rows.start, fresh.stop - fresh.start
        words = ancestors[rows] if ancestors is not None else None
        sight = fresh_sight(num_q, num_k, words, causal)[:, None].expand(-1, num_heads, -1)
        if key_keep is not None:
            kept = key_keep[fresh].T.repeat_interleave(group, 0)
            sight = sight & (kept | own_key(num_q, num_k, sight[:, 0], words)[:, None])
        k, v, pos = slots_of(b, kv_pages, block_table, num_slots, slot_pos, slot_pos_table)
        if part == "fresh":
            k, v, pos = k[:0], v[:0], pos[:0]
        live = (pos >= 0)[None, None].expand(num_q, num_heads, -1)
        if part != "prefix":
            k, v = torch.cat((k, key[fresh])), torch.cat((v, value[fresh]))
            pos, live = torch.cat((pos, key_pos[fresh])), torch.cat((live, sight), 2)
        distance = query_pos[rows, None].long() - pos.long()
        near = torch.ones_like(distance, dtype=torch.bool) if window < 0 else distance < window
        allowed = (near | (pos < num_sinks)) & ((distance >= 0) | (not causal))
        seen = live & allowed[:, None]
        k, v = (t.double().repeat_interleave(group, 1) for t in (k, v))
        x = torch.einsum("qhd,khd->qhk", query[rows].double(), k) * softmax_scale
        if softcap > 0:
            x = softcap * (x / softcap).tanh()
        if alibi_slopes is not None:
            x = x - alibi_slopes.double()[:, None] * distance[:, None]
        x = x.masked_fill(~seen, -torch.inf)
        lse[rows] = x.logsumexp(-1)
        weights = (x - lse[rows, :, None]).exp().masked_fill(~seen, 0.0)
        v = v.masked_fill(~seen.any(0).T[..., None], 0.0)  # what nobody sees may be NaN
        out[rows] = torch.einsum("qhk,khd->qhd", weights, v)
    return out, lse


def rope(
    query: Tensor,
    key: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    """See ``lmx.attention.rope``."""
    c, s = (table[positions.long(), None] for table in (cos, sin))
    half = cos.shape[1]

    def rotated(heads: Tensor) -> Tensor:
        turned, rest = heads.float().split((2 * half, heads.shape[2] - 2 * half), -1)
        pairs = turned.unflatten(-1, (half, 2) if interleaved else (2, half))
        x, y = pairs.unbind(-1 if interleaved else -2)
        both = torch.stack((x * c - y * s, y * c + x * s), -1 if interleaved else -2)
        return torch.cat((both.flatten(-2), rest), -1).to(heads.dtype)

    return rotated(query), rotated(key)


def merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """See ``lmx.attention.merge``; out and lse in float64."""
    lse = torch.logaddexp(lse_a.double(), lse_b.double())
    out = torch.zeros(out_a.shape, dtype=torch.float64)
    for part, part_lse in ((out_a, lse_a), (out_b, lse_b)):
        share = (part_lse.double() - lse).exp()[..., None]
        empty = (part_lse == -torch.inf)[..., None]
        out = out + torch.where(empty, 0.0, share * part.double())
    return out, lse
