"""Each of our own lint rules refuses what it should and lets its neighbours pass."""

import runpy
from pathlib import PurePath

import pytest
from helpers import ROOT

problems = runpy.run_path(str(ROOT / "tools" / "lint.py"))["problems"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("python/lmx/x.py", "import pick" + "le"),
        ("python/lmx/x.py", "weights = torch.lo" + "ad(path)"),
        ("python/lmx/x.py", "x = ev" + "al(text)"),
        ("python/lmx/x.py", "load(path, trust_remote_" + "code=True)"),
        ("csrc/vocab/x.cu", "kernel<<<grid, block>>>(p);"),
        ("csrc/vocab/x.cu", 'asm volatile("nop;");'),
        ("csrc/vocab/x.cu", "__shared__ float x[32];"),
        ("csrc/vocab/x.cpp", "#include <AT" + "en/ATen.h>"),
        ("csrc/vocab/x.cpp", '#include "../attention/merge.h"'),
        ("python/lmx/vocab/x.py", "from ..attention import merge"),
        ("python/lmx/models/x.py", "from lmx.decode import Engine"),
        ("docs/x.md", "caf\u00e9"),
        ("docs/x.md", "see /ho" + "me/someone/lmx"),
        ("Makefile", "pip install -i https://py" + "pi.org/simple lmx"),
        ("docs/x.md", "text "),
    ],
)
def test_refused(path, line):
    assert [number for number, _ in problems(PurePath(path), f"\n{line}\n")] == [2]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("python/lmx/x.py", "model.eval()\nretrieval(x)\n"),
        ("csrc/common/ptx.cuh", 'asm volatile("nop;");\n'),
        ("csrc/common/launch.h", "extern __shared__ unsigned char lmx_shared[];\n"),
        ("csrc/vocab/x.cpp", '#include "../common/isa.h"\n#include "rows.h"\n'),
        ("python/lmx/decode/x.py", "from ..vocab import sample\nfrom ..protocols import Drafter\n"),
        ("python/lmx/tree/x.py", "from ..kvcache import append\n"),
        ("docs/x.md", "csrc/home/x, https://host/work/x\n"),
        ("python/lmx/x.py", "x = 1\n" * 600),
    ],
)
def test_accepted(path, text):
    assert list(problems(PurePath(path), text)) == []


@pytest.mark.parametrize("text", ["x = 1\n" * 601, "x = 1", "x = 1\n\n", "#" * 500_001 + "\n"])
def test_size_and_ends(text):
    assert len(list(problems(PurePath("python/lmx/x.py"), text))) == 1
