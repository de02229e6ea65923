"""Shapes and dtypes of the room's ops, for ``torch.compile`` and export."""

import torch
from torch import Tensor
from torch.library import register_fake


def _num_outputs(weight: Tensor | None, weights: list[Tensor] | None) -> int:
    if weight is not None:
        return weight.shape[1]
    return next((w.shape[0] for w in weights or () if w.numel() > 0), 0)


@register_fake("lmx::skip_plan")
def _plan(
    group: Tensor,
    num_groups: int,
    block_m: int = 128,
    alias: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_rows = group.shape[0]
    num_tiles = num_rows // block_m + torch.sym_min(num_groups, num_rows)
    perm = group.new_empty(num_rows, dtype=torch.int32)
    offsets = group.new_empty(num_groups + 1, dtype=torch.int32)
    tiles = group.new_empty(num_tiles, 3, dtype=torch.int32)
    return perm, offsets, tiles, group.new_empty(4, dtype=torch.int32)


@register_fake("lmx::skip_gemm")
def _gemm(
    x: Tensor,
    weight: Tensor | None = None,
    group: Tensor | None = None,
    *,
    weights: list[Tensor] | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    row_scale: Tensor | None = None,
    weight_scale: Tensor | None = None,
    plan: list[Tensor] | None = None,
    activation: str = "none",
    format: str = "dense",
    skipped: str = "auto",
    out_dtype: torch.dtype | None = None,
    status: Tensor | None = None,
) -> Tensor:
    return x.new_empty(x.shape[0], _num_outputs(weight, weights), dtype=out_dtype or x.dtype)


@register_fake("lmx::skip_gemm_out")
def _gemm_out(
    x: Tensor,
    out: Tensor,
    weight: Tensor | None = None,
    group: Tensor | None = None,
    *,
    weights: list[Tensor] | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    row_scale: Tensor | None = None,
    weight_scale: Tensor | None = None,
    plan: list[Tensor] | None = None,
    activation: str = "none",
    format: str = "dense",
    skipped: str = "auto",
    status: Tensor | None = None,
) -> None:
    return None


@register_fake("lmx::skip_swiglu")
def _swiglu(
    x: Tensor,
    gate: Tensor | None = None,
    up: Tensor | None = None,
    group: Tensor | None = None,
    *,
    gates: list[Tensor] | None = None,
    ups: list[Tensor] | None = None,
    gate_scale: Tensor | None = None,
    up_scale: Tensor | None = None,
    plan: list[Tensor] | None = None,
    format: str = "dense",
    out_dtype: torch.dtype | None = None,
    status: Tensor | None = None,
) -> Tensor:
    return x.new_empty(x.shape[0], _num_outputs(gate, gates), dtype=out_dtype or x.dtype)


@register_fake("lmx::skip_rmsnorm")
def _rmsnorm(
    x: Tensor,
    gamma: Tensor,
    group: Tensor | None = None,
    eps: float = 1e-6,
    status: Tensor | None = None,
) -> Tensor:
    return x.new_empty(x.shape)


@register_fake("lmx::skip_layernorm")
def _layernorm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    group: Tensor | None = None,
    eps: float = 1e-5,
    status: Tensor | None = None,
) -> Tensor:
    return x.new_empty(x.shape)


@register_fake("lmx::skip_gather")
def _gather(x: Tensor, perm: Tensor, n: int, status: Tensor | None = None) -> Tensor:
    return x.new_empty(n, x.shape[1])


@register_fake("lmx::skip_scatter")
def _scatter(y: Tensor, perm: Tensor, out: Tensor, status: Tensor | None = None) -> None:
    return None
