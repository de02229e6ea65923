"""Linear layers and norms made ready to be called, for few rows a few hundred times per token.

A call of an operator costs microseconds, as does each view and each layer of Python around it. So
operands are put in the operators' order once, and the overloads are called without the faces of
``lmx.layerskip``, whose checks hold here: weights come out of ``state_dict``s, without grad.
"""

from typing import Any

import torch
from torch import Tensor

from ..layerskip.ops import Activation
from ..protocols import Linear

_gemm = torch.ops.lmx.skip_gemm.default
_swiglu = torch.ops.lmx.skip_swiglu.default
_rmsnorm = torch.ops.lmx.skip_rmsnorm.default
_layernorm = torch.ops.lmx.skip_layernorm.default


class Product:
    """``residual + activation(x @ weight.T + bias)``."""

    __slots__ = ("_options", "_weight")

    def __init__(
        self,
        linear: Linear,
        *,
        activation: Activation = "none",
        out_dtype: torch.dtype | None = None,
    ) -> None:
        """Take the operands."""
        self._weight = linear.weight[None]  # one group
        self._options: dict[str, Any] = {}  # without defaults, which cost time as well
        if linear.bias is not None:
            self._options["bias"] = linear.bias[None]
        if linear.scale is not None:
            self._options["weight_scale"] = linear.scale[None]
        if linear.format != "dense":
            self._options["format"] = linear.format
        if activation != "none":
            self._options["activation"] = activation
        if out_dtype is not None:
            self._options["out_dtype"] = out_dtype

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return ``[rows, out]`` of ``x [rows, in]``."""
        out: Tensor = _gemm(x, self._weight, residual=residual, **self._options)
        return out


class SwiGlu:
    """``silu(gate(x)) * up(x)``, in one pass over the rows where the operator allows it."""

    __slots__ = ("_fused", "_gate", "_operands", "_options", "_up")

    def __init__(self, gate: Linear, up: Linear) -> None:
        """Take the operands."""
        self._fused = gate.bias is None and up.bias is None and gate.format == up.format
        self._operands = (gate.weight[None], up.weight[None])
        self._options: dict[str, Any] = {}
        if gate.format != "dense":
            self._options["format"] = gate.format
        if gate.scale is not None and up.scale is not None:
            self._options |= {"gate_scale": gate.scale[None], "up_scale": up.scale[None]}
        self._gate = Product(gate, activation="silu", out_dtype=torch.float32)
        self._up = Product(up, out_dtype=torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[rows, out]`` of ``x [rows, in]``, rounded once."""
        if self._fused:
            out: Tensor = _swiglu(x, *self._operands, **self._options)
            return out
        return (self._gate(x) * self._up(x)).to(x.dtype)


class RmsNorm:
    """``x / sqrt(mean(x^2) + eps) * weight``."""

    __slots__ = ("_eps", "_weight")

    def __init__(self, weight: Tensor, eps: float) -> None:
        """Take the weight, ``[width]``."""
        self._weight, self._eps = weight[None], eps

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[rows, width]``."""
        out: Tensor = _rmsnorm(x, self._weight, None, self._eps)
        return out


class LayerNorm:
    """``(x - mean) / sqrt(variance + eps) * weight + bias``."""

    __slots__ = ("_bias", "_eps", "_weight")

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        """Take weight and bias, ``[width]``."""
        self._weight, self._bias, self._eps = weight[None], bias[None], eps

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[rows, width]``."""
        out: Tensor = _layernorm(x, self._weight, self._bias, None, self._eps)
        return out
