"""Benches of lmx.layerskip: the GEMM at 1 to 512 rows, by groups, on stored formats; companions.

Weights rotate: every call multiplies with a matrix that no cache holds, as a decode step does.
"""

from itertools import cycle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmx
from lmx import layerskip

from . import layerskip_torch as ways
from .figures import Gate
from .inputs import DTYPES, ROTATE_BYTES, Case
from .measure import Measure
from .race import Rotation
from .roof import Traffic

DEVICES = ("cpu",) if lmx.no_cuda else ("cpu", "cuda")
WIDTH = 2048


def cases(dtypes: tuple[str, ...], rows: tuple[int, ...]) -> list[Case]:
    return [Case(device, dtype, n) for device in DEVICES for dtype in dtypes for n in rows]


def each(dtypes: tuple[str, ...], rows: tuple[int, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases(dtypes, rows), ids=str)


def normal(case: Case, *shape: int) -> Tensor:
    return torch.randn(*shape, device=case.device).to(DTYPES[case.dtype])


def matrices(case: Case, smoke: bool, n: int, k: int, at_least: int = 2) -> Tensor:
    """As many matrices as it takes to fill the rotation."""
    size = n * k * DTYPES[case.dtype].itemsize
    count = at_least if smoke else max(at_least, ROTATE_BYTES // size)
    few = normal(case, min(count, 8), n, k) / k**0.5
    return few.repeat(-(-count // len(few)), 1, 1)[:count].contiguous()


def read(*tensors: Tensor) -> Traffic:
    return Traffic(read=sum(t.numel() * t.element_size() for t in tensors))


# ---- a linear layer ------------------------------------------------------------------------------

GATES = {
    ("bf16", 1): Gate(0.75, kind="roof"),
    ("f32", 8): Gate(1.9, "linear"),
    ("f32", 16): Gate(1.5, "linear"),
    ("bf16", 512): Gate(0.7, "linear"),
}


@each(("f32", "bf16"), (1, 4, 8, 16, 64, 512))
def test_gemm(measure: Measure, case: Case, smoke: bool) -> None:
    width = 64 if smoke else WIDTH if case.rows < 512 else WIDTH // 2
    w, x = matrices(case, smoke, width, width), normal(case, case.rows, width)
    measure(
        lambda w: layerskip.gemm(x, w),
        Rotation(1, w),
        bytes_moved=read(w[0]),
        flops=2 * x.shape[0] * w[0].numel() if case.dtype == "f32" else 0,
        baseline={"linear": lambda w: F.linear(x, w[0])},
        gate=GATES.get((case.dtype, case.rows)) if case.device == "cpu" else None,
    )


@pytest.mark.parametrize("rows", (16, 64))
def test_gemm_rows(measure: Measure, smoke: bool, rows: int) -> None:
    """What more rows cost: c(n) / c(1) in bfloat16. Free where tiles of AMX multiply."""
    case = Case("cpu", "bf16", rows)
    width = 64 if smoke else WIDTH
    w, x = matrices(case, smoke, width, width), normal(case, rows, width)
    one = x[:1].clone()
    limit = {16: 1.15, 64: 1.7}[rows]
    measure(
        lambda w: layerskip.gemm(x, w),
        Rotation(1, w),
        baseline={"linear": lambda w: F.linear(x, w[0])},
        peer={"lmx, 1 row": lambda w: layerskip.gemm(one, w)},
        gate=Gate(1 / limit, "lmx, 1 row", "peer") if lmx._C.cpu_isa == "amx" else None,
    )


@pytest.mark.parametrize("format", ("q4_1", "q4_0", "q8_0", "int8"))
@each(("bf16",), (1, 16))
def test_gemm_stored(measure: Measure, case: Case, smoke: bool, format: str) -> None:
    """Weights as they are stored, beside bfloat16 ones."""
    width = 64 if smoke else WIDTH
    w, x = matrices(case, smoke, width, width), normal(case, case.rows, width)
    scale = None
    if format == "int8":
        stored, scale = layerskip.quantize_int8(w[:8])
        scale = scale[:1].contiguous()
    else:
        size = layerskip.row_bytes(format, width)
        stored = torch.randint(0, 60, (8, width, size), dtype=torch.uint8, device=case.device)
    count = 2 if smoke else ROTATE_BYTES // stored[0].numel()
    stored = stored.repeat(-(-count // 8), 1, 1)[:count].contiguous()
    turn = cycle(w)  # the other side's own rotation: its matrices are larger
    measure(
        lambda q: layerskip.gemm(x, q, format=format, weight_scale=scale),
        Rotation(1, stored),
        bytes_moved=read(stored[0]),
        baseline={"linear (bf16)": lambda _: F.linear(x, next(turn))},
    )


@each(("f32", "bf16"), (8,))
def test_gemm_out(measure: Measure, case: Case, smoke: bool) -> None:
    """A residual stream updated in place."""
    width = 64 if smoke else WIDTH
    w, x = matrices(case, smoke, width, width), normal(case, case.rows, width)
    stream = normal(case, case.rows, width)
    measure(
        lambda w: layerskip.gemm_out(x, w, stream, residual=stream),
        Rotation(1, w),
        bytes_moved=read(w[0]),
        baseline={"add_(linear)": lambda w: stream.add_(F.linear(x, w[0]))},
    )


@each(("f32", "bf16"), (1, 8))
def test_swiglu(measure: Measure, case: Case, smoke: bool) -> None:
    n, k = (64, 32) if smoke else (1536, 576)
    w, x = matrices(case, smoke, 2 * n, k), normal(case, case.rows, k)
    measure(
        lambda w: layerskip.swiglu(x, w[:, :n], w[:, n:]),
        Rotation(1, w),
        bytes_moved=read(w[0]),
        baseline={"linear, silu, linear": lambda w: ways.swiglu(x, w[0, :n], w[0, n:])},
    )


# ---- groups --------------------------------------------------------------------------------------


@each(("f32", "bf16"), (48,))
def test_gemm_groups(measure: Measure, case: Case, smoke: bool) -> None:
    """6 groups of 8 rows: the rows of a batch at six different layers."""
    groups, width = 6, 64 if smoke else WIDTH
    w, x = matrices(case, smoke, width, width, groups), normal(case, case.rows, width)
    w = w[: len(w) // groups * groups]
    group = torch.arange(case.rows, dtype=torch.int32, device=case.device) // 8
    ends = (8 * torch.arange(1, groups + 1, dtype=torch.int32)).to(case.device)
    plan = layerskip.plan(group, groups)
    measure(
        lambda w: layerskip.gemm(x, w, group, plan=plan),
        Rotation(groups, w),
        bytes_moved=read(w[:groups]),
        baseline={
            "grouped_mm": lambda w: ways.grouped_mm(x, w, ends),
            "loop of linears": lambda w: ways.loop_of_linears(x, w, ends),
        },
        gate=Gate(2.0, "grouped_mm") if (case.device, case.dtype) == ("cpu", "f32") else None,
    )


@pytest.mark.parametrize("share", (0.25, 0.5, 0.75), ids=lambda s: f"{s:.0%} inactive")
@each(("f32",), (8,))
def test_gemm_inactive(measure: Measure, case: Case, smoke: bool, share: float) -> None:
    """A share of eight groups has no rows: its weights cost nothing."""
    groups, width = 8, 64 if smoke else WIDTH // 2
    w, x = matrices(case, smoke, width, width, groups), normal(case, case.rows, width)
    w = w[: len(w) // groups * groups]
    group = torch.arange(groups, dtype=torch.int32, device=case.device)
    idle = torch.where(group < round(groups * share), -1, group)
    plans = [layerskip.plan(g, groups) for g in (group, idle)]
    measure(
        lambda w: layerskip.gemm(x, w, idle, plan=plans[1]),
        Rotation(groups, w),
        baseline={
            "linear of all": lambda w: torch.cat([F.linear(x[g : g + 1], w[g]) for g in range(8)])
        },
        peer={"lmx, all active": lambda w: layerskip.gemm(x, w, group, plan=plans[0])},
        gate=Gate(1 / (1 - share + 0.1), "lmx, all", "peer") if case.device == "cpu" else None,
    )


@each(("f32", "bf16"), (16,))
def test_gemm_skipped(measure: Measure, case: Case, smoke: bool) -> None:
    """Half of the rows of one layer are skipped."""
    width = 64 if smoke else WIDTH
    w, x = matrices(case, smoke, width, width), normal(case, case.rows, width)
    residual = normal(case, case.rows, width)
    group = torch.arange(case.rows, dtype=torch.int32, device=case.device) % 2 - 1
    active, rows = group >= 0, (group >= 0).nonzero()[:, 0]
    measure(
        lambda w: layerskip.gemm(x, w, group, residual=residual),
        Rotation(1, w),
        bytes_moved=read(w[0]),
        baseline={
            "linear+where": lambda w: ways.whole_linear(x, w[0], active, residual),
            "index_select+linear+index_copy": lambda w: ways.picked_linear(
                x, w[0], rows, residual.clone()
            ),
        },
    )


# ---- companions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [Case(d, "", n) for d in DEVICES for n in (64, 4096)], ids=str)
def test_plan(measure: Measure, case: Case) -> None:
    groups = torch.randint(-1, 32, (64, case.rows), dtype=torch.int32, device=case.device)
    measure(
        lambda g: layerskip.plan(g[0], 32),
        Rotation(1, groups),
        baseline={
            "sort+bincount": lambda g: (
                torch.sort(g[0], stable=True),
                torch.bincount(g[0] + 1, minlength=33).cumsum(0),
            )
        },
    )


@each(("f32", "bf16"), (1, 512))
def test_rmsnorm(measure: Measure, case: Case, smoke: bool) -> None:
    width = WIDTH
    count = 2 * case.rows if smoke else max(ROTATE_BYTES // 8 // width, 4 * case.rows)
    x, gamma = normal(case, count, width), normal(case, 1, width)
    size = case.rows * width * x.element_size()
    measure(
        lambda x: layerskip.rmsnorm(x, gamma),
        Rotation(case.rows, x),
        bytes_moved=Traffic(read=size, write=size),
        baseline={"rms_norm": lambda x: ways.rms_norm(x, gamma[0])},
    )


@each(("f32", "bf16"), (1, 512))
def test_layernorm(measure: Measure, case: Case, smoke: bool) -> None:
    width = WIDTH
    count = 2 * case.rows if smoke else max(ROTATE_BYTES // 8 // width, 4 * case.rows)
    x, gamma, beta = normal(case, count, width), normal(case, 1, width), normal(case, 1, width)
    size = case.rows * width * x.element_size()
    measure(
        lambda x: layerskip.layernorm(x, gamma, beta),
        Rotation(case.rows, x),
        bytes_moved=Traffic(read=size, write=size),
        baseline={"layer_norm": lambda x: ways.layer_norm(x, gamma[0], beta[0])},
    )


@each(("bf16",), (512,))
def test_gather(measure: Measure, case: Case, smoke: bool) -> None:
    count = 2 * case.rows if smoke else ROTATE_BYTES // 8 // WIDTH
    x = normal(case, count, WIDTH)
    perm = torch.randperm(case.rows, device=case.device).int()
    wide, size = perm.long(), case.rows * WIDTH * 2
    measure(
        lambda x: layerskip.gather(x, perm, case.rows),
        Rotation(case.rows, x),
        bytes_moved=Traffic(read=size, write=size),
        baseline={"index_select": lambda x: x.index_select(0, wide)},
    )


@each(("bf16",), (512,))
def test_scatter(measure: Measure, case: Case, smoke: bool) -> None:
    count = 2 * case.rows if smoke else ROTATE_BYTES // 8 // WIDTH
    y, out = normal(case, count, WIDTH), normal(case, case.rows, WIDTH)
    perm = torch.randperm(case.rows, device=case.device).int()
    wide, size = perm.long(), case.rows * WIDTH * 2
    measure(
        lambda y: layerskip.scatter(y, perm, out),
        Rotation(case.rows, y),
        bytes_moved=Traffic(read=size, write=size),
        baseline={"index_copy_": lambda y: out.index_copy_(0, wide, y)},
    )
