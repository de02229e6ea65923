"""The fixture `measure`, the lines it prints, and the facts about the machine.

    pytest bench --benchmark-enable [--gates] [--benchmark-json=FILE]

Without `--benchmark-enable` a bench calls each of its ways once, on a small input: none rots.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import lmx

from .figures import Figures, gate_line, line
from .inputs import ROTATE_BYTES
from .measure import Measure
from .roof import bandwidth

HERE = Path(__file__).parent
ROOMS = ("attention", "kvcache", "tree", "layerskip", "grammar", "ngram", "vocab", "decode")
MORE = ("grammar_schema",)  # a room's second file
RESULTS = pytest.StashKey[list[Figures]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmark")
    group.addoption(
        "--gates", action="store_true", help="exit 1 if a gate fails or none was measured"
    )
    group.addoption("--schemas", metavar="DIR", help="files with schemas and instances to measure")
    group.addoption(
        "--static", action="store_true", help="XGrammar's ahead-of-time masks too: slow"
    )
    text = "measure lmx and the best torch way with N threads too; 1 = do not (default: 2)"
    group.addoption("--more-threads", type=int, default=2, metavar="N", help=text)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the rooms' files, though they are not called test_*.py."""
    if file_path.parent != HERE or file_path.suffix != ".py" or file_path.stem not in ROOMS + MORE:
        return None
    if parent.session.isinitpath(file_path):  # named on the command line: pytest has it already
        return None
    return pytest.Module.from_parent(parent, path=file_path)


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Measure:
    return Measure(benchmark, request.node, request.config.stash[RESULTS])


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[Figures]:
    """Where a bench that does not use `measure` adds its line."""
    return request.config.stash[RESULTS]


@pytest.fixture
def smoke(request: pytest.FixtureRequest) -> bool:
    """Whether each way is called just once: inputs may then be small."""
    return not request.config.getoption("benchmark_enable")


# ---- facts and reports ---------------------------------------------------------------------------


def _cpu_name() -> str:
    facts = {}
    for text in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
        key, _, value = text.partition(":")
        facts[key.strip()] = value.strip()
    names = ("model name", "cpu family", "model")
    name, family, model = (facts.get(key, "?") for key in names)
    return f"{name} (family {family}, model {model})"


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Only what the figures depend on: no names of hosts, users or folders."""
    machine_info.clear()
    machine_info |= {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "isa": lmx._C.cpu_isa,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "cpu_gbs": bandwidth("cpu", ROTATE_BYTES // 2),
    }
    if not lmx.no_cuda:
        machine_info |= {
            "gpu": torch.cuda.get_device_name(),
            "gpu_gbs": bandwidth("cuda", ROTATE_BYTES // 2),
        }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    if results:
        title = "lmx: one thread; a ratio is how many times our time the other way takes"
        terminalreporter.section(title)
    for result in results:
        terminalreporter.write_line(line(result))
    gated = [result for result in results if "gate" in result]
    if gated or config.getoption("gates"):
        terminalreporter.section("gates")
        for text in map(gate_line, gated) if gated else ["FAIL  no gate was measured"]:
            terminalreporter.write_line(text)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("gates") and session.exitstatus == pytest.ExitCode.OK:
        gates = [
            result["gate"]["passed"] for result in session.config.stash[RESULTS] if "gate" in result
        ]
        if not gates or not all(gates):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
