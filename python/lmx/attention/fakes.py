"""Shapes and dtypes of the room's ops, for ``torch.compile`` and export."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake


@register_fake("lmx::attention_paged")
def _paged(query: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def floats(*shape: int) -> Tensor:
        return query.new_empty(shape, dtype=torch.float32)

    return query.new_empty(query.shape), floats(*query.shape[:2]), floats(0), floats(0)


@register_fake("lmx::attention_rope")
def _rope(
    query: Tensor,
    key: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    interleaved: bool = False,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


@register_fake("lmx::attention_merge")
def _merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(out_a), torch.empty_like(lse_a)
