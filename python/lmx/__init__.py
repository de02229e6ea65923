"""Hand-written CPU and CUDA kernels that make decoding of language models fast and controllable.

Three layers, each usable alone: operators (``torch.ops.lmx.*``), typed functions
    (``lmx.<room>.*``), and decode loops (``lmx.generate``, ``lmx.Engine``).
"""

import ctypes
import os
import warnings
from pathlib import Path

import torch

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11):
    raise ImportError(f"lmx needs torch 2.11 or later, found {torch.__version__}")

from . import _C  # noqa: E402

if _C.cpu_isa == "none":
    raise ImportError("lmx needs an x86-64-v3 processor (AVX2, FMA, F16C); this one is older")


def _load_cuda() -> str:
    """Load the CUDA half. Return "" or the reason why there is none."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if torch.version.hip is not None:  # whose devices torch shows as CUDA's
        return "torch is built for ROCm, and the kernels are for CUDA"
    library = Path(__file__).parent / "liblmx_cuda.so"
    if not library.exists():
        return "lmx was built without nvcc; install it again where nvcc is found"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is not built for CUDA"
    # One symbol of libtorch_cuda was left open at link time: make that library visible to ours.
    libtorch_cuda = Path(torch.__file__).parent / "lib" / "libtorch_cuda.so"
    try:
        ctypes.CDLL(str(libtorch_cuda), mode=os.RTLD_GLOBAL)
        torch.ops.load_library(str(library))
    except OSError as fault:
        return f"the CUDA library does not load: {fault}"
    return ""


no_cuda = _load_cuda()  # "" when the CUDA kernels are there, else why not
if no_cuda and torch.cuda.is_available():
    warnings.warn(f"lmx has no CUDA kernels: {no_cuda}", RuntimeWarning, stacklevel=2)

from . import (  # noqa: E402
    attention,
    decode,
    grammar,
    hf,
    kvcache,
    layerskip,
    models,
    ngram,
    vocab,
)
from .decode import Engine, Generation, Sampling, generate, score  # noqa: E402
from .errors import Error, OutOfPages, StaleHandle  # noqa: E402
from .models import load  # noqa: E402

__version__ = "0.1.0"
__all__ = [
    "Engine",
    "Error",
    "Generation",
    "OutOfPages",
    "Sampling",
    "StaleHandle",
    "attention",
    "decode",
    "generate",
    "grammar",
    "hf",
    "kvcache",
    "layerskip",
    "load",
    "models",
    "ngram",
    "no_cuda",
    "score",
    "vocab",
]
