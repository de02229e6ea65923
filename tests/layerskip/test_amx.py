"""The GEMM's AMX level: on software tiles everywhere, on the processor's where it has them."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT

import lmx

PARTS = ["isolation", "values", "blocks", "sizes", "wide blocks"]
CHECK = ROOT / "build" / "tests" / "native" / "amx_check"
SOURCES = ["tests/native/amx_check.cpp", "csrc/layerskip/gemm.cpp", "csrc/layerskip/swiglu.cpp"]
EMULATED = ["-march=x86-64-v3", "-include", "tests/native/amx_emulation.h"]
AMX = ["-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]


def check(program: Path, *args: str) -> tuple[int, str]:
    done = subprocess.run([program, *args], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def assert_passes(program: Path) -> None:
    """Every part says how much it checked."""
    code, said = check(program)
    assert code == 0, said
    counts = dict(line.removesuffix(" checks").split(": ") for line in said.splitlines())
    assert list(counts) == PARTS and min(map(int, counts.values())) > 1000


def build(folder: Path, *flags: str) -> Path:
    """Compile the check with other flags than CMake's."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    plain = ["-std=c++20", "-ffp-contract=off", "-pthread", "-Icsrc", "-DLMX_ISA=amx"]
    program = folder / "amx_check"
    command = [*compiler, *plain, *flags, *SOURCES, "-o", str(program)]
    subprocess.run(command, cwd=ROOT, check=True)
    return program


def test_on_software_tiles():
    """Values, the order of sums, batch invariance, block formats, borders, what may be touched."""
    assert_passes(CHECK)


@pytest.mark.parametrize("fault", ["overread", "pair", "order"])
def test_the_check_sees(fault):
    """A byte too many is read from a tile's row; a pair of k is left out; sums are added apart."""
    code, said = check(CHECK, fault)
    assert code == -11 if fault == "overread" else code == 1 and "wrong: " in said


@pytest.mark.long
def test_with_sanitizers(tmp_path):
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    assert_passes(build(tmp_path, "-O1", "-g1", *EMULATED, *sanitizers))


@pytest.mark.skipif(lmx._C.cpu_isa != "amx", reason="this machine has no AMX")
def test_on_this_machine(tmp_path):
    assert_passes(build(tmp_path, "-O2", *AMX))
