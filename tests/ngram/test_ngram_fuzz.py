"""Damaged indexes under ASan and UBSan, without torch."""

import subprocess

import pytest
from helpers import ROOT

KERNELS = ("find", "longest_suffix", "longest_prefix", "next", "score", "locate")


@pytest.mark.long
def test_damaged_indexes(tmp_path):
    program = tmp_path / "fuzz"
    csrc = ROOT / "csrc"
    command = ["g++", "-std=c++20", "-O1", "-g", "-march=x86-64-v3", "-DLMX_ISA=v3", f"-I{csrc}"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", str(program)]
    command += [str(ROOT / "tests/fuzz/ngram_index.cpp"), str(csrc / "ngram/host/tables.cpp")]
    subprocess.run([*command, *(str(csrc / f"ngram/{k}.cpp") for k in KERNELS)], check=True)
    done = subprocess.run([str(program), "7", "60"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) > 1000
