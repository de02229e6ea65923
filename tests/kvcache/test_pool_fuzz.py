"""The books of the pool under ASan and UBSan, without torch: random calls, right and wrong ones."""

import os
import shutil
import subprocess

import pytest
from helpers import ROOT


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.long)])
def test_random_calls_under_sanitizers(tmp_path, seconds):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    host, program = ROOT / "csrc" / "kvcache" / "host", tmp_path / "page_pool"
    command = [compiler, "-std=c++20", "-O1", "-g1", f"-I{ROOT / 'csrc'}", "-o", str(program)]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [ROOT / "tests/fuzz/page_pool.cpp", host / "page_pool.cpp", host / "prefix_index.cpp"]
    subprocess.run([*command, *map(str, sources)], check=True)
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # ptrace is not allowed everywhere
    run = [str(program), "7", str(seconds), str(20 * seconds + 1)]
    done = subprocess.run(run, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    rounds, *_ = map(int, done.stdout.replace(",", "").split()[:1])
    assert rounds > 20 * seconds
