"""What op tests share: how close is close enough, and how results are taken apart."""

import torch
from torch import Tensor


def as_tuple(result) -> tuple[Tensor, ...]:
    if result is None:
        return ()
    return result if isinstance(result, tuple) else (result,)


def run(ops, op: str, sample) -> tuple[Tensor, ...]:
    """The op's results, then the arguments it may have written."""
    args = sample.fresh()
    result = as_tuple(ops(op, *args))
    return (*result, *(a for a in args if isinstance(a, Tensor)))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal dtype, shape and bytes."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def assert_close(ours: Tensor, exact: Tensor, torch_too: Tensor, what: str = "") -> None:
    """At most twice the error torch makes in the same dtype, plus one rounding of the largest value."""
    special = ~exact.isfinite()
    assert torch.equal(ours.double()[special].nan_to_num(9e9), exact[special].nan_to_num(9e9)), what
    if special.all():
        return
    ours, exact, torch_too = (t.double()[~special] for t in (ours, exact, torch_too))
    eps = torch.finfo(torch.float32).eps
    bound = 2 * (torch_too - exact).abs().max() + 2 * eps * exact.abs().max()
    error = (ours - exact).abs().max()
    assert error <= bound, f"{what}: error {error:.3g}, allowed {bound:.3g}"
