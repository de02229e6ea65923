"""What this machine could do at best: moving the same bytes, and multiplying matrices."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .race import Lane, Race, Rotation, clock_of


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The bytes that a call cannot avoid: read, written afresh, or read and written in place."""

    read: int = 0
    write: int = 0
    update: int = 0

    @property
    def total(self) -> int:
        return self.read + self.write + 2 * self.update


def words(x: Tensor, num_bytes: int) -> Tensor:
    """The first bytes of a contiguous tensor, as int32: any bits are quick to read and compare."""
    flat = x.view(-1).view(torch.uint8)
    return flat[: min(num_bytes, flat.numel()) // 4 * 4].view(torch.int32)


def roof_lane(traffic: Traffic) -> Lane:
    """Torch's fastest way of moving these bytes, on the first tensor of the input."""
    read, write = traffic.read, traffic.write

    def copy(x: Tensor, *_: Tensor) -> object:
        return words(x, read).clone()

    def update(x: Tensor, *_: Tensor) -> object:
        return words(x, traffic.update).bitwise_or_(0)

    def read_only(x: Tensor, *_: Tensor) -> object:
        return words(x, read).amax()

    def write_only(x: Tensor, *_: Tensor) -> object:
        return torch.empty(write // 4, dtype=torch.int32, device=x.device).fill_(1)

    def read_and_write(x: Tensor, *_: Tensor) -> object:
        return read_only(x), write_only(x)

    few = 16  # a side with less than a sixteenth of the other's bytes does not count
    if traffic.update:
        return Lane("roof", "update", update)
    if write * few < read:
        return Lane("roof", "read", read_only)
    if read * few < write:
        return Lane("roof", "write", write_only)
    if read == write:
        return Lane("roof", "copy", copy)
    return Lane("roof", "read+write", read_and_write)


def bandwidth(device: str, num_bytes: int) -> dict[str, float]:
    """GB/s of reading and of copying a block that no cache holds."""
    # Not zeros: they would all lie in one page.
    block = torch.ones(1, num_bytes // 4, dtype=torch.int32, device=device)
    spare = torch.empty_like(block).fill_(1)
    read = Lane("roof", "read", lambda x: x.amax())
    copy = Lane("roof", "copy", lambda x: spare.copy_(x))
    race = Race([read, copy], Rotation(1, block), clock_of(device))
    for _ in range(3):
        race.lap()
    return {"read": num_bytes / read.min / 1e9, "copy": 2 * num_bytes / copy.min / 1e9}


@lru_cache
def peak_gflops(device: str, dtype: torch.dtype) -> float:
    """GFLOP/s of torch's matrix product of 1024 x 1024 matrices, once per session."""
    size = 1024
    square = torch.ones(size, size, dtype=dtype, device=device)
    product = Lane("roof", "mm", lambda x: x @ x)
    Race([product], Rotation(size, square), clock_of(device)).lap()
    return 2 * size**3 / product.min / 1e9
