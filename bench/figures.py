"""From seconds to what is reported: a plain dict per bench, part of pytest-benchmark's JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .race import Lane
from .roof import Traffic

Figures = dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """How many times as fast as the best way of a kind we must be, by the minimum of the times.

    Only ways whose name begins with `against` count. Of kind "roof": the share of it.
    """

    at_least: float
    against: str = ""
    kind: str = "torch"


def times(lane: Lane) -> Figures:
    return {
        "name": lane.name,
        "min": lane.min,
        "median": lane.median,
        "samples": len(lane.seconds),
    }


def of_kind(lanes: Sequence[Lane], kind: str, name: str = "") -> list[Lane]:
    """The lanes of a kind whose name begins with `name`, the fastest first."""
    mine = [lane for lane in lanes if lane.kind == kind and lane.name.startswith(name)]
    return sorted(mine, key=lambda lane: lane.min)


def compared(ours: Lane, other: Lane) -> Figures:
    """The times of another way and how many times as long it takes."""
    ratios = {"ratio": other.min / ours.min, "ratio_median": other.median / ours.median}
    return times(other) | ratios


def figures(
    lanes: Sequence[Lane],
    traffic: Traffic | None,
    flops: int,
    peak_gflops: float,
    gate: Gate | None,
) -> Figures:
    [ours] = of_kind(lanes, "lmx")
    result: Figures = {
        "lmx": times(ours),
        "torch": [compared(ours, lane) for lane in of_kind(lanes, "torch")],
        "peers": [compared(ours, lane) for lane in of_kind(lanes, "peer")],
    }
    at_best = 0.0  # seconds that the roofs leave
    if traffic:
        [roof] = of_kind(lanes, "roof")
        at_best = roof.min
        result |= {
            "bytes": traffic.total,
            "gbs": traffic.total / ours.min / 1e9,
            "roof": times(roof),
        }
    if flops:
        at_best = max(at_best, flops / peak_gflops / 1e9)
        result |= {"flops": flops, "gflops": flops / ours.min / 1e9, "peak_gflops": peak_gflops}
    if at_best:
        result["roof_percent"] = 100 * at_best / ours.min
    if gate:
        best = compared(ours, of_kind(lanes, gate.kind, gate.against)[0])
        passed = best["ratio"] >= gate.at_least
        result["gate"] = best | {"at_least": gate.at_least, "passed": passed}
    return result


def label(f: Figures) -> str:
    parts = (f["op"], f["variant"], f.get("device"), f.get("dtype"), f.get("rows"))
    return " ".join(str(part) for part in parts if part)


def _ratio(c: Figures) -> str:
    return f"{c['ratio']:.2f}x {c['name']} (median {c['ratio_median']:.2f}x)"


def line(f: Figures) -> str:
    ours = f["lmx"]
    cells = [
        f"{label(f):44} min {ours['min'] * 1e6:9.1f} us  median {ours['median'] * 1e6:9.1f} us"
    ]
    if "gbs" in f:
        cells.append(f"{f['gbs']:6.1f} GB/s")
    if "gflops" in f:
        cells.append(f"{f['gflops']:7.1f} GFLOP/s")
    if "roof_percent" in f:
        roof = f["roof"]["name"] if "roof" in f else "mm"
        cells.append(f"{f['roof_percent']:4.0f} % of {roof}")
    cells += [_ratio(f["torch"][0])] if f["torch"] else []
    cells += ["peer " + _ratio(peer) for peer in f["peers"]]
    if "more_threads" in f:
        more = f["more_threads"]
        cells.append(f"{more['threads']} threads: {more['lmx']['min'] * 1e6:.1f} us")
        cells += [_ratio(way) for way in more["torch"]]
    return "  ".join(cells)


def gate_line(f: Figures) -> str:
    gate = f["gate"]
    verdict = "PASS" if gate["passed"] else "FAIL"
    return f"{verdict}  {label(f):44} at least {gate['at_least']:.2f}x: {_ratio(gate)}"
