"""Ask whether weights fit, before any of them is read."""

import logging
from pathlib import Path

import torch

logger = logging.getLogger("lmx")


def require(num_bytes: int, device: torch.device, what: str) -> None:
    """Log what ``what`` needs on ``device``, at level INFO, and what there is.

    Raises:
        MemoryError: it cannot fit; the message holds both figures.
    """
    available = available_bytes(device)
    figures = f"{what} needs {_mib(num_bytes)} on {device}, where {_mib(available)} are available"
    if num_bytes > available:
        raise MemoryError(figures)
    logger.info(figures)


def available_bytes(device: torch.device) -> int:
    """Return the memory that can be had on ``device`` without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no line MemAvailable")


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
