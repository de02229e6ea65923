"""Run the binaries of this tree, as they are, under a later torch. Run by ``make abi-check``.

The op tests must pass there, and ``liblmx_cuda.so`` must load and register its kernels, for which
that torch has to be a CUDA build; no GPU is needed. Fetches several GB into .venv-abi.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-abi"
TORCH = "2.14.1"
OP_TESTS = [f"tests/{path.parent.name}" for path in sorted(ROOT.glob("csrc/*/bind.cpp"))]
OP_TESTS += ["tests/test_ops_table.py", "tests/test_promises.py"]

# Run under the later torch.
FACTS = (
    "import lmx, torch; print('torch', torch.__version__, '-', lmx._C.torch_target, lmx.__file__)"
)
CUDA = """
import ctypes, os, re, torch, lmx
from pathlib import Path
folder = Path(torch.__file__).parent / "lib"
ctypes.CDLL(str(folder / "libtorch_cuda.so"), mode=os.RTLD_GLOBAL)
has = lambda op: torch._C._dispatch_has_kernel_for_dispatch_key(op, "CUDA")
ops = sorted(s.name for s in torch._C._jit_get_all_schemas() if s.name.startswith("lmx::"))
assert ops and not any(map(has, ops)), "CUDA kernels before the library is loaded"
torch.ops.load_library(str(Path(lmx.__file__).with_name("liblmx_cuda.so")))
missing = [op for op in ops if not has(op)]
assert not missing, f"no CUDA kernel: {missing}"
print(f"liblmx_cuda.so: loaded, {len(ops)} of {len(ops)} CUDA kernels registered")
"""


def run(*command: str | Path) -> None:
    """Run a command in the tree, importing lmx from it; stop if it fails."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "python")}
    code = subprocess.run(command, cwd=ROOT, env=env).returncode
    if code != 0:
        raise SystemExit(code)


def main() -> None:
    """Fill the environment unless it is there, then check."""
    python = VENV / "bin" / "python"
    if not (VENV / "done").exists():
        run(sys.executable, "-m", "venv", "--clear", VENV)
        others = [
            line
            for line in (ROOT / "requirements-test.txt").read_text().splitlines()
            if line.startswith("pytest")
        ]
        run(python, "-m", "pip", "install", "-q", f"torch=={TORCH}", "numpy", *others)
        (VENV / "done").touch()
    run(python, "-c", FACTS)
    run(python, "-m", "pytest", *OP_TESTS)
    run(python, "-c", CUDA)


if __name__ == "__main__":
    main()
