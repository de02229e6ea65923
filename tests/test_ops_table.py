"""Every op is whole: schema, kernel per backend, fake, reference, samples, bench, docs."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from helpers import BACKENDS, ROOT
from samples import SAMPLES, samples_of

import lmx

HOST_OPS = {"grammar_fill", "grammar_accept", "grammar_fill_tree"}  # on handles: CPU only

SCHEMAS = {
    s.name.removeprefix("lmx::"): s
    for s in torch._C._jit_get_all_schemas()
    if s.name.startswith("lmx::") and not s.overload_name
}
ROOMS = {
    "attention": "attention",
    "kv": "kvcache",
    "tree": "tree",
    "skip": "layerskip",
    "grammar": "grammar",
    "ngram": "ngram",
    "vocab": "vocab",
}


def room_of(op: str) -> tuple[str, str]:
    prefix, _, verb = op.partition("_")
    return ROOMS[prefix], verb


def has_kernel(name: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


def test_the_table_is_the_file():
    text = (ROOT / "csrc" / "ops.cpp").read_text()
    joined = re.sub(r'"\s*\n\s*"', "", text)
    assert sorted(re.findall(r'm\.def\(\s*"(\w+)\(', joined)) == sorted(SCHEMAS)


@pytest.mark.parametrize("op", sorted(SCHEMAS))
def test_op_is_whole(op):
    room, verb = room_of(op)
    missing = []
    if not has_kernel(f"lmx::{op}", "CPU"):
        missing.append("CPU kernel")
    if op not in HOST_OPS:
        if "simt" in BACKENDS and not has_kernel(f"lmx_simt::{op}", "CPU"):
            missing.append("CUDA kernel under the harness")
        if "cuda" in BACKENDS and not has_kernel(f"lmx::{op}", "CUDA"):
            missing.append("CUDA kernel")
    if not hasattr(import_module(f"lmx.{room}.reference"), verb):
        missing.append(f"lmx.{room}.reference.{verb}")
    face = getattr(getattr(lmx, room), verb, None)
    if face is None or f"``lmx.{room}.reference.{verb}``" not in (face.__doc__ or ""):
        missing.append(f"lmx.{room}.{verb} whose docstring names its reference")
    if op not in SAMPLES:
        missing.append("samples")
    if f"def test_{verb}(" not in (ROOT / "bench" / f"{room}.py").read_text():
        missing.append(f"test_{verb} in bench/{room}.py")
    if op not in (ROOT / "docs" / f"{room}.md").read_text():
        missing.append(f"a line in docs/{room}.md")
    arguments = [a.name for a in SCHEMAS[op].arguments]
    assert len(arguments) == len(set(arguments)), "an argument's name occurs twice"
    assert not missing, f"{op} lacks: {', '.join(missing)}"


def test_a_call_without_status_has_an_overload_that_writes_to_nothing():
    for op, schema in SCHEMAS.items():
        written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
        overloads = getattr(torch.ops.lmx, op).overloads()
        assert ("no_status" in overloads) == (written == ["status"] and bool(schema.returns)), op
        if "no_status" in overloads:
            pure = getattr(torch.ops.lmx, op).no_status
            assert not pure._schema.is_mutable, op
            assert has_kernel(f"lmx::{op}.no_status", "CPU"), op
            assert [a.name for a in pure._schema.arguments] + ["status"] == [
                a.name for a in schema.arguments
            ]


@pytest.mark.parametrize("op", sorted(SCHEMAS))
def test_opcheck(op):
    """Schema, fake and aliasing, by torch's own check."""
    samples = samples_of(op)
    for sample in (samples[0], samples[len(samples) // 2], samples[-1]):
        fresh = sample.fresh()
        utils = ["test_schema", "test_faketensor", "test_aot_dispatch_dynamic"]
        kernel = getattr(torch.ops.lmx, op).default
        torch.library.opcheck(kernel, fresh.args, fresh.kwargs, test_utils=utils)


def test_sources_are_found():
    """The three files of an op stand beside each other."""
    for header in (ROOT / "csrc").glob("*/*.h"):
        if re.search(r"^LMX_CPU_KERNEL", header.read_text(), re.MULTILINE):
            assert header.with_suffix(".cpp").exists() and header.with_suffix(".cu").exists()
    assert Path(lmx.__file__).with_name("py.typed").exists()
