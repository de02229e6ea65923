"""What op tests share: the backends, how close is close enough, how results are taken apart."""

from pathlib import Path

import torch
from samples import twin
from torch import Tensor

import lmx

ROOT = Path(__file__).resolve().parents[1]
SIMT = ROOT / "build" / "tests" / "simt" / "liblmx_simt.so"
if SIMT.exists():
    torch.ops.load_library(str(SIMT))


class Backend:
    """One set of kernels: where its ops are, and on which device its tensors lie."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ops = torch.ops.lmx_simt if name == "simt" else torch.ops.lmx
        self.device = "cuda" if name == "cuda" else "cpu"

    def __call__(self, op: str, *args, **kwargs):
        """Run an op on this backend's device; what it returns and writes comes back to the CPU."""
        if self.device == "cpu":
            return getattr(self.ops, op)(*args, **kwargs)
        moved = [_to_cuda(a) for a in args]
        named = {k: _to_cuda(v) for k, v in kwargs.items()}
        result = getattr(self.ops, op)(*moved, **named)
        for here, there in [
            *zip(args, moved, strict=True),
            *((kwargs[k], named[k]) for k in named),
        ]:
            if isinstance(here, Tensor):
                here.copy_(there)
        if isinstance(result, Tensor):
            return result.cpu()
        return None if result is None else tuple(r.cpu() for r in result)


def _to_cuda(value):
    if isinstance(value, list | tuple):
        return [_to_cuda(v) for v in value]
    return twin(value, "cuda") if isinstance(value, Tensor) else value


BACKENDS = ["cpu"] + ["simt"] * SIMT.exists() + ["cuda"] * (not lmx.no_cuda)


def as_tuple(result) -> tuple[Tensor, ...]:
    if result is None:
        return ()
    return result if isinstance(result, tuple) else (result,)


def run(ops, op: str, sample) -> tuple[Tensor, ...]:
    """The op's results, then the arguments it may have written."""
    fresh = sample.fresh()
    result = as_tuple(ops(op, *fresh.args, **fresh.kwargs))
    return (*result, *fresh.tensors().values())


def some(ops: Backend, samples: list) -> list:
    """All on a CPU; every fourth under the harness, where a call costs a thousand times more.

    One test takes all of them there too: that the backends agree bit for bit.
    """
    return samples[::4] if ops.name == "simt" else samples


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal dtype, shape and bytes."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.numel() == 0:  # whose strides may forbid a view
        return True
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def assert_close(ours: Tensor, exact: Tensor, torch_too: Tensor, what: str = "") -> None:
    """At most twice the error that torch makes in this dtype, plus a rounding of the largest."""
    special = ~exact.isfinite()
    assert torch.equal(ours.double()[special].nan_to_num(9e9), exact[special].nan_to_num(9e9)), what
    if special.all():
        return
    ours, exact, torch_too = (t.double()[~special] for t in (ours, exact, torch_too))
    assert torch_too.isfinite().all(), f"{what}: torch's own result is no yardstick"
    eps = torch.finfo(torch.float32).eps
    bound = 2 * (torch_too - exact).abs().max() + 2 * eps * exact.abs().max()
    error = (ours - exact).abs().max()
    assert error <= bound, f"{what}: error {error:.3g}, allowed {bound:.3g}"
