"""tools/gpu_check.py, which CI cannot run, reads what pytest and compute-sanitizer say."""

import runpy
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT

OPS = ["vocab_argmax", "vocab_mask_and_", "vocab_softmax"]


@pytest.fixture
def check(tmp_path):
    """The tool's functions, with a folder for its logs."""
    functions = runpy.run_path(str(ROOT / "tools" / "gpu_check.py"))
    functions["main"].__globals__["LOGS"] = tmp_path
    return SimpleNamespace(**functions)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu(check, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu_check.py"])
    assert check.main() == 2
    assert capsys.readouterr().out == f"gpu-check: torch {torch.__version__} sees no CUDA device\n"


def test_what_passed(check, tmp_path):
    def cases(*lines: str) -> list[str]:
        report = tmp_path / "tests.xml"
        report.write_text(f"<testsuites><testsuite>{''.join(lines)}</testsuite></testsuites>")
        return check.passed(report, OPS)

    promises = [
        f'<testcase classname="tests.test_promises" name="test_same[cuda-{op}]"/>' for op in OPS
    ]
    assert cases(*promises) == OPS
    assert cases(*promises[1:]) == OPS[1:]  # no test ran it on CUDA
    assert cases(*(p.replace("cuda", "cpu") for p in promises)) == []
    skipped = promises[0].replace("/>", "><skipped/></testcase>")
    assert cases(skipped, *promises[1:]) == OPS[1:]
    fails = '<testcase classname="tests.vocab.t" name="{}"><failure>no</failure></testcase>'
    assert cases(*promises, fails.format("test_softmax[cuda]")) == OPS[:2]
    assert cases(*promises, fails.format("test_x[vocab_mask_and_-5]")) == [OPS[0], OPS[2]]
    assert cases(*promises, fails.format("test_ties")) == []  # it may be about any of them


PROGRESS = "".join(f"op {op}\n" for op in OPS)


@pytest.mark.parametrize(
    ("says", "code", "expected"),
    [
        (f"{PROGRESS}========= ERROR SUMMARY: 0 errors", 0, OPS),
        (f"{PROGRESS}========= RACECHECK SUMMARY: 0 hazards displayed (0 errors)", 0, OPS),
        (PROGRESS.replace("op vocab_mask", "========= Race\nop vocab_mask"), 99, OPS[1:]),
        (f"========= Race\n{PROGRESS}", 99, []),  # before the first: about any of them
        ("========= Error: Device not supported", 1, None),
        ("========= COMPUTE-SANITIZER\n========= Error: no process", 99, None),
        ("", 127, None),
    ],
)
def test_what_is_sanitized(check, tmp_path, says, code, expected):
    program = tmp_path / "sanitizer"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {code}\n")
    program.chmod(0o755)
    assert check.sanitized("memcheck", str(program), OPS) == expected
