"""Benches of lmx.attention: decoding over pages, draft trees, rotation, merging."""

import pytest
import torch

from lmx import attention

from .inputs import DTYPES, ROTATE_BYTES, Case
from .measure import Measure
from .race import Rotation
from .roof import Traffic


def test_paged() -> None:
    pytest.skip("follows")


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
