"""Typed faces of ``torch.ops.lmx.skip_*``.

Shared by all of them:

- ``x`` is ``[num_rows, K]``, float32, float16 or bfloat16, contiguous in its last dimension.
- ``group``, int32 ``[num_rows]`` (on a CPU int64 too), says which weights a row uses, in
  ``[-1, num_groups)``; -1 = the row is skipped. Without it there is one group, and every row is in
  it: an ordinary linear layer.
- Weights are a stack ``[num_groups, N, K]`` or a list of ``[N, K]`` where they lie; an empty tensor
  in a list is a group without rows. Weights of groups without rows, and skipped rows, are not read.
- ``plan``, from `plan`, sorts the rows once for all calls of a step; without it each call does.
- ``status``, int32 ``[num_rows]``, receives a bit per bad row (``csrc/common/status.h``) instead of
  an exception; such a row counts as skipped.

A row's result is a bitwise function of its own inputs: not of the other rows, their number, groups
or order, nor of the number of threads. Sums are float32 and are rounded once.

Raises, all of them: RuntimeError where a shape, dtype, device or stride is wrong; ValueError where
a value is out of its range and no ``status`` is given (CPU; CUDA does not look), or where autograd
would need a backward.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._faces import forbid_grad, written

Activation = Literal["none", "relu", "gelu_tanh", "gelu_erf", "silu", "tanh", "sigmoid"]
Format = Literal["dense", "int8", "q8_0", "q4_0", "q4_1"]
Weights = Tensor | Sequence[Tensor]


class Plan(NamedTuple):
    """Rows sorted by group."""

    perm: Tensor  # int32 [num_rows]: rows of group 0, of group 1, ..., skipped rows
    offsets: Tensor  # int32 [num_groups + 1]: where groups begin in perm
    tiles: Tensor  # int32 [num_tiles, 3]: group, first position in perm, rows; unused: -1, 0, 0
    info: Tensor  # int32 [4]: active rows, non-empty groups, used tiles, values out of range


def _weights(weight: Weights) -> tuple[Tensor | None, list[Tensor] | None]:
    return (weight, None) if isinstance(weight, Tensor) else (None, list(weight))


def plan(
    group: Tensor,
    num_groups: int,
    *,
    block_m: int = 128,
    alias: Tensor | None = None,
    status: Tensor | None = None,
) -> Plan:
    """Sort rows by weight group, stably.

    Args:
        group, status: see the module.
        num_groups: how many weight groups there are.
        block_m: the most rows of a tile; at least 1.
        alias: int32 ``[num_groups]``: group ``g`` counts as ``alias[g]``, so that layers that share
            weights form one group.

    Returns:
        A `Plan` with ``num_rows // block_m + min(num_groups, num_rows)`` tiles.

    Reference: ``lmx.layerskip.reference.plan``.
    """
    return Plan(*torch.ops.lmx.skip_plan(group, num_groups, block_m, alias, status))


def gemm(
    x: Tensor,
    weight: Weights,
    group: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    row_scale: Tensor | None = None,
    weight_scale: Tensor | None = None,
    plan: Plan | None = None,
    activation: Activation = "none",
    format: Format = "dense",
    skipped: Literal["auto", "zero", "residual"] = "auto",
    out_dtype: torch.dtype | None = None,
    status: Tensor | None = None,
) -> Tensor:
    """Multiply each row by the weights of its group: the library's linear layer.

    ``out[r] = residual[r] + row_scale[r] * act(weight[group[r]] @ x[r] + bias[group[r]])``.

    Args:
        x, weight, group, plan, status: see the module. ``weight`` has the dtype of ``x``, unless
            ``format`` says otherwise.
        bias: ``[num_groups, N]``, floating.
        residual: ``[num_rows, N]``, floating.
        row_scale: float32 ``[num_rows]``.
        weight_scale: float32 ``[num_groups, N]``, for format "int8" alone.
        activation: applied to the sum and bias, in float32.
        format: how weights are stored. "dense"; "int8": int8 ``[..., N, K]`` for 16-bit ``x``;
            "q8_0", "q4_0", "q4_1": uint8 ``[..., N, row bytes]``, blocks of 32 weights as in GGUF,
            for bfloat16 ``x``: the result has the bits of the dequantised bfloat16 weights.
        skipped: what a skipped row gets: "residual", "zero", or "auto": the residual if there is
            one.
        out_dtype: float32 or, by default, the dtype of ``x``.

    Returns:
        ``[num_rows, N]``.

    Reference: ``lmx.layerskip.reference.gemm``.
    """
    stack, several = _weights(weight)
    forbid_grad("lmx.layerskip.gemm", x, stack, bias, residual, row_scale, *(several or ()))
    return torch.ops.lmx.skip_gemm(
        x,
        stack,
        group,
        weights=several,
        bias=bias,
        residual=residual,
        row_scale=row_scale,
        weight_scale=weight_scale,
        plan=plan,
        activation=activation,
        format=format,
        skipped=skipped,
        out_dtype=out_dtype,
        status=status,
    )


def gemm_out(
    x: Tensor,
    weight: Weights,
    out: Tensor,
    group: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    row_scale: Tensor | None = None,
    weight_scale: Tensor | None = None,
    plan: Plan | None = None,
    activation: Activation = "none",
    format: Format = "dense",
    skipped: Literal["auto", "zero", "residual", "keep"] = "auto",
    status: Tensor | None = None,
) -> None:
    """Do what `gemm` does, into ``out``.

    Args:
        x, weight, group, plan, status: see the module; the others: see `gemm`.
        out: ``[num_rows, N]``, float32, float16 or bfloat16. It may be ``residual`` itself: a
            residual stream updated in place. Else it has no memory in common with an input.
        skipped: "keep" leaves skipped rows of ``out`` as they are.

    Reference: ``lmx.layerskip.reference.gemm_out``.
    """
    stack, several = _weights(weight)
    forbid_grad("lmx.layerskip.gemm_out", x, out, stack, bias, residual, *(several or ()))
    torch.ops.lmx.skip_gemm_out(
        x,
        out,
        stack,
        group,
        weights=several,
        bias=bias,
        residual=residual,
        row_scale=row_scale,
        weight_scale=weight_scale,
        plan=plan,
        activation=activation,
        format=format,
        skipped=skipped,
        status=status,
    )
    written(out)


def swiglu(
    x: Tensor,
    gate: Weights,
    up: Weights,
    group: Tensor | None = None,
    *,
    gate_scale: Tensor | None = None,
    up_scale: Tensor | None = None,
    plan: Plan | None = None,
    format: Format = "dense",
    out_dtype: torch.dtype | None = None,
    status: Tensor | None = None,
) -> Tensor:
    """Return ``silu(gate @ x) * (up @ x)``, the product in float32; 0 for skipped rows.

    Args:
        x, group, plan, status: see the module; ``format``, ``out_dtype``: see `gemm`.
        gate, up: weights of one shape and format, as in `gemm`, with their scales.

    Returns:
        ``[num_rows, N]``.

    Source: Shazeer 2020, arXiv 2002.05202, equation 6.
    Reference: ``lmx.layerskip.reference.swiglu``.
    """
    gate_stack, gates = _weights(gate)
    up_stack, ups = _weights(up)
    forbid_grad("lmx.layerskip.swiglu", x, gate_stack, up_stack, *(gates or ()), *(ups or ()))
    return torch.ops.lmx.skip_swiglu(
        x,
        gate_stack,
        up_stack,
        group,
        gates=gates,
        ups=ups,
        gate_scale=gate_scale,
        up_scale=up_scale,
        plan=plan,
        format=format,
        out_dtype=out_dtype,
        status=status,
    )


def rmsnorm(
    x: Tensor,
    gamma: Tensor,
    group: Tensor | None = None,
    *,
    eps: float = 1e-6,
    status: Tensor | None = None,
) -> Tensor:
    """Return ``x / sqrt(mean(x^2) + eps) * gamma``, with the weights of each row's group.

    Args:
        x, group, status: see the module.
        gamma: ``[num_groups, K]``, floating, contiguous.
        eps: at least 0.

    Returns:
        ``[num_rows, K]`` in the dtype of ``x``; skipped rows are copied. Computed in float32 and
        rounded once; the same bits on every backend.

    Source: Zhang and Sennrich 2019, arXiv 1910.07467, equation 4.
    Reference: ``lmx.layerskip.reference.rmsnorm``.
    """
    forbid_grad("lmx.layerskip.rmsnorm", x, gamma)
    return torch.ops.lmx.skip_rmsnorm(x, gamma, group, eps, status)


def layernorm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    group: Tensor | None = None,
    *,
    eps: float = 1e-5,
    status: Tensor | None = None,
) -> Tensor:
    """Return ``(x - mean) / sqrt(variance + eps) * gamma + beta``, by each row's group.

    Args:
        x, group, status: see the module.
        gamma, beta: ``[num_groups, K]``, floating, of one dtype, contiguous.
        eps: at least 0.

    Returns:
        As `rmsnorm`.

    Source: Ba et al. 2016, arXiv 1607.06450, equation 4.
    Reference: ``lmx.layerskip.reference.layernorm``.
    """
    forbid_grad("lmx.layerskip.layernorm", x, gamma, beta)
    return torch.ops.lmx.skip_layernorm(x, gamma, beta, group, eps, status)


def gather(x: Tensor, perm: Tensor, n: int, *, status: Tensor | None = None) -> Tensor:
    """Return rows ``perm[:n]`` of ``x``: the active rows as one block.

    Args:
        x: ``[num_rows, width]`` of any dtype.
        perm: int32, with numbers in ``[0, num_rows)``, such as a plan's.
        n: how many rows, at most the length of ``perm``.
        status: int32 ``[n]``; a row with a number out of range is then 0.

    Returns:
        ``[n, width]``.

    Reference: ``lmx.layerskip.reference.gather``.
    """
    forbid_grad("lmx.layerskip.gather", x)
    return torch.ops.lmx.skip_gather(x, perm, n, status)


def scatter(y: Tensor, perm: Tensor, out: Tensor, *, status: Tensor | None = None) -> None:
    """Write row ``i`` of ``y`` to row ``perm[i]`` of ``out``; the other rows stay.

    Args:
        y: ``[n, width]`` of any dtype.
        perm: int32, at least ``n`` numbers in ``[0, rows of out)``.
        out: ``[rows, width]`` of the dtype of ``y``, without common memory.
        status: int32 ``[n]``; a row with a number out of range then goes nowhere.

    Reference: ``lmx.layerskip.reference.scatter``.
    """
    forbid_grad("lmx.layerskip.scatter", y, out)
    torch.ops.lmx.skip_scatter(y, perm, out, status)
    written(out)
