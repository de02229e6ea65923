"""What the fixture `measure` is: ours against the others, in turns, on the same inputs."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .figures import Figures, Gate, compared, figures, of_kind, times
from .race import Lane, Race, Rotation, Way, clock_of, keep_freed_memory, threads
from .roof import Traffic, peak_gflops, roof_lane


def spelled(parameter: object) -> str:
    """Shares are the only fractions among the parameters of benches."""
    return f"{parameter:.0%} allowed" if isinstance(parameter, float) else str(parameter)


class Measure:
    """Measures one bench; see `__call__`."""

    def __init__(self, benchmark: Any, node: Any, results: list[Figures]) -> None:
        self._benchmark = benchmark
        self._results = results
        params = dict(node.callspec.params) if hasattr(node, "callspec") else {}
        self._case = params.pop("case", None)
        self._about = {
            "room": node.path.stem,
            "op": node.originalname.removeprefix("test_"),
            "variant": " ".join(map(spelled, params.values())),
        }
        options = node.config.option
        self._more_threads = min(options.more_threads, os.cpu_count() or 1)
        self._min_rounds: int = options.benchmark_min_rounds
        self._max_seconds = float(options.benchmark_max_time)

    @torch.inference_mode()
    def __call__(
        self,
        fn: Way,
        rotate: Rotation,
        *,
        bytes_moved: Traffic | None = None,
        flops: int = 0,
        baseline: Mapping[str, Way],
        peer: Mapping[str, Way] | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Measure `fn(*rotate[i])` with one thread, and ours and the best torch way with more.

        In inference mode, as decoding loops run.

        Args:
            fn: our way.
            rotate: inputs, used one after the other; together larger than any cache.
            bytes_moved: what a call has to move; gives GB/s and the share of the roof.
            flops: floating-point operations of a call; gives GFLOP/s.
            baseline: ways of doing the same in torch; the fastest one is compared with.
            peer: ways of other libraries.
            gate: how fast we have to be.
        """
        lanes = [Lane("torch", name, way) for name, way in baseline.items()]
        lanes += [Lane("peer", name, way) for name, way in (peer or {}).items()]
        lanes += [roof_lane(bytes_moved)] if bytes_moved else []
        ours = Lane("lmx", "lmx", fn)
        if self._benchmark.disabled:
            for lane in lanes:
                lane.fn(*rotate[0])
            self._benchmark.pedantic(fn, args=rotate[-1])
            return
        keep_freed_memory()
        device = self._case.device if self._case else "cpu"
        with threads(1):
            self._run([*lanes, ours], rotate, device)
            peak = peak_gflops(device, rotate[0][0].dtype) if flops else 0.0
        facts = self._case.facts() if self._case else {"device": device, "dtype": "", "rows": 1}
        result = self._about | facts
        result |= figures([*lanes, ours], bytes_moved, flops, peak, gate)
        if self._more_threads > 1 and device == "cpu":
            best = of_kind(lanes, "torch")[:1]
            result["more_threads"] = self._run_threaded([*best, ours], rotate)
        self._benchmark.extra_info.update(result)
        self._results.append(result)

    def _run(self, lanes: Sequence[Lane], rotate: Rotation, device: str) -> None:
        """Laps as pytest-benchmark's setup, so that its own statistics are those of our way."""
        race = Race(lanes, rotate, clock_of(device))
        rounds = race.rounds(self._min_rounds, self._max_seconds)
        ours = lanes[-1]  # the last one: its burst comes right before the call that is timed here

        def timed() -> None:
            ours.fn(*race.next_input())
            if device == "cuda":
                torch.cuda.synchronize()

        self._benchmark.pedantic(timed, setup=race.lap, rounds=rounds)

    def _run_threaded(self, lanes: Sequence[Lane], rotate: Rotation) -> Figures:
        fresh = [Lane(lane.kind, lane.name, lane.fn) for lane in lanes]
        with threads(self._more_threads):
            race = Race(fresh, rotate, clock_of("cpu"))
            for _ in range(race.rounds(self._min_rounds, self._max_seconds / 2)):
                race.lap()
        ours = fresh[-1]
        others = [compared(ours, lane) for lane in fresh[:-1]]
        return {"threads": self._more_threads, "lmx": times(ours), "torch": others}
