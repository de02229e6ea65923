"""Our own rules, which clang-format, ruff and mypy do not know. Run by ``make lint``."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 600
MAX_BYTES = 500_000
CODE = {".py", ".pyi", ".h", ".cpp", ".cu", ".cuh"}
TEXT = CODE | {".md", ".toml", ".txt", ".yaml", ".in", ".json", ".svg", ""}
MADE = {"build", "dist", "__pycache__"}

# A room may import these in Python: only what lies below it.
BELOW: dict[str, set[str]] = {
    "vocab": set(),
    "attention": set(),
    "layerskip": set(),
    "grammar": set(),
    "ngram": set(),
    "kvcache": {"vocab", "attention"},
    "tree": {"vocab", "attention", "kvcache"},
}
BELOW["models"] = set(BELOW)
BELOW["decode"] = {*BELOW["models"], "models"}

# What must not be there; in which files; in which one it may be; why.
RULES = [
    (r"\bpickle\b|\btorch\.load\b", r"\.py$", "tools/lint.py", "runs what a file says"),
    (r"(?<![\w.])eval\(", r"\.py$", "tools/lint.py", "runs what a text says"),
    (r"trust_remote_code\s*=\s*True", r"\.py$", "tools/lint.py", "runs what a model says"),
    (r"<<<", r"^csrc/", "", "kernels start through launch()"),
    (r"\b(asm|__asm__)\b", r"^csrc/.*\.cuh?$", "csrc/common/ptx.cuh", "PTX stands in ptx.cuh only"),
    (r"\b__shared__\b", r"^csrc/", "csrc/common/launch.h", "use shared_memory<T>()"),
    (r"#include\s*.(ATen|c10|torch/(extension|torch|all)\.h)", r"[hpu]$", "", "stable ABI only"),
    (r"[^\x00-\x7f]", r"^(?!tests/.*\.py$)", "", "ASCII only"),
    (r"(?<![\w.$})/:*])/(home|root|work|Users|mnt|tmp)/", r".", "", "a path of one machine"),
    (r"(pypi|pythonhosted|npmjs|pytorch)\.(org|com)", r".", "", "an address of a registry"),
    (r"[ \t]+$", r".", "", "space at the end of a line"),
]


def files() -> Iterator[Path]:
    """The text files of the tree, relative to it; nothing that a build or a tool made."""
    for folder, names, here in os.walk(ROOT):
        names[:] = [n for n in names if n not in MADE and (n == ".ci" or not n.startswith("."))]
        names[:] = [n for n in names if not n.endswith(".egg-info")]
        for name in here:
            path = Path(folder, name).relative_to(ROOT)
            if path.suffix in TEXT and (not name.startswith(".") or path.suffix == ".yaml"):
                yield path


def room_rules(path: PurePath, lines: list[str]) -> Iterator[tuple[int, str]]:
    """A room knows its own files, ``common`` and, in Python, the rooms below it."""
    if len(path.parts) < 3:
        return
    room = path.parts[1] if path.parts[0] == "csrc" else path.parts[2]
    for i, line in enumerate(lines, 1):
        if path.parts[0] == "csrc" and room != "common":
            include = re.match(r'#include "(?:\.\./)?(\w+)/', line)
            if include and include[1] not in {room, "common"}:
                yield i, f"{room} includes a header of {include[1]}: move it to common/"
        if path.parts[:2] == ("python", "lmx") and room in BELOW:
            used = re.match(r"\s*from (?:\.\.|lmx\.)(\w+)", line)
            if used and used[1] in BELOW and used[1] not in BELOW[room] | {room}:
                yield i, f"{room} imports {used[1]}, which is not below it"


def problems(path: PurePath, text: str) -> Iterator[tuple[int, str]]:
    """Line and rule of whatever is wrong with a file of the tree."""
    lines = text.split("\n")
    if path.suffix in CODE and len(lines) > MAX_LINES + 1:
        yield len(lines), f"more than {MAX_LINES} lines"
    if len(text) > MAX_BYTES:
        yield 1, f"more than {MAX_BYTES} bytes"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield len(lines), "a file ends with one newline"
    for rule, where, but, why in RULES:
        if re.search(where, path.as_posix()) and path.as_posix() != but:
            for i, line in enumerate(lines, 1):
                if found := re.search(rule, line):
                    yield i, f"{found[0]!r}: {why}"
    yield from room_rules(path, lines)


def main() -> int:
    """Print every problem as ``file:line: what``."""
    found = [(p, *x) for p in sorted(files()) for x in problems(p, (ROOT / p).read_text())]
    for path, line, what in found:
        print(f"{path}:{line}: {what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
