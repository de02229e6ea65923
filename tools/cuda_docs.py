"""Write the tables of docs/cuda.md: for each kernel, where it was compiled, emulated and run.

    python tools/cuda_docs.py --ptxas build/cuda.log   # what `nvcc -Xptxas -v` printed
    python tools/cuda_docs.py --emulate                # run the samples on the harness (a minute)
    python tools/cuda_docs.py --check                  # exit 1 if the page is out of date

The page is its own memory: a cell whose source was not given keeps what it says. `ran` and
`sanitized` come from docs/gpu_results.json, a list of runs, oldest first:
``{"gpu": "NVIDIA H100", "date": "2026-01-31", "commit": "1a2b3c4", "passed": [op, ...],
"sanitized": [op, ...]}``. A kernel counts as run when all ops that launch it passed.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cuda.md"
RESULTS = ROOT / "docs" / "gpu_results.json"
SIMT = ROOT / "build" / "tests" / "simt" / "liblmx_simt.so"
BEGIN, END = "<!-- tables: python tools/cuda_docs.py -->", "<!-- end of tables -->"
ARCHITECTURES = ("sm_80", "sm_90a")
COLUMNS = ("kernel", "emulated", "threads", "shared", *ARCHITECTURES, "ran", "sanitized")


@dataclass
class Kernel:
    """One __global__ function and the cells of its row."""

    room: str
    file: str
    name: str
    cells: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Its qualified name, as far as it tells kernels apart."""
        return self.room, self.name


def find_kernels() -> list[Kernel]:
    """Return every kernel of csrc/, in the order of the files."""
    kernels = []
    for path in sorted(ROOT.glob("csrc/*/*.cu*")):
        code = re.sub(r"//.*", "", path.read_text())
        code = re.sub(r"__launch_bounds__\s*(\((?:[^()]|\([^()]*\))*\))", "", code)
        for name in re.findall(r"__global__\s+void\s+(\w+)\s*\(", code):
            kernels.append(Kernel(path.parent.name, path.name, name))
    return kernels


# ---- compiled ------------------------------------------------------------------------------------


def read_ptxas(log: str, kernels: list[Kernel]) -> None:
    """Fill in registers and spills, the worst of a kernel's instances, from nvcc's -Xptxas -v."""
    pattern = (
        r"Compiling entry function '(\w+)' for '(\w+)'.*?"
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    )
    found: dict[tuple[tuple[str, str], str], list[tuple[int, int]]] = defaultdict(list)
    for symbol, arch, stores, loads, registers in re.findall(pattern, log, re.DOTALL):
        for k in kernels:
            # A mangled name holds each part of the qualified name behind its length.
            if all(f"{len(part)}{part}" in symbol for part in k.key):
                found[k.key, arch].append((int(registers), int(stores) + int(loads)))
    for k in kernels:
        for arch in ARCHITECTURES:
            if instances := found[k.key, arch]:
                registers, spills = (max(column) for column in zip(*instances, strict=True))
                k.cells[arch] = f"{registers} registers" + (f", {spills} B spilled" * (spills > 0))


# ---- emulated ------------------------------------------------------------------------------------


class Launched(ctypes.Structure):
    """struct SimtLaunched of tests/simt/harness.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("kernel", "threads", "shared_bytes")]


def read_names() -> dict[int, tuple[str, str]]:
    """Return room and name, without template arguments, of each function by its offset."""
    listed = subprocess.run(["nm", "-C", SIMT], capture_output=True, text=True, check=True).stdout
    names = {}
    listed = listed.replace("(anonymous namespace)::", "")
    listed = re.sub(r"\([\w:]+\)(?=\d)", "", listed)  # an enumerator among template arguments
    for line in listed.splitlines():
        if match := re.match(r"(\w+) [tTwW] (?:void )?lmx::(\w+)::(\w+)(?:<[^()]*>)?\(", line):
            names[int(match[1], 16)] = match[2], match[3]
    return names


def emulate(kernels: list[Kernel]) -> None:
    """Run every sample of every op on the harness and fill in which kernels that launched."""
    import torch

    sys.path.insert(0, str(ROOT / "tests"))
    samples = importlib.import_module("samples")
    torch.ops.load_library(str(SIMT))
    take = ctypes.CDLL(str(SIMT)).simt_launched
    names, buffer = read_names(), (Launched * 1024)()
    ops: dict[tuple[str, str], set[str]] = defaultdict(set)
    sizes: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for op in samples.SAMPLES:
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"lmx_simt::{op}", "CPU"):
            continue  # a host op
        for sample in samples.samples_of(op):
            fresh = sample.fresh()
            getattr(torch.ops.lmx_simt, op)(*fresh.args, **fresh.kwargs)
        for launched in buffer[: take(buffer, len(buffer))]:
            ops[names[launched.kernel]].add(op)
            sizes[names[launched.kernel]].append((launched.threads, launched.shared_bytes))
    for k in kernels:
        k.cells["emulated"] = ", ".join(f"`{op}`" for op in sorted(ops[k.key]))
        threads, shared = (max(column) for column in zip(*sizes[k.key] or [(0, 0)], strict=True))
        k.cells["threads"], k.cells["shared"] = str(threads or ""), f"{shared} B" * (threads > 0)


# ---- ran, sanitized ------------------------------------------------------------------------------


def read_results(kernels: list[Kernel]) -> None:
    """Fill in the newest run on a GPU that passed all ops of a kernel."""
    for k in kernels:
        k.cells["ran"] = k.cells["sanitized"] = ""
    for run in json.loads(RESULTS.read_text()) if RESULTS.exists() else []:
        where = f"{run['gpu']}, {run['date']}, {run['commit']}"
        for k in kernels:
            ops = set(re.findall(r"`(\w+)`", k.cells.get("emulated", "")))
            for column, passed in (("ran", run["passed"]), ("sanitized", run["sanitized"])):
                if ops and ops <= set(passed):
                    k.cells[column] = where


# ---- the page ------------------------------------------------------------------------------------


def read_page(page: str, kernels: list[Kernel]) -> None:
    """Take over the cells of the tables that stand on the page."""
    known = {(k.file, k.name): k for k in kernels}
    for row in re.findall(r"^\| `([^`]+)`: `(\w+)` \|(.*)\|$", page, re.MULTILINE):
        if k := known.get((row[0], row[1])):
            cells = [cell.strip() for cell in row[2].split("|")]
            k.cells = dict(zip(COLUMNS[1:], cells, strict=True))


def tables(kernels: list[Kernel]) -> str:
    """Return one table per room."""
    lines = []
    for room in dict.fromkeys(k.room for k in kernels):
        lines += [f"### {room}", "", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        for k in kernels:
            if k.room == room:
                cells = [f"`{k.file}`: `{k.name}`", *(k.cells.get(c, "") for c in COLUMNS[1:])]
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ptxas", type=Path, help="what nvcc -Xptxas -v printed")
    parser.add_argument("--emulate", action="store_true", help="run the samples on the harness")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    args = parser.parse_args()

    page = PAGE.read_text()
    kernels = find_kernels()
    read_page(page, kernels)
    if args.ptxas:
        read_ptxas(args.ptxas.read_text(), kernels)
    if args.emulate:
        emulate(kernels)
    read_results(kernels)

    before, _, rest = page.partition(BEGIN)
    new = f"{before}{BEGIN}\n\n{tables(kernels)}\n{END}{rest.partition(END)[2]}"
    stale = bool(args.check) and new != page
    wrong = ["its tables differ from what tools/cuda_docs.py writes"] * stale
    for k in kernels:
        empty = [c for c in ("emulated", *ARCHITECTURES) if not k.cells.get(c)]
        if empty:
            wrong.append(f"{k.room}/{k.file}: {k.name} has no entry under {', '.join(empty)}")
    if not args.check:
        PAGE.write_text(new)
    for message in wrong:
        print(f"docs/cuda.md: {message}", file=sys.stderr)
    return int(bool(args.check and wrong))


if __name__ == "__main__":
    sys.exit(main())
