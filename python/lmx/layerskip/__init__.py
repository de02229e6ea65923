"""The library's GEMM, norms and plans: every row brings the weight group it wants, or none."""

from . import fakes  # noqa: F401  (registers them)
from .ops import (
    Plan,
    gather,
    gemm,
    gemm_out,
    layernorm,
    plan,
    rmsnorm,
    scatter,
    swiglu,
)
from .quant import FORMATS, dequantize, quantize_int8, row_bytes

__all__ = [
    "FORMATS",
    "Plan",
    "dequantize",
    "gather",
    "gemm",
    "gemm_out",
    "layernorm",
    "plan",
    "quantize_int8",
    "rmsnorm",
    "row_bytes",
    "scatter",
    "swiglu",
]
