"""Timing several ways of doing one job, in turns, on inputs that no cache holds."""

import ctypes
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median
from typing import Any

import torch
from torch import Tensor

Args = tuple[Tensor, ...]
Way = Callable[..., Any]
BURST = 3  # timed calls in a row; the call before them is not timed


class CpuClock:
    """Seconds of one call."""

    def __call__(self, fn: Way, args: Args) -> float:
        start = time.perf_counter_ns()
        fn(*args)
        return (time.perf_counter_ns() - start) * 1e-9


class CudaClock:
    """Seconds of one call on the GPU, by events, with a flushed L2.

    The flush also keeps the GPU busy while the host launches, so that launches are not timed.
    """

    def __init__(self) -> None:
        self._flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def __call__(self, fn: Way, args: Args) -> float:
        self._flush.zero_()
        self._start.record()
        fn(*args)
        self._end.record()
        self._end.synchronize()
        return self._start.elapsed_time(self._end) * 1e-3


def clock_of(device: str) -> Callable[[Way, Args], float]:
    return CudaClock() if device == "cuda" else CpuClock()


class Rotation:
    """Successive groups of rows of some tensors, cut when asked for."""

    def __init__(self, rows: int, *tensors: Tensor) -> None:
        self._rows = rows
        self._tensors = tensors

    def __len__(self) -> int:
        return self._tensors[0].shape[0] // self._rows

    def __getitem__(self, i: int) -> Args:
        start = i % len(self) * self._rows
        return tuple(t[start : start + self._rows] for t in self._tensors)


@lru_cache
def keep_freed_memory() -> None:
    """Let malloc keep what is freed, as it does in a process that has run a model for a while.

    Else page faults decide how long a way with large temporaries takes, and whether they occur
    depends on what was freed before: sampling in torch was seen three times slower.
    """
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_threshold = -1, -3  # malloc.h of glibc; elsewhere there is no mallopt
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**25)  # 32 MiB, its documented limit


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Lane:
    """One way of doing the job, and the seconds its calls took."""

    kind: str  # "lmx", "torch", "peer" or "roof"
    name: str
    fn: Way
    seconds: list[float] = field(default_factory=list)

    @property
    def min(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return median(self.seconds)


class Race:
    """Lanes that take turns, burst by burst, over a rotation of inputs.

    A burst begins with a call that is not timed: it brings back the lane's code, page tables and
    output memory, which the lane before has evicted from the caches. Its inputs stay cold.
    """

    def __init__(
        self, lanes: Sequence[Lane], rotate: Rotation, clock: Callable[[Way, Args], float]
    ) -> None:
        self.lanes = lanes
        self._rotate = rotate
        self._clock = clock
        self._at = 0
        # Coprime to the length of a lap: in time, every lane sees every input.
        self._count = len(rotate)
        while math.gcd(self._count, len(lanes) * (BURST + 1)) > 1:
            self._count -= 1

    def next_input(self) -> Args:
        self._at = (self._at + 1) % self._count
        return self._rotate[self._at]

    def lap(self) -> None:
        for lane in self.lanes:
            lane.fn(*self.next_input())
            for _ in range(BURST):
                lane.seconds.append(self._clock(lane.fn, self.next_input()))

    def rounds(self, at_least: int, max_seconds: float) -> int:
        """The number of laps that fit, by the second of two laps, which are forgotten."""
        self.lap()
        start = time.perf_counter()
        self.lap()
        lap_seconds = time.perf_counter() - start
        for lane in self.lanes:
            lane.seconds.clear()
        return max(at_least, int(max_seconds / lap_seconds))
