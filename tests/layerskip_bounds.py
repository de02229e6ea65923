"""How far a GEMM may be from the sum in float64 (accumulated in float32, rounded once)."""

import torch
from torch import Tensor

from lmx.layerskip import reference

UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def gemm_bound(
    exact: Tensor, x: Tensor, weight, group: Tensor | None, dtype: torch.dtype, **options
) -> Tensor:
    """The largest error of each element; ``options`` are those of the call."""
    scale, format = options.get("weight_scale"), options.get("format", "dense")
    absolute = [reference.dense(w, format, None if scale is None else scale[g]).abs()
                for g, w in enumerate(weight)]  # fmt: skip
    magnitude, active = reference.products(x.double().abs(), absolute, group)
    if options.get("bias") is not None:
        groups = [max(g, 0) for g in reference.groups_of(group, len(x), len(weight))]
        magnitude = magnitude + options["bias"].double().abs()[groups]
    error = (x.shape[1] + 8) * 2.0**-24 * magnitude
    if options.get("activation", "none") != "none":  # slopes are below 1.13
        error = 1.2 * error + 2.0**-20 * magnitude.clamp(min=1)
    if options.get("row_scale") is not None:
        error = error * options["row_scale"].double().abs()[:, None]
    if options.get("residual") is not None:
        error = error + 2.0**-23 * options["residual"].double().abs()
    error = error + UNIT[dtype] * exact.abs() + 2.0**-149
    if dtype == torch.float16:
        error = error + 2.0**-25
    return torch.where(active[:, None], error, UNIT[dtype] * exact.abs())


def assert_within(ours: Tensor, exact: Tensor, bound: Tensor, what: str) -> None:
    """Raise unless every element is within its bound."""
    excess = (ours.double() - exact).abs() - bound
    assert not (excess > 0).any() and not ours.isnan().any(), f"{what}: {excess.max():.3g} above"
