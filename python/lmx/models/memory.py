"""Ask whether weights fit, before any of them is read."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch

logger = logging.getLogger("lmx")

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


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
    """Return the memory that can be had on ``device`` without swapping.

    On the host, that is the least of what the machine and the limits of this process's control
    groups (a container's, say) leave.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([_of_machine(), *_of_cgroups()])


def _of_machine() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no line MemAvailable")


def _of_cgroups() -> Iterator[int]:
    """Yield what the limit of each control group (version 2) that holds this process leaves.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst. In a container the groups outside of it
    cannot be seen, and its own is the root. File pages count as used, but the kernel drops them
    before it refuses memory, as MemAvailable assumes too: without them, a model that was just
    downloaded would not fit.
    """
    for group in _own_cgroups():
        limit, used = _read(group / "memory.max").strip(), _read(group / "memory.current")
        if limit.isdigit() and used:  # else "max"; the root and version 1 have no such files
            stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            files = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
            yield max(0, int(limit) - max(0, int(used) - files))


def _own_cgroups() -> list[Path]:
    """Return the folders of this process's control group and of those around it."""
    lines = _read(_OWN_CGROUP).splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    own = _CGROUPS / path
    if ".." in own.parts:  # outside of what this process sees
        return [_CGROUPS]
    return [group for group in (own, *own.parents) if group.is_relative_to(_CGROUPS)]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
