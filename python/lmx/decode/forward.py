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
    cache.reserve(num_new)
    positions = torch.arange(start, start + num_new, dtype=torch.int32, device=tokens.device)
    attend = _Attend(model, cache, positions)
    hidden = model.embed(tokens, positions)
    for i in range(model.num_layers):
        hidden = model.attn(i, hidden, positions, attend)
        hidden = model.mlp(i, hidden)
    return hidden


def rotate(rows: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotate the first elements of each head (Su et al. 2021, arXiv 2104.09864, equation 34).

    Args:
        rows: ``[T, heads, head_dim]``.
        cos: ``[T, pairs]``, float32; pairs is at most ``head_dim / 2``.
        sin: the same shape.
        interleaved: pairs are (2i, 2i + 1), else (i, i + pairs).

    Returns:
        Rotated rows in the dtype of ``rows``; what is beyond the pairs is unchanged.
    """
    num_rotated = 2 * cos.shape[-1]
    turned, rest = rows[..., :num_rotated].float(), rows[..., num_rotated:]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    pair = (a * cos - b * sin, b * cos + a * sin)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat((turned.to(rows.dtype), rest), -1)


class _Attend:
    """The ``attend`` of one pass: rotates, stores, and attends to everything stored so far."""

    def __init__(self, model: LayeredModel, cache: KVBuffer, positions: Tensor) -> None:
        self._model, self._cache, self._positions = model, cache, positions
        self._biases: dict[int, Tensor | None] = {}  # by window; layers share them
        if isinstance(model.position, Rope):
            self._cos_sin = model.position.cos_sin(positions)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        model = self._model
        if isinstance(model.position, Rope):
            query = rotate(query, *self._cos_sin, model.position.interleaved)
            key = rotate(key, *self._cos_sin, model.position.interleaved)
        window = model.window(layer)
        if window not in self._biases:
            self._biases[window] = self._bias(window)
        bias, first = self._biases[window], self._first_key(window)
        keys, values = self._cache.write(layer, key, value)
        out = F.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            keys[None, :, first:],
            values[None, :, first:],
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
