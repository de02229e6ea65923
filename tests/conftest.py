import shutil
from pathlib import Path

import pytest
import torch

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
        """Run an op on this backend's device; results and written arguments come back to the CPU."""
        if self.device == "cpu":
            return getattr(self.ops, op)(*args, **kwargs)
        moved = [a.cuda() if isinstance(a, torch.Tensor) else a for a in args]
        named = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
        result = getattr(self.ops, op)(*moved, **named)
        for here, there in [*zip(args, moved, strict=True), *((kwargs[k], named[k]) for k in named)]:
            if isinstance(here, torch.Tensor):
                here.copy_(there)
        if isinstance(result, torch.Tensor):
            return result.cpu()
        return None if result is None else tuple(r.cpu() for r in result)


BACKENDS = ["cpu"] + ["simt"] * SIMT.exists() + ["cuda"] * (not lmx.no_cuda)


@pytest.fixture(params=BACKENDS)
def ops(request) -> Backend:
    return Backend(request.param)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """A setter of torch's threads that is undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pytest_collection_modifyitems(config, items):
    if config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long: run by `make test-long`"))


def pytest_report_header() -> list[str]:
    compiler = shutil.which("nvcc") or "no nvcc"
    return [f"lmx: cpu level {lmx._C.cpu_isa}, backends {', '.join(BACKENDS)}, {Path(compiler).name}"]
