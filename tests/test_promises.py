"""What holds for every op: the same bits, in any batch, on any thread, backend and level."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from helpers import BACKENDS, Backend, run, same_bits, some
from samples import ROUNDED, SAMPLES, Sample, samples_of
from test_ops_table import HOST_OPS

import lmx

OPS = sorted(SAMPLES)
DEVICE_OPS = sorted(SAMPLES.keys() - HOST_OPS)
LEVELS = ("v3", "v4", "amx")
LEVEL = os.environ.get("LMX_TEST_LEVEL", lmx._C.cpu_isa)  # of the process that compares


def rows_of(sample: Sample, rows: list[int]) -> Sample:
    """The sample with these rows only."""
    if hasattr(sample.rows, "part"):
        return sample.rows.part(sample, rows)
    if sample.rows is not None:
        return replace(sample, args=sample.rows.take(sample.args, rows), rows=None)
    by_row = sample.by_row or ()
    return sample.map(lambda k, v: v[rows] if k in by_row and isinstance(v, torch.Tensor) else v)


def assert_same(a, b, sample: Sample, what: str) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert same_bits(x, y), f"{sample.name}: {what}"


def assert_ragged_rows(ops, op, sample: Sample, full) -> None:
    """As below, where rows are of different lengths."""
    results = full[: len(full) - sum(isinstance(a, torch.Tensor) for a in sample.args)]
    turned = list(reversed(range(sample.rows.count)))
    turned = turned[-1:] + turned[:7]
    for rows in (turned, *([i] for i in turned)):
        part = run(ops, op, rows_of(sample, rows))
        whole = sample.rows.split(results, sample.args, rows)
        assert_same(whole, part[: len(whole)], sample, f"rows {rows} differ")


def skip_without_kernel(ops: Backend, op: str) -> None:
    if op in HOST_OPS and ops.name != "cpu":
        pytest.skip("a host op")


@pytest.mark.parametrize("op", OPS)
def test_same_bits_again(ops, op):
    skip_without_kernel(ops, op)
    for sample in some(ops, samples_of(op)):
        assert_same(run(ops, op, sample), run(ops, op, sample), sample, "differs from itself")


@pytest.mark.parametrize("op", OPS)
def test_a_row_knows_nothing_of_its_batch(ops, op):
    skip_without_kernel(ops, op)
    for sample in some(ops, samples_of(op)):
        if sample.by_row is None:
            continue
        full = run(ops, op, sample)
        if sample.rows is not None:
            assert_ragged_rows(ops, op, sample, full)
            continue
        keys = list(sample.tensors())
        by_row = [True] * (len(full) - len(keys)) + [key in sample.by_row for key in keys]
        turned = list(reversed(range(len(full[0]))))
        turned = turned[-1:] + turned[:7]  # of ten thousand numbers a few will do
        for rows in (turned, *([i] for i in turned)):
            part = run(ops, op, rows_of(sample, rows))
            for whole, alone, sliced in zip(full, part, by_row, strict=True):
                if sliced:
                    assert same_bits(whole[rows], alone), f"{sample.name}: rows {rows} differ"


@pytest.mark.parametrize("op", OPS)
def test_thread_count_changes_nothing(op, threads):
    cpu = Backend("cpu")
    for sample in samples_of(op):
        has_rows = sample.by_row or sample.rows
        for one_row in (sample, rows_of(sample, [0])) if has_rows else (sample,):
            threads(1)
            one = run(cpu, op, one_row)
            threads(2)
            assert_same(one, run(cpu, op, one_row), sample, "differs on two threads")


@pytest.mark.parametrize("op", DEVICE_OPS)
def test_backends_agree(op):
    """Bit for bit; where sums are a tensor core's, within a rounding of the result and the sum.

    Attention rounds its weights too, and a score that differs in its last bit may turn one.
    """
    others = [b for b in BACKENDS if b != "cpu"]
    if not others:
        pytest.skip("the SIMT harness was not built: no CUDA headers")
    for sample in samples_of(op):
        ours = run(Backend("cpu"), op, sample)
        for name in others:
            theirs = run(Backend(name), op, sample)
            if op not in ROUNDED:
                assert_same(ours, theirs, sample, f"cpu and {name} differ")
                continue
            for a, b in zip(ours, theirs, strict=True):
                assert a.dtype == b.dtype
                eps = torch.finfo(a.dtype).eps if a.is_floating_point() else 0
                atol = max(1e-4, eps) if op == "attention_paged" else 1e-4
                torch.testing.assert_close(b, a, rtol=2 * eps, atol=atol, equal_nan=True)


def digest() -> str:
    """A hash of all results on the CPU, of the ops of which all levels give the same bits."""
    h = hashlib.sha256()
    for op in DEVICE_OPS:  # handles differ from process to process
        if op in ROUNDED and "amx" in (LEVEL, lmx._C.cpu_isa):
            continue
        for sample in samples_of(op):
            for t in run(Backend("cpu"), op, sample):
                if t.numel():
                    h.update(t.contiguous().view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


@pytest.mark.parametrize("level", ["v3", "v4"])
def test_isa_levels_agree_bit_for_bit(level):
    if LEVELS.index(lmx._C.cpu_isa) <= LEVELS.index(level):
        pytest.skip(
            f"this process runs at {lmx._C.cpu_isa}: no higher level to compare {level} with"
        )
    here = os.path.dirname(__file__)
    code = (
        f"import sys; sys.path.insert(0, {here!r}); import lmx, test_promises as t; "
        "print(lmx._C.cpu_isa, t.digest())"
    )
    env = os.environ | {"LMX_CPU_ISA": level, "LMX_TEST_LEVEL": lmx._C.cpu_isa}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert out.stdout.split() == [level, digest()]


@pytest.mark.parametrize("op", DEVICE_OPS)
@pytest.mark.parametrize("order", ["1", "5"])
def test_order_of_threads_changes_nothing(op, order, monkeypatch):
    if "simt" not in BACKENDS:
        pytest.skip("the SIMT harness was not built: no CUDA headers")
    for sample in samples_of(op)[1::5]:
        forward = run(Backend("simt"), op, sample)
        monkeypatch.setenv("LMX_SIMT_ORDER", order)
        assert_same(forward, run(Backend("simt"), op, sample), sample, f"order {order}")
        monkeypatch.delenv("LMX_SIMT_ORDER")
