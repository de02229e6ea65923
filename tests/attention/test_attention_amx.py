"""The AMX level of attention: on software tiles everywhere."""

import subprocess

from helpers import ROOT

CHECK = ROOT / "build" / "tests" / "native" / "attention_amx_check"


def test_on_software_tiles():
    """Values against their definition; rows of a chain alone, bit for bit."""
    done = subprocess.run([CHECK], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(line.removesuffix(" checks").split(": ") for line in done.stdout.splitlines())
    assert list(counts) == ["values", "rows alone"] and min(map(int, counts.values())) > 1000


def test_the_check_sees_a_fault():
    """A pair of elements or keys is left out of a sum."""
    done = subprocess.run([CHECK, "pair"], capture_output=True, text=True)
    assert done.returncode == 1 and "wrong: " in done.stdout
