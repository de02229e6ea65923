"""What the typed faces of the ops share."""

import torch
from torch import Tensor


def forbid_grad(op: str, *tensors: Tensor | None) -> None:
    """Raise ValueError where autograd would expect a backward that the op does not have."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise ValueError(
            f"{op} has no backward, and an input requires grad: "
            "call it under torch.inference_mode() or torch.no_grad()"
        )


def written(tensor: Tensor) -> None:
    """Tell autograd that an op wrote to a tensor, as torch's own in-place ops do."""
    if not torch.compiler.is_compiling() and not tensor.is_inference():
        torch.autograd.graph.increment_version(tensor)


def per_row(
    op: str, name: str, value: float | Tensor | None, logits: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """A tensor of one value per row from a number, a tensor or None."""
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{op}: expected {name} a number, a tensor or None, got {value!r}")
    if dtype == torch.int32 and not isinstance(value, int):
        raise TypeError(f"{op}: expected {name} an integer, a tensor or None, got {value!r}")
    if dtype == torch.int32 and not -(2**31) <= value < 2**31:
        raise ValueError(f"{op}: expected {name} in [0, 2^31), got {value}")
    return torch.full((logits.shape[0],), value, dtype=dtype, device=logits.device)
