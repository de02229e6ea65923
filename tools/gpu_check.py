"""Check lmx on a machine with a GPU, offline, with its own Python and torch: ``make gpu-check``.

Builds, runs the op tests on CUDA, then one pass over the samples under each tool of
compute-sanitizer, then the benches. docs/gpu_results.json and docs/cuda.md say what passed. Exit
code 1 if anything failed, 2 if there is no GPU to check.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/gpu_results.json"
LOGS = ROOT / "build/gpu"
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
FOUND_ERRORS = 99  # what compute-sanitizer shall exit with; python and pytest never do
TESTS = [f"tests/{path.parent.name}" for path in sorted(ROOT.glob("csrc/*/bind.cpp"))]
TESTS += ["tests/test_ops_table.py", "tests/test_promises.py"]


def run(*command: str | Path, log: str = "", **env: str) -> int:
    """Run a command in the tree, importing lmx from it; with ``log``, what it prints goes there."""
    print("$", *command, flush=True)
    paths = f"{ROOT / 'python'}:{ROOT / 'tests'}"
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(LOGS / log if log else os.devnull, "w") as file:
        out = file if log else None
        env = os.environ | {"PYTHONPATH": paths} | env
        return subprocess.run(command, cwd=ROOT, env=env, stdout=out, stderr=out).returncode


def python(*arguments: str | Path, log: str = "", **env: str) -> int:
    """Run this Python."""
    return run(sys.executable, *arguments, log=log, **env)


# ---- op tests ------------------------------------------------------------------------------------


def ops_of(test: str, ops: list[str]) -> list[str]:
    """Return the operators that a test is about; all if its name does not say."""
    named = [op for op in ops if re.search(rf"\b{op}(?!\w)", test)]
    verb = [op for op in ops if re.search(rf"\btest_{op.split('_', 1)[1]}\b", test)]
    return named or verb or ops


def passed(report: Path, ops: list[str]) -> list[str]:
    """Return the operators that CUDA tests ran and no test failed, by pytest's XML report."""
    ran: set[str] = set()
    failed: set[str] = set()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.update(ops_of(name, ops))
        elif case.find("skipped") is None and "cuda" in name:
            ran.update(op for op in ops if op in name)
    return sorted(ran - failed)


# ---- sanitizers ----------------------------------------------------------------------------------


def run_samples() -> None:
    """Run some samples of each operator on the GPU, saying which; this is what is sanitized."""
    import torch
    from samples import SAMPLES, samples_of  # type: ignore[import-not-found]

    import lmx  # noqa: F401

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(v) for v in value]
        return value.cuda() if isinstance(value, torch.Tensor) else value

    for op in SAMPLES:
        print(f"op {op}", flush=True)
        samples = samples_of(op)
        for sample in samples[:: max(1, len(samples) // 8)]:
            there = sample.map(lambda _, value: moved(value))
            getattr(torch.ops.lmx, op)(*there.args, **there.kwargs)
            torch.cuda.synchronize()


def sanitized(tool: str, program: str, ops: list[str]) -> list[str] | None:
    """Return the operators that a tool finds nothing wrong with; None if it does not work here."""
    log = f"{tool}.log"
    code = run(
        *(program, "--tool", tool, "--error-exitcode", str(FOUND_ERRORS)),
        *(sys.executable, Path(__file__), "--samples"),
        log=log,
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",  # every tensor a block of its own: no slack to hide in
    )
    said = (LOGS / log).read_text()
    if code == 0 and re.search(r"SUMMARY: 0 (errors|hazards)", said):
        return ops
    parts = re.split(r"^op (\w+)$", said, flags=re.MULTILINE)
    if code != FOUND_ERRORS or len(parts) < 2 * len(ops):
        lines = [line for line in said.splitlines() if "rror" in line or "not supported" in line]
        print(f"{tool} does not work here: {(lines or ['no message'])[0].strip('= ')}")
        return None
    dirty = {op for op, text in zip(parts[1::2], parts[2::2], strict=True) if "=========" in text}
    print(f"{tool} complains about {', '.join(sorted(dirty)) or 'something'}: see {LOGS / log}")
    return [op for op in ops if op not in dirty] if dirty else []


def find_sanitizer() -> str | None:
    """Find compute-sanitizer: on PATH or beside nvcc."""
    places = [os.environ["PATH"], f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(places))


# ---- all of it -----------------------------------------------------------------------------------


def commit() -> str:
    """Return the commit of the tree, if it is a repository."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(git, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def write(entry: dict[str, Any]) -> None:
    """Put this run at the end of the list, in place of its own earlier state."""
    runs = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    key = ("gpu", "date", "commit")
    runs = [r for r in runs if any(r[k] != entry[k] for k in key)] + [entry]
    RESULTS.write_text(json.dumps(runs, indent=1) + "\n")


def main() -> int:
    """Run every step; a step that cannot run says so and the next one follows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commit", default=commit(), help="where the tree is no repository")
    parser.add_argument("--samples", action="store_true", help="only run the samples on the GPU")
    args = parser.parse_args()
    if find_spec("torch") is None:
        print("gpu-check: this Python has no torch; give one that has: make gpu-check PYTHON=...")
        return 2
    import torch

    if not torch.cuda.is_available():
        print(f"gpu-check: torch {torch.__version__} sees no CUDA device")
        return 2
    if args.samples:
        run_samples()
        return 0

    if python("setup.py", "-q", "build_ext", "--inplace") != 0:
        return 1
    facts = "import lmx; print(lmx.no_cuda); raise SystemExit(bool(lmx.no_cuda))"
    if python("-c", facts) != 0:
        return 1
    source = re.sub(r'"\s*\n\s*"', "", (ROOT / "csrc/ops.cpp").read_text())
    ops = re.findall(r'm\.def\(\s*"(\w+)\(', source)
    entry: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "date": datetime.date.today().isoformat(),
        "commit": args.commit,
        "torch": torch.__version__,
        "passed": [],
        "sanitized": [],
        "tools": {},
    }

    has_benchmark = find_spec("pytest_benchmark") is not None
    plain = [] if has_benchmark else ["-o", "addopts=-q --strict-markers"]
    report = LOGS / "tests.xml"
    is_good = python("-m", "pytest", *plain, "-k", "not simt", f"--junitxml={report}", *TESTS) == 0
    entry["passed"] = passed(report, ops)
    write(entry)

    program = find_sanitizer()
    if program is None:
        print("compute-sanitizer is not installed here")
    for tool in SANITIZERS if program else ():
        entry["tools"][tool] = sanitized(tool, str(program), ops)
        is_good &= entry["tools"][tool] in (None, ops)
    clean = [set(found) for found in entry["tools"].values() if found is not None]
    entry["sanitized"] = sorted(set.intersection(*clean)) if clean else []
    write(entry)

    if has_benchmark:
        figures = LOGS / "bench.json"
        bench = ["--benchmark-enable", f"--benchmark-json={figures}", "-k", "cuda"]
        is_good &= python("-m", "pytest", "bench", *bench) == 0
        python("tools/bench_docs.py", figures)
    else:
        print("pytest-benchmark is not installed here: no benches")
    python("tools/cuda_docs.py")
    print(f"{RESULTS.relative_to(ROOT)}: passed {entry['passed']}, sanitized {entry['sanitized']}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
