"""One pass of one sequence through a layered model: rotation, attention, hidden rows.

Sequences run alone, so what a pass computes cannot depend on the rest of a batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..protocols import Alibi, LayeredModel, Rope
from .cache import KVBuffer

GRID = 512  # chunks of a prompt end at multiples of it


def chunk_end(start: int, length: int) -> int:
    """Return where the chunk that starts at ``start`` of a prompt of ``length`` tokens ends."""
    return min((start // GRID + 1) * GRID, length)


def forward(model: LayeredModel, cache: KVBuffer, tokens: Tensor) -> Tensor:
    """Run tokens that follow the cached ones through all layers.

    Their keys and values are written, but not committed.

    Args:
        model: the model.
        cache: the keys and values of the sequence so far.
        tokens: ``[T]``, int64.

    Returns:
        Hidden rows ``[T, hidden]`` for ``model.norm_head``.
    """
    start, num_new = cache.length, tokens.numel()
    positions = torch.arange(start, start + num_new, dtype=torch.int32, device=tokens.device)
    attend = _Attend(model, cache, positions)
    hidden = model.embed(tokens, positions)
    for i in range(model.num_layers):
        hidden = model.attn(i, hidden, positions, attend)
        hidden = model.mlp(i, hidden)
    return hidden


class Rotation:
    """Rotates the first elements of heads (Su et al. 2021, arXiv 2104.09864, equation 34)."""

    def __init__(self, rope: Rope, positions: Tensor) -> None:
        """Compute the angles of rows at ``positions [T]``, once for all layers."""
        cos, sin = (half[:, None] for half in rope.cos_sin(positions))
        self._rotary_dim, self._interleaved = rope.rotary_dim, rope.interleaved
        if rope.interleaved:  # elements 2i and 2i + 1 are a pair
            self._cos = cos.repeat_interleave(2, -1)
            self._sin = torch.stack((-sin, sin), -1).flatten(-2)
        else:  # elements i and i + rotary_dim / 2 are
            self._cos = torch.cat((cos, cos), -1)
            self._sin = torch.cat((-sin, sin), -1)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return ``rows [T, heads, head_dim]`` rotated, computed in float32, in their dtype."""
        turned = rows[..., : self._rotary_dim] if self._rotary_dim < rows.shape[-1] else rows
        if self._interleaved:
            swapped = turned.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        else:
            swapped = turned.roll(self._rotary_dim // 2, -1)
        out = (turned * self._cos).add_(swapped * self._sin).to(rows.dtype)
        return out if turned is rows else torch.cat((out, rows[..., self._rotary_dim :]), -1)


class _Attend:
    """The ``attend`` of one pass: rotates, stores, and attends to everything stored so far."""

    def __init__(self, model: LayeredModel, cache: KVBuffer, positions: Tensor) -> None:
        self._model, self._cache, self._positions = model, cache, positions
        self._slots = cache.open(positions.numel())
        self._biases: dict[int, Tensor | None] = {}  # by window; layers share them
        rope = model.position
        self._rotate = Rotation(rope, positions) if isinstance(rope, Rope) else None
        self._group = (1, model.num_kv_heads, -1, model.head_dim)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        model, slots = self._model, self._slots
        if self._rotate is not None:  # both at once: few rows cost calls, not arithmetic
            both = self._rotate(torch.cat((query, key), 1))
            query, key = both.split_with_sizes((query.shape[1], key.shape[1]), 1)
        slots.new_keys[layer].copy_(key)
        slots.new_values[layer].copy_(value)
        keys, values = slots.keys[layer], slots.values[layer]
        window = model.window(layer)
        if window > 0 and (first := self._first_key(window)):
            keys, values = keys[:, :, first:], values[:, :, first:]
        if window not in self._biases:
            self._biases[window] = self._bias(window)
        bias = self._biases[window]
        if bias is None:  # the heads that share a key are the rows of one product
            rows = query.reshape(self._group)
            out = F.scaled_dot_product_attention(rows, keys, values, scale=model.softmax_scale)
            return out.reshape(query.shape)
        out = F.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=bias,
            scale=model.softmax_scale,
            enable_gqa=True,
        )
        return out[0].transpose(0, 1)

    def _first_key(self, window: int) -> int:
        """Return the first position that any row of this pass sees."""
        return max(0, self._cache.length - window + 1) if window > 0 else 0

    def _bias(self, window: int) -> Tensor | None:
        """Return what is added to the scores ``[..., T, keys]``, or a mask, or None for nothing."""
        query_pos, alibi = self._positions, self._model.position
        if query_pos.numel() == 1 and not isinstance(alibi, Alibi):
            return None
        end = self._cache.length + query_pos.numel()
        key_pos = torch.arange(self._first_key(window), end, device=query_pos.device)
        distance = query_pos[:, None] - key_pos
        seen = distance >= 0
        if window > 0:
            seen &= distance < window
        if not isinstance(alibi, Alibi):
            return seen
        bias = -alibi.slopes.to(distance.device)[:, None, None] * distance
        return bias.masked_fill(~seen, -torch.inf).to(self._model.dtype)
