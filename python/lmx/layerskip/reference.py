"""The room's ops in plain torch: slow, clear, in float64. Tests compare with these."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .quant import dequantize

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_erf": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def groups_of(group: Tensor | None, num_rows: int, num_groups: int) -> list[int]:
    """The group of each row; -1 also where it is out of range."""
    if group is None:
        return [0] * num_rows
    return [g if 0 <= g < num_groups else -1 for g in group.tolist()]


def plan(
    group: Tensor, num_groups: int, block_m: int = 128, alias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``lmx.layerskip.plan``."""
    names = groups_of(alias, num_groups, num_groups) if alias is not None else range(num_groups)
    planned = [names[g] if g >= 0 else -1 for g in groups_of(group, len(group), num_groups)]
    rows = [[r for r, g in enumerate(planned) if g == wanted] for wanted in range(num_groups)]
    skipped = [r for r, g in enumerate(planned) if g == -1]
    offsets = [sum(map(len, rows[:g])) for g in range(num_groups + 1)]
    tiles = [
        [g, offsets[g] + first, min(block_m, len(mine) - first)]
        for g, mine in enumerate(rows)
        for first in range(0, len(mine), block_m)
    ]
    unused = len(group) // block_m + min(num_groups, len(group)) - len(tiles)
    bad = sum(p == -1 and g != -1 for p, g in zip(planned, group.tolist(), strict=True))
    info = [offsets[-1], sum(map(bool, rows)), len(tiles), bad]
    numbers = [sum([*rows, skipped], []), offsets, tiles + [[-1, 0, 0]] * unused, info]
    perm, offset, tile, counts = (torch.tensor(n, dtype=torch.int32) for n in numbers)
    return perm, offset, tile.view(-1, 3), counts


def dense(weight: Tensor, format: str = "dense", scale: Tensor | None = None) -> Tensor:
    """A weight matrix in float64, however it is stored."""
    if format == "int8":
        assert scale is not None
        return weight.double() * scale.double()[..., None]
    return (weight if format == "dense" else dequantize(weight, format)).double()


def products(
    x: Tensor,
    weight: Tensor | Sequence[Tensor],
    group: Tensor | None = None,
    scale: Tensor | None = None,
    format: str = "dense",
) -> tuple[Tensor, Tensor]:
    """``weight[group[r]] @ x[r]`` for each row, in float64, and which rows are active."""
    groups = groups_of(group, len(x), len(weight))
    matrices = [
        dense(w, format, None if scale is None else scale[g]) if w.numel() else None
        for g, w in enumerate(weight)
    ]
    num_outputs = next((w.shape[0] for w in weight if w.numel() or w.dim() == 2), 0)
    if isinstance(weight, Tensor):
        num_outputs = weight.shape[1]
    out = torch.zeros(len(x), num_outputs, dtype=torch.float64)
    for r, g in enumerate(groups):
        matrix = matrices[g] if g >= 0 else None
        if matrix is not None:
            out[r] = matrix @ x[r].double()
    return out, torch.tensor([g >= 0 for g in groups], dtype=torch.bool)


def gemm(
    x: Tensor,
    weight: Tensor | Sequence[Tensor],
    group: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    row_scale: Tensor | None = None,
    weight_scale: Tensor | None = None,
    activation: str = "none",
    format: str = "dense",
    skipped: str = "auto",
) -> Tensor:
    """See ``lmx.layerskip.gemm``; float64."""
    out, active = products(x, weight, group, weight_scale, format)
    if bias is not None:
        out = out + bias.double()[[max(g, 0) for g in groups_of(group, len(x), len(weight))]]
    out = _ACTIVATIONS[activation](out)
    if row_scale is not None:
        out = out * row_scale.double()[:, None]
    base = torch.zeros_like(out) if residual is None else residual.double()
    passed = base if skipped != "zero" else torch.zeros_like(out)
    return torch.where(active[:, None], base + out, passed)


def gemm_out(
    x: Tensor,
    weight: Tensor | Sequence[Tensor],
    out: Tensor,
    group: Tensor | None = None,
    *,
    skipped: str = "auto",
    **options: Any,
) -> None:
    """See ``lmx.layerskip.gemm_out``."""
    keep = skipped == "keep"
    result = gemm(x, weight, group, skipped="zero" if keep else skipped, **options).to(out.dtype)
    active = torch.tensor([g >= 0 for g in groups_of(group, len(x), len(weight))])
    rows = active if keep else torch.ones_like(active)
    out[rows] = result[rows]


def swiglu(
    x: Tensor,
    gate: Tensor | Sequence[Tensor],
    up: Tensor | Sequence[Tensor],
    group: Tensor | None = None,
    *,
    gate_scale: Tensor | None = None,
    up_scale: Tensor | None = None,
    format: str = "dense",
) -> Tensor:
    """See ``lmx.layerskip.swiglu``; float64."""
    opened, _ = products(x, gate, group, gate_scale, format)
    return F.silu(opened) * products(x, up, group, up_scale, format)[0]


def _norm(x: Tensor, gamma: Tensor, beta: Tensor | None, group: Tensor | None, eps: float,
          centred: bool) -> Tensor:  # fmt: skip
    groups = groups_of(group, len(x), len(gamma))
    out = x.double().clone()
    for r, g in enumerate(groups):
        if g < 0:
            continue
        row = out[r] - out[r].mean() if centred else out[r]
        out[r] = row / math.sqrt(row.pow(2).mean().item() + eps) * gamma[g].double()
        if beta is not None:
            out[r] += beta[g].double()
    return out


def rmsnorm(x: Tensor, gamma: Tensor, group: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """See ``lmx.layerskip.rmsnorm``; float64."""
    return _norm(x, gamma, None, group, eps, False)


def layernorm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    group: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """See ``lmx.layerskip.layernorm``; float64."""
    return _norm(x, gamma, beta, group, eps, True)


def gather(x: Tensor, perm: Tensor, n: int) -> Tensor:
    """See ``lmx.layerskip.gather``."""
    return x[perm[:n].long()]


def scatter(y: Tensor, perm: Tensor, out: Tensor) -> None:
    """See ``lmx.layerskip.scatter``."""
    out[perm[: len(y)].long()] = y
