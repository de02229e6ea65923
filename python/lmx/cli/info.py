"""``python -m lmx info``: what is installed and what this machine can do."""

import argparse
import platform
from importlib import metadata

import torch

from .. import _C, __version__, no_cuda


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: none."""


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    names = (str(name) for name in torch._C._dispatch_get_all_op_names())
    ops = sorted({name.removeprefix("lmx::") for name in names if name.startswith("lmx::")})
    facts = {
        "lmx": __version__,
        "torch": torch.__version__,
        "transformers": _transformers_version(),
        "python": platform.python_version(),
        "cpu": f"{_C.cpu_isa}, {torch.get_num_threads()} threads",
        "cuda": f"no: {no_cuda}" if no_cuda else torch.cuda.get_device_name(),
        "ops": " ".join(ops),
    }
    for name, fact in facts.items():
        print(f"{name:13} {fact}")
    return 0


def _transformers_version() -> str:
    try:
        return metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return "not installed"
