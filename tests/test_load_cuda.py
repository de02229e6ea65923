"""Machines with a GPU that lmx cannot use: it is imported all the same, and says why."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lmx

FOUND = """if True:
    import sys, pathlib
    sys.path.insert(0, {path!r})
    import torch
    torch.cuda.is_available = lambda: True
    torch.version.hip, torch.version.cuda = {hip!r}, {cuda!r}
    exists = pathlib.Path.exists
    pathlib.Path.exists = lambda p, **k: p.name == "liblmx_cuda.so" or exists(p, **k)
    import lmx
    print(lmx.no_cuda)"""


def import_with(hip=None, cuda="13.0"):
    """Return `no_cuda` and the warning where device and library seem to be there."""
    path = str(Path(lmx.__file__).parents[1])
    code = FOUND.format(path=path, hip=hip, cuda=cuda)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"hip": "7.1", "cuda": None}, "torch is built for ROCm, and the kernels are for CUDA"),
        ({"cuda": None}, f"torch {torch.__version__} is not built for CUDA"),
    ],
)
def test_the_reason(machine, reason):
    no_cuda, warning = import_with(**machine)
    assert no_cuda.startswith(reason)
    assert f"RuntimeWarning: lmx has no CUDA kernels: {reason}" in warning


@pytest.mark.skipif(torch.version.cuda is not None, reason="libtorch_cuda.so is here")
def test_a_library_that_does_not_load():
    no_cuda, warning = import_with()
    assert no_cuda.startswith("the CUDA library does not load: ")
    assert "libtorch_cuda.so" in no_cuda and "RuntimeWarning: lmx has no CUDA" in warning
