"""Write docs/benchmarks.md and its plots from docs/results/, one file per kind of machine.

    pytest bench --benchmark-enable --benchmark-json=build/bench.json
    python tools/bench_docs.py build/bench.json   # take in a run, then write the page
    python tools/bench_docs.py                    # write the page
    python tools/bench_docs.py --check            # exit 1 if page or plots do not match the results

A results file holds the newest run on its kind of machine; older ones are in the history. It names
no hosts, users or folders. Plots need matplotlib (`pip install lmx[plots]`); --check does not.
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RESULTS = DOCS / "results"
PAGE = DOCS / "benchmarks.md"
Run = dict[str, Any]
Bench = dict[str, Any]

HEAD = """\
# Benchmarks

<!-- Written by tools/bench_docs.py from docs/results/. Nobody types a number here. -->

`make bench` measures on your machine, checks the gates and writes this page; it takes about ten
minutes. Every line is measured in one process: lmx, torch's ways, the peers and the roof take turns
on the same rotation of inputs, 600 MiB in all, so that no cache holds them.

- **min, median**: microseconds of one call of `lmx.<room>.<op>`, one thread.
- **GB/s, roof**: the bytes that a call has to move per second of the minimum, and the share of what
  torch reached in the same run by only moving as many bytes (the name says how).
- **best torch way**: the fastest of the ways in `bench/<room>_torch.py`.
- **ratio**: how many times our time it took, by the minimum, and by the median in brackets.
- **2 threads**: our minimum with two threads, and the ratio to the same torch way with two.
- **peer**: the same for another library.
"""


# ---- taking in a run -----------------------------------------------------------------------------


def rounded(value: Any) -> Any:
    """Four significant digits are more than a time is worth."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def slug(run: Run) -> str:
    """The name of a kind of machine: its GPU if that was measured, else its processor and level."""
    machine = run["machine"]
    on_gpu = any(bench["device"] == "cuda" for bench in run["benches"])
    name = machine["gpu"] if on_gpu else f"{machine['cpu']} {machine['isa']}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def take_in(raw: dict[str, Any]) -> Path:
    """Keep of pytest-benchmark's JSON what the page needs."""
    benches = [b["extra_info"] for b in raw["benchmarks"] if "lmx" in b["extra_info"]]
    if not benches:
        raise SystemExit("the file has no benches of lmx")
    commit = raw["commit_info"]
    run: Run = {
        "date": raw["datetime"][:10],
        "commit": commit["id"][:12],
        "changed": bool(commit["dirty"]),
        "machine": rounded(raw["machine_info"]),
        "benches": rounded(benches),
    }
    head = {key: value for key, value in run.items() if key != "benches"}
    lines = ",\n".join(json.dumps(bench) for bench in run["benches"])
    path = RESULTS / f"{slug(run)}.json"
    RESULTS.mkdir(exist_ok=True)
    path.write_text(f'{json.dumps(head)[:-1]}, "benches": [\n{lines}\n]}}\n')
    return path


def load() -> dict[str, Run]:
    """All runs, by slug."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def digest(run: Run) -> str:
    """What a plot shows, in 16 digits."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]


# ---- the page ------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; columns after the first two are numbers."""
    marks = ["---"] * 2 + ["---:"] * (len(head) - 2)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows]) + "\n"


def microseconds(seconds: float) -> str:
    """Three digits."""
    value = seconds * 1e6
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ratio(way: dict[str, Any]) -> str:
    """How many times our time another way took, by minimum and by median."""
    return f"{way['ratio']:.2f} ({way['ratio_median']:.2f})"


def op_name(bench: Bench) -> str:
    """The op and its variant."""
    return f"`{bench['op']}`" + (f" {bench['variant']}" if bench["variant"] else "")


def bench_row(bench: Bench) -> list[str]:
    """One line of a table."""
    ours, more = bench["lmx"], bench.get("more_threads")
    best = bench["torch"][0] if bench["torch"] else None
    threaded = ""
    if more:
        threaded = microseconds(more["lmx"]["min"])
        threaded += f", {more['torch'][0]['ratio']:.2f}" if more["torch"] else ""
    return [
        op_name(bench),
        best["name"] if best else "",
        str(bench["rows"]),
        microseconds(ours["min"]),
        microseconds(ours["median"]),
        ratio(best) if best else "",
        f"{bench['gbs']:.1f}" if "gbs" in bench else "",
        f"{bench['roof_percent']:.0f} % of {bench['roof']['name']}" if "roof" in bench else "",
        threaded,
        ", ".join(f"{peer['name']} {ratio(peer)}" for peer in bench["peers"]),
    ]


def gate_row(bench: Bench) -> list[str]:
    """One line of the table of gates."""
    gate = bench["gate"]
    verdict = "passed" if gate["passed"] else "**failed**"
    return [
        op_name(bench),
        gate["name"],
        str(bench["rows"]),
        f"{gate['at_least']:.2f}",
        ratio(gate),
        verdict,
    ]


def section(name: str, run: Run) -> str:
    """The page's part about one kind of machine."""
    machine = run["machine"]
    commit = f"{run['commit']}{', with changes' if run['changed'] else ''}"
    gbs = machine["cpu_gbs"]
    facts = (
        f"{run['date']}, commit {commit}. Level {machine['isa']}, {machine['cores']} cores, torch "
        f"{machine['torch']}; load {machine['load']:.1f} at the end. One thread reads "
        f"{gbs['read']:.1f} GB/s and copies {gbs['copy']:.1f} GB/s."
    )
    if "gpu" in machine:
        gbs = machine["gpu_gbs"]
        facts += f" {machine['gpu']} reads {gbs['read']:.0f} and copies {gbs['copy']:.0f} GB/s."
    parts = [f"## {machine.get('gpu', machine['cpu'])}\n", facts + "\n"]
    if gated := [gate_row(bench) for bench in run["benches"] if "gate" in bench]:
        head = ["gate", "against", "rows", "at least", "reached", ""]
        parts += ["### Gates\n", table(head, gated)]
    parts.append(f"![Times of torch's ways over ours]({PAGE.stem}-{name}.svg)\n")
    head = ["op", "best torch way", "rows", "min", "median", "ratio", "GB/s", "roof"]
    head += ["2 threads", "peer"]
    settings = sorted({(b["device"], b["dtype"]) for b in run["benches"]}, key=lambda s: s[1] < "c")
    for device, dtype in settings:
        mine = [b for b in run["benches"] if (b["device"], b["dtype"]) == (device, dtype)]
        parts += [f"### {device}, {dtype}\n", table(head, [bench_row(bench) for bench in mine])]
    return "\n".join(parts)


def page(runs: dict[str, Run]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(name, run) for name, run in runs.items())])


# ---- the plots -----------------------------------------------------------------------------------


def plotted(run: Run) -> tuple[str, list[int], dict[str, dict[int, float]]]:
    """What a plot shows: its setting, the numbers of rows, and ratios by op and rows."""
    device = run["benches"][-1]["device"]
    benches = [b for b in run["benches"] if (b["device"], b["dtype"]) == (device, "f32")]
    ratios: dict[str, dict[int, float]] = {}
    for bench in benches:
        if bench["torch"] and bench["op"] != "uniform":
            name = op_name(bench).replace("`", "")
            ratios.setdefault(name, {})[bench["rows"]] = bench["torch"][0]["ratio"]
    rows = sorted({count for by_rows in ratios.values() for count in by_rows})
    return f"{device}, float32", rows, ratios


def plot(path: Path, run: Run) -> None:
    """Bars of the ratio to the best torch way; the same bytes for the same run and matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "lmx", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    setting, rows, ratios = plotted(run)
    names = list(ratios)[::-1]
    figure, axes = pyplot.subplots(figsize=(7.5, 0.8 + 0.26 * len(names)))
    height = 0.8 / len(rows)
    for i, count in enumerate(rows):
        at = [y + (len(rows) / 2 - i - 0.5) * height for y in range(len(names))]
        values = [ratios[name].get(count, 1.0) for name in names]
        label = "1 row" if count == 1 else f"{count} rows"
        axes.barh(at, [v - 1 for v in values], height, left=1, label=label, color=f"C{i}")
    axes.set_xscale("log")
    top = max(max(by_rows.values()) for by_rows in ratios.values())
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if t <= 2 * top]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{t:g}x" for t in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_title(f"Time of the best torch way over ours ({setting}, one thread)", fontsize=10)
    metadata = {"Date": None, "Creator": None, "Description": f"data {digest(run)}"}
    figure.savefig(path, metadata=metadata, bbox_inches="tight")
    pyplot.close(figure)
    lines = [line.rstrip() for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")


def plot_path(name: str) -> Path:
    """Where the plot of a machine is."""
    return DOCS / f"{PAGE.stem}-{name}.svg"


# ---- the command ---------------------------------------------------------------------------------


def stale(runs: dict[str, Run]) -> list[str]:
    """The files that do not match the results."""
    found = [] if PAGE.exists() and PAGE.read_text() == page(runs) else [PAGE.name]
    for name, run in runs.items():
        path = plot_path(name)
        if not path.exists() or f"data {digest(run)}" not in path.read_text():
            found.append(path.name)
    return found


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", type=Path, help="pytest-benchmark's JSON, to take in")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    args = parser.parse_args()
    if args.run and not args.check:
        print(f"wrote {take_in(json.loads(args.run.read_text())).relative_to(ROOT)}")
    runs = load()
    if args.check:
        for name in (old := stale(runs)):
            print(f"docs/{name} is out of date: python tools/bench_docs.py")
        return 1 if old else 0
    PAGE.write_text(page(runs))
    try:
        for name, run in runs.items():
            plot(plot_path(name), run)
    except ModuleNotFoundError as error:
        print(f"no plots: {error.name} is missing (pip install lmx[plots])", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
