"""Plant bugs of one token in the kernels and count how many the tests notice: ``make mutants``.

    python tools/mutants.py [--room vocab] [--count 100] [--seed 0] [--jobs 2] [--only FILE:LINE]

The kernels are those of a room, with `vocab` what all rooms share too; the tests are the room's and
the promises of its ops (of all ops, for what is shared). The sample is the same for a seed and a
tree. Every worker has its own copy of the tree in a temporary folder; a mutant is one changed file
there, of which only what depends on it is compiled and linked again, at level v3, which every
machine has. Not counted, and replaced by the next of the sample, is a mutant that does not compile
or whose object files are those of the original. Exit code 1 if fewer than 95 % are killed.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = (*(f"csrc/common/{n}.h" for n in ("exact", "draw", "philox", "vec")),
          "csrc/common/warp.cuh")  # fmt: skip
COPIED = ("csrc", "python/lmx", "tests", "CMakeLists.txt", "pyproject.toml")
OP_PREFIXES = {"layerskip": "skip_", "kvcache": "kv_"}  # others are the room's name
# Tests that a change on one side alone cannot reach.
NOT_CPU = "not cpu and not thread_count_changes_nothing"
NOT_SIMT = "not simt and not order_of_threads_changes_nothing"
NO_TESTS = 5  # pytest's exit code where no test is selected
OPTIMISE = "-O1"
GOAL = 0.95
ASLEEP = 600.0  # seconds of the clock without a word: a deadlock
MEMORY = 6 << 30  # a mutant may append to a vector for ever

# ---- tokens -------------------------------------------------------------------------------------
TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<directive>^[ \t]*\#(?:[^\n\\]|\\.|\\\n)*)
      | (?P<text>(?:u8|[uUL])?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      | (?P<number>\.?\d(?:[eEpP][+-]|[\w.])*)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<sign><<=|>>=|<=>|->\*|\.\.\.|::|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|.)""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
# Halves of an #if that are not compiled here: those of nvcc, and of a higher level than v3.
NOT_COMPILED = re.compile(r"__AVX512|__CUDA_ARCH__|__CUDACC__")


@dataclass(frozen=True)
class Token:
    """One token of a file; `before` and `after` say whether white space stands there."""

    kind: str
    text: str
    start: int
    before: bool
    after: bool


def tokens_of(code: str) -> list[Token]:
    """The tokens that reach the compiler, without comments and directives."""
    found: list[Token] = []
    conditions: list[bool] = []  # of the open #ifs: whether this half is compiled
    for m in TOKEN.finditer(code):
        kind, text = m.lastgroup or "", m[0]
        if kind == "directive":
            word = text.lstrip("# \t")
            if word.startswith("if"):
                conditions.append(not NOT_COMPILED.search(word) or word.startswith("ifndef"))
            elif word.startswith(("else", "elif")):
                conditions[-1] = not conditions[-1]
            elif word.startswith("endif"):
                conditions.pop()
        elif kind != "space" and all(conditions):
            start, end = m.span()
            before, after = code[start - 1 : start].isspace(), code[end : end + 1].isspace()
            found.append(Token(kind, text, start, before, after))
    return found


# ---- what is left alone -------------------------------------------------------------------------
# A rule names a kind of code where a change alters no result, or only what a message says.

# Names that choose how fast and not what: split points, widths, sizes of buffers, one of two ways.
SPEED = re.compile(r"(k(Grain\w*|\w*Threads|Capacity|Pairwise|Small|MaxRounds)|aligned|few)$")
# Functions that word a message, and filters, of which only cost depends on how exact they are.
BODIES = re.compile(r"std :: string \w+ \(|\b(?:bool|float|uint32_t) (?:needs_\w+|\w+_floor) \(")
WORDS_BEFORE_EXPRESSIONS = {"return", "else", "case", "throw"}


def closing(tokens: list[Token], at: int, opens: str = "(", closes: str = ")") -> int:
    """The position of the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(tokens)):
        depth += (tokens[i].text == opens) - (tokens[i].text == closes)
        if depth == 0:
            return i
    return len(tokens) - 1


def statements(tokens: list[Token]) -> Iterator[tuple[int, int]]:
    """Begin and end of each piece between `;`, `{` and `}`; those of a for's head are not ends."""
    begin, depths = 0, [0]  # of round brackets, in each pair of braces
    for i, t in enumerate(tokens):
        depths[-1] += (t.text == "(") - (t.text == ")")
        if t.text in "{}" or (t.text == ";" and depths[-1] == 0):
            yield begin, i
            begin = i + 1
        if t.text == "{":
            depths.append(0)
        elif t.text == "}":
            depths.pop()


def arguments(tokens: list[Token], opening: int) -> list[tuple[int, int]]:
    """Begin and end of the arguments of the call whose bracket opens at `opening`."""
    end, depth, begin, found = closing(tokens, opening), 0, opening + 1, []
    for i in range(opening + 1, end):
        depth += (tokens[i].text in "([{") - (tokens[i].text in ")]}")
        if tokens[i].text == "," and depth == 0:
            found.append((begin, i))
            begin = i + 1
    return [*found, (begin, end)]


def left_alone(tokens: list[Token]) -> set[int]:
    """The positions of tokens that no mutant changes."""
    words = [t.text for t in tokens]
    skipped: set[int] = set()
    for begin, end in statements(tokens):
        piece = words[begin:end]
        speed = [i for i in range(begin, end) if SPEED.match(words[i])]
        if any(words[i + 1] == "=" for i in speed):
            skipped.update(range(begin, end))  # the definition of such a name
        if "throw" in piece:
            skipped.update(range(begin + piece.index("throw"), end))
        elif any(t.kind == "text" for t in tokens[begin:end]):
            is_check = piece[:1] == ["STD_TORCH_CHECK"]
            skipped.update(range(arguments(tokens, begin + 1)[0][1] if is_check else begin, end))
        if "static_assert" in piece or "alignas" in piece:
            skipped.update(range(begin, end))
        if words[end] == "{" and BODIES.search(" ".join(piece)):
            skipped.update(range(begin, closing(tokens, end, "{", "}")))
    for i, word in enumerate(words):
        if word == "parallel_for" and words[i + 1] == "(":
            skipped.update(range(*arguments(tokens, i + 1)[2]))  # the grain
        if word == "launch" and words[i + 1] == "(":
            skipped.update(range(*arguments(tokens, i + 1)[3]))  # bytes of shared memory: 0 or more
        if SPEED.match(word):  # a border between two ways to the same result
            skipped.update(j for j in (i - 1, i + 1) if words[j] in RELATIONS)
        if word == "[" and tokens[i - 1].kind == "name" and i > 1:  # the extent of an array
            typed = tokens[i - 2].kind == "name" and words[i - 2] not in WORDS_BEFORE_EXPRESSIONS
            if typed or (words[i - 2] == "," and words[i - 1].islower() and tokens[i].before):
                skipped.update(range(i, closing(tokens, i, "[", "]")))
    return skipped


# ---- mutants ------------------------------------------------------------------------------------
RELATIONS = {"<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"),
             "==": ("!=",), "!=": ("==",)}  # fmt: skip
BINARY = RELATIONS | {
    "+": ("-",), "-": ("+",), "*": ("/", "+"), "/": ("*",), "%": ("/",), "<<": (">>",),
    ">>": ("<<",), "&": ("|",), "|": ("&",), "^": ("|",), "&&": ("||",), "||": ("&&",),
    "+=": ("-=",), "-=": ("+=",), "*=": ("/=",), "/=": ("*=",), "&=": ("|=",), "|=": ("&=", "="),
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "min_element": "max_element", "ceil": "floor", "ceilf": "floorf",
    "true": "false", "false": "true", "break": "continue", "continue": "break",
    "__any_sync": "__all_sync", "__syncthreads_or": "__syncthreads_and",
    "__shfl_xor_sync": "__shfl_down_sync", "warp_max": "warp_sum", "warp_sum": "warp_max",
    "_CMP_GT_OQ": "_CMP_GE_OQ", "_CMP_GE_OQ": "_CMP_GT_OQ", "_mm256_max_ps": "_mm256_min_ps",
    "_mm256_min_ps": "_mm256_max_ps", "_mm256_fmadd_ps": "_mm256_fmsub_ps",
    "_MM_FROUND_TO_NEAREST_INT": "_MM_FROUND_TO_NEG_INF", "__builtin_rintf": "__builtin_floorf",
}  # fmt: skip
BARRIERS = {"__syncthreads", "__syncwarp"}


def number_mutants(text: str) -> list[str]:
    """The next and the last integer; a float whose first digit is one higher."""
    if m := re.fullmatch(r"(0x[\da-f]+|\d+)(u?l{0,2})", text, re.IGNORECASE):
        value, form = int(m[1], 0), "#x" if "x" in m[1] else "d"
        return [f"{v:{form}}{m[2]}" for v in (value + 1, value - 1) if v >= 0]
    if first := re.search(r"[1-9]", text):
        digit = int(first[0])
        changed = digit - 1 if digit == 9 else digit + 1
        return [f"{text[: first.start()]}{changed}{text[first.end() :]}"]
    return ["1" + text[1:]]


def token_mutants(tokens: list[Token], at: int) -> list[str]:
    """What may stand in a token's place."""
    t = tokens[at]
    next_word = tokens[at + 1].text if at + 1 < len(tokens) else ""
    if t.kind == "number":
        return number_mutants(t.text)
    if t.text in BINARY and t.before and t.after:  # clang-format puts no space around the others
        return list(BINARY[t.text])
    if t.text in "-!~" and not t.after and tokens[at - 1].text != "operator":
        return [""]
    if t.text in BARRIERS and tokens[at + 3].text == ";":
        return ["static_cast<void>"]
    if t.text in NAMES and (next_word in "(<,;|)" or t.text.startswith("_")):
        return [NAMES[t.text]]
    return []


@dataclass(frozen=True)
class Mutant:
    """One changed token of one file."""

    file: str
    start: int
    old: str
    new: str
    line: int
    code: str  # the line that holds it, as it was

    def apply(self, code: str) -> str:
        """The file's text with the change."""
        return code[: self.start] + self.new + code[self.start + len(self.old) :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.old} -> {self.new or 'nothing'}   in   {self.code}"


def mutants_of(file: str, code: str, seed: int) -> Iterator[tuple[float, Mutant]]:
    """One mutant for each token that has any, with its rank among all of them.

    Both depend on the seed and the token alone: what is done elsewhere leaves them as they are.
    """
    tokens = tokens_of(code)
    skipped = left_alone(tokens)
    for i, t in enumerate(tokens):
        choices = [] if i in skipped else token_mutants(tokens, i)
        if choices:
            rng = random.Random(f"{seed} {file} {i} {t.text}")
            line = code.count("\n", 0, t.start) + 1
            shown = code.split("\n")[line - 1].strip()
            new = rng.choice(choices)
            yield rng.random(), Mutant(file, t.start, t.text, new, line, shown)


def sample(seed: int, room: str = "vocab", root: Path = ROOT) -> list[Mutant]:
    """All candidates in the order in which they are tried."""
    patterns = (f"csrc/{room}/*", *(SHARED if room == "vocab" else ()))
    paths = sorted(p for pattern in patterns for p in root.glob(pattern) if p.is_file())
    found = [
        ranked
        for path in paths
        for ranked in mutants_of(path.relative_to(root).as_posix(), path.read_text(), seed)
    ]
    return [mutant for _, mutant in sorted(found, key=lambda ranked: ranked[0])]


# ---- a copy of the tree, built ------------------------------------------------------------------
@dataclass(frozen=True)
class Build:
    """A configured and built copy of the tree and the commands that make its parts again."""

    root: Path
    commands: dict[str, str]  # by target, relative to build/
    users: dict[str, tuple[str, ...]]  # file: the objects that are compiled from it
    module: str  # the target that is _C

    def moved(self, root: Path) -> Build:
        """The same in a copy of the folder."""
        shutil.copytree(self.root, root, symlinks=True)
        old, new = str(self.root), str(root)
        commands = {target: c.replace(old, new) for target, c in self.commands.items()}
        return Build(root, commands, self.users, self.module)

    def make(self, target: str) -> bool:
        """Run a target's command; False if it fails."""
        done = subprocess.run(
            self.commands[target], shell=True, cwd=self.root / "build", capture_output=True
        )
        return done.returncode == 0


OBJECT = re.compile(r"(?:tests/simt/)?CMakeFiles/(?:lmx_cpu_v3|_C|lmx_simt)\.dir/\S+\.o")
V3, SIMT = "lmx_cpu_v3.o", "tests/simt/liblmx_simt.so"


def copy_tree(root: Path) -> None:
    """Copy what the build and the tests need."""
    for name in COPIED:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            made = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(source, target, ignore=made)
        else:
            shutil.copy2(source, target)
    for lists in (root / "CMakeLists.txt", root / "tests/simt/CMakeLists.txt"):
        # Mutants are compiled more often than run. Without -g1 the same code is the same bytes.
        text = lists.read_text()
        lists.write_text(re.sub(r"-O[23]\b", OPTIMISE, text).replace("-g1", "-g0"))


def build_tree(root: Path) -> Build:
    """Configure and build a copy of the tree, and ask ninja how that is done."""
    cache_file = ROOT / "build/CMakeCache.txt"
    if not cache_file.exists():
        raise SystemExit("mutants: nothing is built here; run `make build` first")
    cache = dict(re.findall(r"^([\w-]+):\w+=(.*)$", cache_file.read_text(), re.MULTILINE))
    if cache.get("LMX_SIMT") != "ON":
        raise SystemExit("mutants: this build has no SIMT harness: it found no CUDA headers")
    kept = ("Python_EXECUTABLE", "pybind11_DIR", "LMX_TORCH_DIR", "LMX_CUDA_INCLUDE",
            "CMAKE_MAKE_PROGRAM", "CMAKE_BUILD_TYPE")  # fmt: skip
    options = {k: cache[k] for k in kept} | {"LMX_SIMT": "ON", "LMX_CUDA": "OFF"}
    build, ninja = root / "build", cache["CMAKE_MAKE_PROGRAM"]
    configure = [cache["CMAKE_COMMAND"], "-S", str(root), "-B", str(build), "-G", "Ninja"]
    configure += ["--log-level=WARNING", *(f"-D{k}={v}" for k, v in options.items())]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)

    def ask(*args: str) -> list[str]:
        command = [ninja, "-C", str(build), "--quiet", *args]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    ask("_C", "lmx_simt")
    users: dict[str, set[str]] = {}
    target = ""
    for line in ask("-t", "deps"):  # "object: ...", then one indented line a file
        if line and not line.startswith(" "):
            target = line.split(":")[0]
        elif line and OBJECT.fullmatch(target):
            path = Path(os.path.normpath(build / line.strip()))
            if path.is_relative_to(root / "csrc"):
                users.setdefault(path.relative_to(root).as_posix(), set()).add(target)
    module = next(build.glob("_C.*.so")).name
    targets = {*set().union(*users.values()), V3, module, SIMT}
    commands = {t: ask("-t", "commands", "-s", t)[-1] for t in sorted(targets)}
    return Build(root, commands, {f: tuple(sorted(o)) for f, o in users.items()}, module)


# ---- killing ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "killed", "survived", "same code" or "does not compile"."""

    mutant: Mutant
    fate: str
    by: str = ""
    seconds: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether it is one of the mutants of the score."""
        return self.fate in ("killed", "survived")


def test_files(root: Path, room: str) -> list[str]:
    """The tests that may kill, those that are quick for what they see first."""
    slow = ("test_compile.py", "test_exact.py")
    files = sorted(root.glob(f"tests/{room}/test_*.py"), key=lambda p: (p.name in slow, p.name))
    return [str(p.relative_to(root)) for p in files] + ["tests/test_promises.py"]


def cpu_seconds(pid: int) -> float:
    """What a process has used: unlike the clock it does not depend on what else runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """One copy of the tree, with the original's objects beside it."""

    def __init__(self, build: Build, room: str) -> None:
        self.build, self.room = build, room
        self.longest = 0.0  # processor seconds between two words of pytest's in the last run
        self.patience = 600.0  # how many there may be until it is ended
        self.kept = build.root / "kept"
        for target in build.commands:
            self._copy(target, build.root / "build", self.kept)
        self._install()

    @staticmethod
    def _copy(target: str, source: Path, to: Path) -> None:
        (to / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / target, to / target)

    def _install(self) -> None:
        module = self.build.module
        self._copy(module, self.build.root / "build", self.build.root / "python/lmx")

    def test(self, within: str = "tests", only: str = "", everywhere: bool = False) -> str:
        """Run the tests until one fails; what that one is called and how it ended.

        Args:
            within: the folder of the tests.
            only: pytest's ``-k``.
            everywhere: take the promises of the ops of all rooms.
        """
        env = os.environ | {
            "PYTHONPATH": str(self.build.root / "python"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LMX_CPU_ISA": "v3",
        }
        files = [f for f in test_files(self.build.root, self.room) if f.startswith(within)]
        ours = f"({self.room} or {OP_PREFIXES.get(self.room, self.room + '_')})"
        only = " and ".join(part for part in ("" if everywhere else ours, only) if part)
        command = [sys.executable, "-m", "pytest", "-x", "-vv", "--tb=no", "-p", "no:cacheprovider"]
        command += [*files, *(["-k", only] if only else [])]
        log = self.build.root / "log"
        size, since, began, self.longest = 0, 0.0, time.monotonic(), 0.0
        with log.open("wb") as to:
            run = subprocess.Popen(
                command, cwd=self.build.root, env=env, stdout=to, stderr=subprocess.STDOUT
            )
            while run.poll() is None:  # it writes something before and after each test
                time.sleep(0.1)
                now = cpu_seconds(run.pid)
                self.longest = max(self.longest, now - since)
                if log.stat().st_size > size:
                    size, since, began = log.stat().st_size, now, time.monotonic()
                elif now - since > self.patience or time.monotonic() - began > ASLEEP:
                    run.kill()
                    run.wait()
        if run.returncode in (0, NO_TESTS):
            return ""
        names = re.findall(r"^(tests/\S+::\S+)", log.read_text(errors="replace"), re.MULTILINE)
        how = {1: "", -9: " (does not end)"}.get(run.returncode, f" (exit code {run.returncode})")
        return (names[-1] if names else "the import") + how

    def kill(self, mutant: Mutant) -> Outcome:
        """Build the mutant, run the tests, put the original back."""
        began, build = time.monotonic(), self.build
        path = build.root / mutant.file
        original = path.read_text()
        path.write_text(mutant.apply(original))
        objects = build.users.get(mutant.file, ())
        try:
            fate, by = self._fate(objects, mutant.file.startswith("csrc/common/"))
            return Outcome(mutant, fate, by, time.monotonic() - began)
        finally:
            path.write_text(original)
            for target in (*objects, V3, build.module, SIMT):
                self._copy(target, self.kept, build.root / "build")
            self._install()

    def _fate(self, objects: tuple[str, ...], shared: bool) -> tuple[str, str]:
        """Build what has changed and test it: the CPU kernels first, which is often enough."""
        changed: set[str] = set()
        for name, only in (("lmx_cpu_v3", NOT_SIMT), ("_C|lmx_simt", "")):
            part = [o for o in objects if re.search(rf"/({name})\.dir/", f"/{o}")]
            if not all(self.build.make(o) for o in part):
                return "does not compile", ""
            changed.update(o for o in part if not self._same(o))
            simt = {o for o in changed if o.startswith("tests/simt/")}
            links = [V3, self.build.module] * (changed > simt) + [SIMT] * bool(simt)
            if not all(self.build.make(target) for target in links):
                return "does not compile", ""
            self._install()
            if only:
                by = self.test(f"tests/{self.room}", only) if changed else ""
            else:
                only = NOT_SIMT if not simt else NOT_CPU if changed == simt else ""
                by = self.test("tests", only, shared) if changed else ""
            if by:
                return "killed", by
        return ("survived" if changed else "same code"), ""

    def _same(self, target: str) -> bool:
        old, new = self.kept / target, self.build.root / "build" / target
        return old.read_bytes() == new.read_bytes()


def run_sample(workers: list[Worker], mutants: list[Mutant], count: int) -> Iterator[Outcome]:
    """Outcomes as they come, until `count` of the first mutants of the sample have counted."""
    todo = iter(mutants)
    idle, done = list(workers), queue.SimpleQueue[tuple[Worker, Outcome | BaseException]]()
    counted = running = 0

    def work(worker: Worker, mutant: Mutant) -> None:
        try:
            done.put((worker, worker.kill(mutant)))
        except BaseException as error:
            done.put((worker, error))

    while True:
        # Never more under way than may count: which ones count does not depend on who is faster.
        while idle and counted + running < count and (mutant := next(todo, None)):
            threading.Thread(target=work, args=(idle.pop(), mutant), daemon=True).start()
            running += 1
        if running == 0:
            return
        worker, outcome = done.get()
        if isinstance(outcome, BaseException):
            raise outcome
        running -= 1
        idle.append(worker)
        counted += outcome.counts
        yield outcome


def prepare(folder: Path, room: str, jobs: int) -> list[Worker]:
    """Build the workers' copies; the unchanged tree must pass, and sets the time limits."""
    copy_tree(folder / "0")
    builds = [build_tree(folder / "0")]
    builds += [builds[0].moved(folder / str(i)) for i in range(1, jobs)]
    workers = [Worker(build, room) for build in builds]
    began = time.monotonic()
    if failed := workers[0].test():
        raise SystemExit(f"mutants: without any change {failed} fails")
    for worker in workers:
        worker.patience = 4 * workers[0].longest + 20
    print(f"mutants: all tests take {time.monotonic() - began:.0f} s", flush=True)
    return workers


def main() -> int:
    """Report each mutant and the score."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--room", default="vocab")
    parser.add_argument("--count", type=int, default=100, help="mutants that count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that work at once")
    parser.add_argument("--only", default="", help="mutants whose place begins so")
    parser.add_argument("--list", action="store_true", help="print the candidates and stop")
    options = parser.parse_args()
    mutants = [m for m in sample(options.seed, options.room) if str(m).startswith(options.only)]
    if options.list:
        print("\n".join(map(str, mutants)))
        return 0
    for what, limit in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (limit, resource.getrlimit(what)[1]))
    survivors: list[Mutant] = []
    counted = 0
    with tempfile.TemporaryDirectory(prefix="lmx-mutants-") as folder:
        workers = prepare(Path(folder).resolve(), options.room, options.jobs)
        for outcome in run_sample(workers, mutants, options.count):
            counted += outcome.counts
            by = f" by {outcome.by}, {outcome.seconds:.0f} s" if outcome.by else ""
            number = f"{counted:4}" if outcome.counts else "   -"
            print(f"{number}  {outcome.mutant}\n      {outcome.fate}{by}", flush=True)
            if outcome.fate == "survived":
                survivors.append(outcome.mutant)
    if survivors:
        print("survivors:", *survivors, sep="\n  ")
    killed = counted - len(survivors)
    print(f"mutants: {killed} of {counted} killed")
    return 0 if counted and killed >= GOAL * counted else 1


if __name__ == "__main__":
    sys.exit(main())
