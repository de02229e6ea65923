"""Benches of lmx.attention: decoding over pages, draft trees, rotation, merging."""

import pytest
import torch

from lmx import attention, layerskip

from .attention_inputs import LLAMA3, SMOLLM2, Pages, random_tree
from .figures import Gate
from .inputs import DTYPES, ROTATE_BYTES, Case
from .measure import Measure
from .race import Rotation
from .roof import Traffic

# ---- decoding ------------------------------------------------------------------------------------

DECODE_GATES = {"torch": Gate(1.4), "roof": Gate(0.75, kind="roof")}


@pytest.mark.parametrize("slots", (8192, 32768))
@pytest.mark.parametrize("against", DECODE_GATES)
def test_paged(measure: Measure, smoke: bool, slots: int, against: str) -> None:
    """One row over pages of 16 slots, with the heads of an 8B model."""
    pages = Pages(LLAMA3, 64 if smoke else slots, smoke)
    measure(
        lambda _, table: pages.ours(table),
        pages.rotation,
        bytes_moved=Traffic(read=LLAMA3.bytes_of(pages.slots)),
        baseline={
            "SDPA (contiguous)": lambda dense, _: pages.sdpa(dense),
            "SDPA (contiguous, grouped)": lambda dense, _: pages.grouped_sdpa(dense),
            "matmul (contiguous, grouped)": lambda dense, _: pages.matmul(dense),
            "index_select, SDPA": lambda _, table: pages.gathered_sdpa(table),
        },
        gate=DECODE_GATES[against],
    )


def test_paged_small(measure: Measure, smoke: bool) -> None:
    """One row over 1,024 slots, with the heads of a 135M model."""
    pages = Pages(SMOLLM2, 64 if smoke else 1024, smoke)
    measure(
        lambda _, table: pages.ours(table),
        pages.rotation,
        bytes_moved=Traffic(read=SMOLLM2.bytes_of(pages.slots)),
        baseline={
            "SDPA (contiguous, grouped)": lambda dense, _: pages.grouped_sdpa(dense),
            "index_select, SDPA": lambda _, table: pages.gathered_sdpa(table),
        },
    )


# ---- blocks of rows ------------------------------------------------------------------------------

TREE_GATES = {
    "torch": Gate(1.4, "SDPA"),
    "gemm": Gate(0.6, kind="peer", against="gemm"),
    "mask": Gate(1 / 1.05, kind="peer", against="lmx, no mask"),
}


@pytest.mark.parametrize("against", TREE_GATES)
def test_paged_tree(measure: Measure, smoke: bool, against: str) -> None:
    """A draft tree of 64 nodes over 4,096 slots; beside it a product of as many operations."""
    nodes, slots = (8, 64) if smoke else (64, 4096)
    pages = Pages(LLAMA3, slots, smoke, nodes)
    bits, sees = random_tree(nodes)
    mask = torch.cat((torch.ones(nodes, slots - nodes, dtype=torch.bool), sees), 1)
    x, w = torch.randn(512, 2048).bfloat16(), torch.randn(pages.flops // 2**21, 2048).bfloat16()
    peers = {
        "gemm (lmx)": lambda *_: layerskip.gemm(x, w[None]),
        "gemm (torch)": lambda *_: x @ w.T,
        "lmx, no mask": lambda _, table: pages.ours(table, causal=False),
    }
    measure(
        lambda _, table: pages.ours(table, bits),
        pages.rotation,
        baseline={"SDPA, dense mask": lambda dense, _: pages.masked_sdpa(dense, mask)},
        peer=peers,
        gate=TREE_GATES[against],
    )


def test_paged_prefill(measure: Measure, smoke: bool) -> None:
    """A chunk of 512 rows of a prompt after 3,584 slots, causal."""
    rows, slots = (8, 64) if smoke else (512, 3584)
    pages = Pages(SMOLLM2, slots, smoke, rows)
    both = torch.randn(1, 2, SMOLLM2.num_kv_heads, slots + rows, SMOLLM2.dim).bfloat16()
    mask = torch.ones(rows, slots + rows, dtype=torch.bool).tril(slots)
    measure(
        lambda _, table: pages.ours(table),
        pages.rotation,
        baseline={"SDPA, dense mask": lambda *_: pages.masked_sdpa(both, mask)},
    )


# ---- companions ----------------------------------------------------------------------------------


def test_rope(measure: Measure, smoke: bool) -> None:
    """Query and key heads of 512 rows, as a chunk of a prompt has them."""
    case = Case("cpu", "bf16", 512)
    dim, rows = 64, 8 if smoke else case.rows
    each = 12 * dim * rows * 2
    count = 2 if smoke else ROTATE_BYTES // each
    both = torch.randn(count, rows, 12, dim).to(DTYPES[case.dtype])
    angles = torch.arange(rows)[:, None] * torch.rand(dim // 2)
    cos, sin = angles.cos(), angles.sin()
    wide_cos, wide_sin = torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]
    positions = torch.arange(rows, dtype=torch.int32)

    def in_torch(x: torch.Tensor) -> torch.Tensor:
        return (x[0] * wide_cos).add_(x[0].roll(dim // 2, -1) * wide_sin).to(x.dtype)

    measure(
        lambda x: attention.rope(x[0, :, :9], x[0, :, 9:], cos, sin, positions),
        Rotation(1, both),
        bytes_moved=Traffic(read=each, write=each),
        baseline={"mul, roll, add": in_torch},
    )


def test_merge(measure: Measure, smoke: bool) -> None:
    """Two parts of 64 rows."""
    case = Case("cpu", "bf16", 64)
    shape = (64, 32, 128)
    each = 64 * 32 * 128 * 2
    count = 2 if smoke else ROTATE_BYTES // (2 * each)
    parts = torch.randn(count, 2, *shape).to(DTYPES[case.dtype])
    lse = torch.randn(2, 64, 32)

    def in_torch(x: torch.Tensor) -> torch.Tensor:
        share = torch.softmax(lse, 0)[..., None]
        return (x[0] * share).sum(0).to(x.dtype)

    measure(
        lambda x: attention.merge(x[0, 0], lse[0], x[0, 1], lse[1]),
        Rotation(1, parts),
        bytes_moved=Traffic(read=2 * each, write=each),
        baseline={"softmax, mul, sum": in_torch},
    )
