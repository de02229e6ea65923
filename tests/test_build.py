"""What the binaries and the build promise. Each check is also shown something it must refuse."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
import torch
from helpers import ROOT, SIMT

import lmx

BUILD = ROOT / "build"
C_LIBRARY = Path(lmx._C.__file__)
CUDA_LIBRARY = C_LIBRARY.with_name("liblmx_cuda.so")
SHIPPED = [p for p in (C_LIBRARY, CUDA_LIBRARY) if p.exists()]
LIBRARIES = [*SHIPPED, SIMT] if SIMT.exists() else SHIPPED
LEVELS = ("v3", "v4", "amx")
LEVEL_OBJECTS = [BUILD / f"lmx_cpu_{level}.o" for level in LEVELS]
BASELINE_OBJECTS = sorted((BUILD / "CMakeFiles" / "_C.dir").rglob("*.o"))


def output(*command, **more) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, **more).stdout


# ---- symbols -------------------------------------------------------------------------------------


def undefined_torch_symbols(library: Path) -> set[str]:
    """Undefined symbols without a version, as the C and C++ runtimes give it, and not Python's."""
    lines = output("nm", "-D", "--undefined-only", library).splitlines()
    names = {line.split()[-1] for line in lines if " U " in line}
    return {n for n in names if "@" not in n and not re.match(r"_?Py", n)}


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name.split(".")[0])
def test_only_the_c_shim_of_torch_is_used(library):
    used = undefined_torch_symbols(library)
    assert "aoti_torch_library_init_impl" in used
    assert not [n for n in used if not re.fullmatch(r"(aoti_)?torch_\w+", n)]


def test_the_symbol_check_sees_cplusplus_symbols():
    used = undefined_torch_symbols(Path(torch.__file__).parent / "lib" / "libtorch_python.so")
    assert [n for n in used if re.match(r"_ZNK?(3c10|2at|5torch)", n)]


@pytest.mark.skipif(not CUDA_LIBRARY.exists(), reason="built without nvcc")
def test_one_symbol_of_libtorch_cuda_is_open():
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    shim = output("nm", "-D", "--defined-only", library)
    there = {line.split()[-1].split("@")[0] for line in shim.splitlines()}
    missing = undefined_torch_symbols(CUDA_LIBRARY) - there
    assert missing == {"aoti_torch_get_current_cuda_stream"}


def global_symbols(objects: Path) -> dict[str, str]:
    """Name to type of the symbols that other objects can see."""
    lines = output("nm", "-C", "--defined-only", "-g", objects).splitlines()
    return {line.split(" ", 2)[2]: line.split(" ", 2)[1] for line in lines}


def declared_kernels(level: str) -> set[str]:
    """The kernels that the headers promise at a level."""
    macro = "LMX_CPU_KERNEL_AMX" if level == "amx" else "LMX_CPU_KERNEL(?:_AMX)?"
    names = set()
    for header in ROOT.glob("csrc/*/*.h"):
        for name, params in re.findall(
            rf"^{macro}\((\w+), (\w+)\)", header.read_text(), re.MULTILINE
        ):
            room = f"lmx::{header.parent.name}::"
            names.add(f"{room}{level}::{name}({room}{params} const&)")
    return names


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_shows_its_kernels_and_nothing_else(level):
    shown = global_symbols(BUILD / f"lmx_cpu_{level}.o")
    assert set(shown) == declared_kernels(level) != set()
    assert set(shown.values()) == {"T"}


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_check_sees_inline_functions(level):
    """Before its symbols are made local, the object shows every inline function as weak."""
    assert "W" in global_symbols(BUILD / f"lmx_cpu_{level}.o.all").values()


@pytest.mark.parametrize("level_object", LEVEL_OBJECTS, ids=LEVELS)
def test_a_level_runs_nothing_when_it_is_loaded(level_object):
    assert ".init_array" not in output("objdump", "-h", level_object)


def test_the_load_check_sees_initialisers():
    [ops] = [p for p in BASELINE_OBJECTS if p.parts[-2:] == ("csrc", "ops.cpp.o")]
    assert ".init_array" in output("objdump", "-h", ops)


# ---- instructions --------------------------------------------------------------------------------

AVX512 = re.compile(r"%zmm|%k[0-7]\b|%[xy]mm(1[6-9]|2\d|3[01])\b")
# VEX-coded, and the integer instructions that x86-64-v3 adds.
AVX = re.compile(r"\tv(?!er[rw])[a-z]|%[yz]mm|\t(andn|bextr|bls\w+|bzhi|pdep|pext|\w+x) .*,.*,.*%")
AMX = re.compile(r"%tmm|\t(ldtilecfg|sttilecfg|tilerelease)|\tvcvtne2?ps2?bf16")


def count_instructions(*files: Path) -> tuple[int, int, int]:
    """How many instructions need AVX or more, how many AVX-512, how many tiles or its bfloat16."""
    kinds = (AVX, AVX512, AMX)
    counts = [0] * len(kinds)
    for line in output("objdump", "-d", "--no-show-raw-insn", "-w", *files).splitlines():
        for i, kind in enumerate(kinds):
            counts[i] += kind.search(line) is not None
    return tuple(counts)


def test_no_vector_instruction_outside_its_level():
    """The libraries' instructions are counted: one more than the levels have is a leak."""
    v3, v4, amx = map(count_instructions, LEVEL_OBJECTS)
    assert count_instructions(*BASELINE_OBJECTS) == (0, 0, 0)
    assert v3[0] > 1000 and v3[1:] == (0, 0)
    assert v4[0] > 1000 and v4[1] > 1000 and v4[2] == 0
    assert amx[0] > 1000 and amx[1] > 1000 and amx[2] > 100
    assert count_instructions(C_LIBRARY) == tuple(map(sum, zip(v3, v4, amx, strict=True)))


def test_tiles_are_given_back():
    """Every kernel of level amx that takes tiles releases them; its loops use them."""
    code = output("objdump", "-d", "--no-show-raw-insn", "-w", LEVEL_OBJECTS[2])
    for instruction in ("tdpbf16ps", "tileloaddt1", "tileloadd", "tilestored", "vcvtne2ps2bf16"):
        assert re.search(rf"\t{instruction} ", code)
    assert code.count("\tldtilecfg") > 0 and code.count("\ttilerelease") > 0


# ---- paths ---------------------------------------------------------------------------------------


def own_paths(content: bytes) -> set[str]:
    """Folders of this machine that stand in a binary."""
    torch_folder = Path(torch.__file__).parent
    folders = {ROOT, BUILD, torch_folder, Path(sys.prefix), Path(sysconfig.get_path("include"))}
    folders |= {Path(tempfile.gettempdir()), Path.home(), torch_folder.parent}
    return {str(f) for f in folders if str(f) != "/" and f"{f}/".encode() in content}


@pytest.mark.parametrize("library", SHIPPED, ids=lambda p: p.name.split(".")[0])
def test_no_folder_of_this_machine_in_the_binary(library):
    content = library.read_bytes()
    assert own_paths(content) == set()
    assert b"torch/include/torch/csrc/stable/" in content  # the mapped name of a header's message


def test_the_path_check_sees_paths():
    assert own_paths(b"\0" + str(ROOT / "csrc/ops.cpp").encode()) >= {str(ROOT)}


# ---- a build that cannot work says why, in one sentence ------------------------------------------


@pytest.fixture
def build_error(tmp_path):
    """Run setup.py alone in an empty folder, where something is missing; return its last line."""
    compiler = os.environ.get("CXX") or shutil.which("c++")

    def run(*options, hide=(), cxx=compiler, path="", **env) -> str:
        shutil.copy(ROOT / "setup.py", tmp_path)
        code = f"""if True:
            import runpy, sys
            sys.modules.update(dict.fromkeys({hide!r}))
            sys.argv = ["setup.py", "build_ext", "--inplace", *{options!r}]
            runpy.run_path("setup.py", run_name="__main__")"""
        env |= {"PATH": path} | ({"CXX": cxx} if cxx else {})
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        return done.stderr.splitlines()[-1]

    return run


def fake_compiler(folder: Path, **macros: int) -> str:
    """A `c++` that knows some macros and cannot compile."""
    says = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    compiler = folder / "bin" / "c++"
    compiler.parent.mkdir()
    compiler.write_text(f"#!/bin/sh\necho '{says}'\n")
    compiler.chmod(0o755)
    return str(compiler)


@pytest.mark.parametrize("name", ["torch", "pybind11", "cmake", "ninja"])
def test_a_package_is_missing(build_error, name):
    expected = f"lmx: building needs {name}; install it first: pip install {name}"
    assert build_error(hide=(name,)) == expected


def test_torch_is_too_old(build_error, tmp_path):
    old = tmp_path / "old" / "torch"
    old.mkdir(parents=True)
    (old / "__init__.py").touch()
    (old / "version.py").write_text("__version__ = '2.9.1+cu128'\n")
    expected = "lmx: building needs torch 2.11 or later, found 2.9.1+cu128"
    assert build_error(PYTHONPATH=str(old.parent)) == expected


def test_no_compiler(build_error):
    expected = "building needs GCC 11 or later: no C++ compiler is on PATH, and CXX is not set"
    assert build_error(cxx=None) == f"lmx: {expected}"


def test_the_compiler_does_not_run(build_error):
    expected = "lmx: building needs GCC 11 or later: /nowhere/g++ -O does not run"
    assert build_error(cxx="/nowhere/g++ -O") == expected


def test_the_compiler_is_too_old(build_error, tmp_path):
    compiler = fake_compiler(tmp_path, __GNUC__=10, __GNUC_MINOR__=2)
    expected = f"lmx: building needs GCC 11 or later: {compiler} is GCC 10"
    assert build_error(cxx=None, path=str(Path(compiler).parent)) == expected


def test_the_compiler_is_clang(build_error, tmp_path):
    compiler = fake_compiler(tmp_path, __GNUC__=4, __clang_major__=19)
    expected = f"lmx: building needs GCC 11 or later: {compiler} is Clang 19"
    assert build_error(cxx=compiler) == expected


def test_cuda_is_asked_for_without_nvcc(build_error):
    expected = "lmx: --cuda needs nvcc in CUDA_HOME, on PATH or as a Python package"
    assert build_error("--cuda", CUDA_HOME="/nowhere") == expected


def test_cmake_fails(build_error):
    """Here it finds no CMakeLists.txt: with everything in place, setup.py gets as far as that."""
    assert build_error() == "lmx: the build failed; the reason stands above"


# ---- a machine on which lmx cannot run hears why -------------------------------------------------


def import_error(before: str = "", **env: str) -> str:
    """The last line that `import lmx` prints, after some lines of Python."""
    folder = str(C_LIBRARY.parents[1])
    code = f"import sys, types\nsys.path.insert(0, {folder!r})\n{before}\nimport lmx"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_import_with_a_level_that_is_none():
    expected = "ImportError: lmx: LMX_CPU_ISA must be v3, v4 or amx, got avx2"
    assert import_error(LMX_CPU_ISA="avx2") == expected


def test_import_on_an_old_processor():
    before = "sys.modules['lmx._C'] = types.SimpleNamespace(cpu_isa='none')"
    needs = "needs an x86-64-v3 processor (AVX2, FMA, F16C); this one is older"
    assert import_error(before) == f"ImportError: lmx {needs}"


def test_import_with_an_old_torch():
    before = "sys.modules['torch'] = types.SimpleNamespace(__version__='2.10.0+cpu')"
    expected = "ImportError: lmx needs torch 2.11 or later, found 2.10.0+cpu"
    assert import_error(before) == expected


def test_without_a_gpu_or_without_nvcc(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lmx._load_cuda() == "torch sees no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(lmx, "__file__", str(tmp_path / "__init__.py"))
    assert lmx._load_cuda() == "lmx was built without nvcc; install it again where nvcc is found"
