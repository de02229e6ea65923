"""The fuzz driver of tests/fuzz, built with ASan and UBSan: it must end without a report."""

import os
import shutil
import subprocess

import pytest
from helpers import ROOT

HOST = ROOT / "csrc" / "grammar" / "host"
LEFT_OUT = {"module.cpp", "batch.cpp", "ops.cpp"}  # they need Python or the pool


def run_driver(folder, seed: int, inputs: int) -> str:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    sources = [str(p) for p in sorted(HOST.glob("*.cpp")) if p.name not in LEFT_OUT]
    binary = folder / "fuzz_grammar"
    flags = ["-std=c++20", "-O1", "-g1", "-fsanitize=address,undefined", f"-I{ROOT / 'csrc'}"]
    flags += ["-fno-sanitize-recover=all", "-o", str(binary)]
    driver = str(ROOT / "tests" / "fuzz" / "fuzz_grammar.cpp")
    subprocess.run([compiler, *flags, driver, *sources], check=True)
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # ptrace is not allowed everywhere
    command = [str(binary), str(seed), str(inputs)]
    out = subprocess.run(command, capture_output=True, text=True, env=env)
    assert out.returncode == 0, (out.stdout + out.stderr)[-4000:]
    return out.stdout


@pytest.mark.long
def test_a_million_inputs(tmp_path):
    assert "1000000 inputs" in run_driver(tmp_path, 1, 1_000_000)
