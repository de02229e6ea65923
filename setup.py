"""Builds lmx: finds tools, torch and nvcc, lets CMake work, puts the libraries into the package."""

import atexit
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH, OLDEST_GCC = (2, 11), 11


def find_package(name: str) -> Path:
    """Find the folder of a Python package, without the seconds that importing torch takes."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"lmx: building needs {name}; install it first: pip install {name}")
    return Path(spec.origin).parent


def find_tool(name: str) -> str:
    """Find cmake or ninja: the Python package's, else the one on PATH."""
    places = [os.environ.get("PATH", "")]
    if find_spec(name):
        places = [str(find_package(name) / "data/bin"), sysconfig.get_path("scripts"), *places]
    tool = shutil.which(name, path=os.pathsep.join(places))
    if tool is None:
        raise SystemExit(f"lmx: building needs {name}; install it first: pip install {name}")
    return tool


def check_torch(folder: Path) -> bool:
    """Stop if this torch is too old; return whether it is built for CUDA."""
    facts = runpy.run_path(str(folder / "version.py"))
    found, oldest = facts["__version__"], ".".join(map(str, OLDEST_TORCH))
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST_TORCH:
        raise SystemExit(f"lmx: building needs torch {oldest} or later, found {found}")
    return facts.get("cuda") is not None


def check_compiler() -> None:
    """Stop unless the C++ compiler that CMake will choose is GCC, and new enough."""
    cxx = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    need = f"lmx: building needs GCC {OLDEST_GCC} or later"
    if not cxx:
        raise SystemExit(f"{need}: no C++ compiler is on PATH, and CXX is not set")
    try:
        command = [*shlex.split(cxx), "-dM", "-E", "-x", "c++", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(f"{need}: {cxx} does not run") from None
    major = {k: int(v) for k, v in re.findall(r"#define __(clang_major|GNUC)__ (\d+)", said)}
    if "clang_major" in major or major.get("GNUC", 0) < OLDEST_GCC:
        is_clang = "clang_major" in major
        found = f"Clang {major['clang_major']}" if is_clang else f"GCC {major.get('GNUC', '?')}"
        raise SystemExit(f"{need}: {cxx} is {found}")


def cuda_wheels() -> list[Path]:
    """Return the toolkit folders that the nvidia-cuda-* wheels share."""
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return [Path(place, "cu13") for place in places or []]


def cuda_home() -> Path | None:
    """Find nvcc: in $CUDA_HOME alone if that is set, else the system's, else the PyPI wheel's."""
    on_path = shutil.which("nvcc")
    if on_path:  # it may be a wrapper script: ask it where its toolkit lies
        dry = [on_path, "-v", "-x", "cu", "/dev/null", "--dryrun"]
        said = subprocess.run(dry, capture_output=True, text=True).stderr
        on_path = next(iter(re.findall(r"^#\$ TOP=(.*)$", said, re.MULTILINE)), None)
    chosen = os.environ.get("CUDA_HOME")
    places = [chosen] if chosen else [on_path, "/usr/local/cuda", *cuda_wheels()]
    return next((Path(p).resolve() for p in places if p and Path(p, "bin/nvcc").exists()), None)


def cuda_include() -> Path | None:
    """Find the headers the SIMT harness compiles against; they need no compiler beside them."""
    needed = ("cuda_runtime.h", "crt/host_defines.h")  # torch's wheels bring the first one only
    homes = [*cuda_wheels(), *([home] if (home := cuda_home()) else [])]
    folders = [home / "include" for home in homes]
    return next((f for f in folders if all((f / name).exists() for name in needed)), None)


class Build(build):
    """Stages a wheel in a temporary folder, where no file of an earlier build lies."""

    def initialize_options(self) -> None:
        """Choose a folder of this process's own."""
        super().initialize_options()
        self.build_base = tempfile.mkdtemp(prefix="lmx-build-")
        atexit.register(shutil.rmtree, self.build_base, ignore_errors=True)


class CMakeBuild(build_ext):
    """Runs CMake: for a wheel in a temporary folder, in the source tree in ``build/``."""

    user_options = [
        *build_ext.user_options,
        ("cuda", None, "build liblmx_cuda.so even if this torch is CPU-only"),
        ("no-harness", None, "leave out the SIMT harness (in the source tree)"),
        ("strict", None, "from now on warnings are errors (in the source tree)"),
    ]
    boolean_options = [*build_ext.boolean_options, "cuda", "no-harness", "strict"]

    def initialize_options(self) -> None:
        """Set the defaults."""
        super().initialize_options()
        self.cuda = self.no_harness = self.strict = False

    def run(self) -> None:
        """Remember whether the source tree is the target: setuptools hides it further down."""
        self.in_tree = bool(self.inplace or self.editable_mode)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Build the libraries; the SIMT harness only in the source tree, which tests itself."""
        torch, _ = find_package("torch"), find_package("pybind11")
        is_cuda_torch = check_torch(torch)
        check_compiler()
        cmake, ninja = find_tool("cmake"), find_tool("ninja")
        cuda = cuda_home() if self.cuda or is_cuda_torch or not self.in_tree else None
        if self.cuda and not cuda:
            raise SystemExit("lmx: --cuda needs nvcc in CUDA_HOME, on PATH or as a Python package")
        print(f"lmx: CUDA kernels: {cuda or 'none'}", flush=True)
        wants_harness = self.in_tree and not self.editable_mode and not self.no_harness
        include = cuda_include() if wants_harness else None
        pybind11 = [sys.executable, "-m", "pybind11", "--cmakedir"]
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_MAKE_PROGRAM": ninja,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": subprocess.check_output(pybind11, text=True).strip(),
            "LMX_TORCH_DIR": torch,
            "LMX_CUDA": "ON" if cuda else "OFF",
            "LMX_SIMT": "ON" if include else "OFF",
            "LMX_TESTS": "ON" if wants_harness else "OFF",
            "LMX_CUDA_INCLUDE": include or "",
        }
        if self.strict:
            options["LMX_STRICT"] = "ON"
        if cuda:
            options["CMAKE_CUDA_COMPILER"] = cuda / "bin/nvcc"
            if not (cuda / "lib64").exists():  # the wheels' layout: lib, which nvcc does not know
                options["CMAKE_CUDA_FLAGS"] = f"-L{cuda / 'lib'}"
        build = ROOT / "build" if self.in_tree else Path(self.build_temp, "cmake").resolve()
        configure = ["-S", str(ROOT), "-B", str(build), "-G", "Ninja", "--log-level=WARNING"]
        configure += [f"-D{name}={value}" for name, value in options.items()]
        for step in (configure, ["--build", str(build)]):
            if subprocess.call([cmake, *step]) != 0:
                raise SystemExit("lmx: the build failed; the reason stands above")

        libraries = [build / Path(self.get_ext_filename(ext.name)).name]
        libraries += [build / "liblmx_cuda.so"] if cuda else []
        packages = [Path(self.get_ext_fullpath(ext.name)).parent]
        packages += [ROOT / "python/lmx"] if self.in_tree else []  # setuptools carries _C alone
        for package in packages:
            package.mkdir(parents=True, exist_ok=True)
            if is_cuda_torch and not cuda:  # this torch would load what an older build left
                (package / "liblmx_cuda.so").unlink(missing_ok=True)
            for library in libraries:
                staged = package / f".{library.name}.new"  # a running process keeps the old file
                shutil.copy2(library, staged)
                staged.replace(package / library.name)


setup(ext_modules=[Extension("lmx._C", [])], cmdclass={"build": Build, "build_ext": CMakeBuild})
