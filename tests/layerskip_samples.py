"""Cases of the ops ``skip_*``."""

from collections.abc import Iterator

import torch
from samples import DTYPES, Sample
from torch import Tensor

from lmx.layerskip import FORMATS, quantize_int8, row_bytes

# (N, K): below, at and above the borders of tiles, steps and blocks; K = 700: splits on CUDA.
SHAPES = ((1, 1), (3, 5), (64, 64), (65, 33), (33, 700), (129, 257))
ROWS = (1, 2, 7, 17)  # one tile, full tiles, tiles of different sizes


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers whose products sum to about 1, none of them subnormal in 16 bits."""
    return torch.randn(*shape).clamp(-3, 3).to(dtype)


def weights(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Like `normal`, over the root of the last size."""
    return (torch.randn(*shape) / max(shape[-1], 1) ** 0.5).to(dtype)


def blocks(format: str, *shape: int) -> Tensor:
    """Packed rows ``[..., N, row bytes]`` with plausible scales."""
    *outer, k = shape
    size = FORMATS[format]
    packed = torch.randint(0, 256, (*outer, k // 32, size), dtype=torch.uint8)
    scales = (torch.rand(*outer, k // 32, 2) * 0.02 + 1e-3).to(torch.float16)
    scales[..., 1] *= -8
    count = 2 if format == "q4_1" else 1
    packed[..., : 2 * count] = scales[..., :count].contiguous().view(torch.uint8)
    return packed.reshape(*outer, row_bytes(format, k))


def mix(kind: str, num_rows: int, num_groups: int) -> Tensor | None:
    """Groups of rows: all one, each its own, skewed, some or all skipped."""
    row = torch.arange(num_rows)
    group = {
        "one": row * 0 + num_groups - 1,
        "each": row % num_groups,
        "skewed": (row == num_rows // 2).long() * (num_groups - 1),
        "half": torch.where(row % 2 == 0, row % num_groups, -1),
        "none": row * 0 - 1,
        "random": torch.randint(-1, num_groups, (num_rows,)),
    }[kind]
    return group.int()


def _options(num_rows: int, num_groups: int, n: int, dtype: torch.dtype, which: int) -> dict:
    """Bias, residual, row scale and activation, in combinations."""
    options: dict = {}
    if which & 1:
        options["bias"] = normal(num_groups, n, dtype=dtype)
    if which & 2:
        options["residual"] = normal(num_rows, n, dtype=dtype)
    if which & 4:
        options["row_scale"] = torch.rand(num_rows) + 0.5
    if which & 8:
        kinds = ("relu", "gelu_tanh", "gelu_erf", "silu", "tanh", "sigmoid")
        options["activation"] = kinds[which // 16 % len(kinds)]
    return options


_BY_ROW = (0, 2, "residual", "row_scale")


def gemms() -> Iterator[Sample]:
    """Every shape, number of rows and dtype; options and row mixes in turn; every format."""
    case = 0
    mixes = ("one", "each", "skewed", "half", "random", "none")
    for n, k in SHAPES:
        for num_rows in ROWS:
            dtype, num_groups = DTYPES[case % 3], (1, 3)[case % 2]
            kind = mixes[case % len(mixes)]
            x = normal(num_rows, k, dtype=dtype)
            w = weights(num_groups, n, k, dtype=dtype)
            group = None if num_groups == 1 and case % 4 == 0 else mix(kind, num_rows, num_groups)
            options = _options(num_rows, num_groups, n, dtype, case * 7 % 96)
            name = f"{n}x{k}-{num_rows}-{str(dtype)[6:]}-{kind}"
            yield Sample(name, (x, w, group), _BY_ROW, options)
            case += 1
    yield from _stored()
    yield from _unusual()


def _stored() -> Iterator[Sample]:
    for i, format in enumerate(FORMATS):
        for num_rows in (1, 3, 9):
            x = normal(num_rows, 96, dtype=torch.bfloat16)
            group = mix("random", num_rows, 2)
            kwargs = {"format": format} | _options(num_rows, 2, 35, torch.bfloat16, 3 * i)
            yield Sample(
                f"{format}-{num_rows}", (x, blocks(format, 2, 35, 96), group), _BY_ROW, kwargs
            )
    for dtype in (torch.bfloat16, torch.float16):
        q, scale = quantize_int8(weights(2, 35, 77))
        kwargs = {"format": "int8", "weight_scale": scale, "out_dtype": torch.float32}
        args = (normal(5, 77, dtype=dtype), q, mix("each", 5, 2))
        yield Sample(f"int8-{str(dtype)[6:]}", args, _BY_ROW, kwargs)


def _unusual() -> Iterator[Sample]:
    """Lists, strides, odd addresses, nothing at all."""
    several = [weights(40, 50), torch.empty(0), weights(40, 50)]
    group = torch.tensor([0, 2, -1, 2, 0, 2], dtype=torch.int32)
    yield Sample("list", (normal(6, 50), None, group), _BY_ROW, {"weights": several})
    x, w = normal(9, 130)[:, 3:100], weights(2, 50, 130)[:, 5:38, 1:98]
    residual = normal(9, 70)[:, 7:40]
    yield Sample("strided", (x, w, mix("random", 9, 2)), _BY_ROW, {"residual": residual})
    odd = normal(5, 65, dtype=torch.bfloat16)[:, 1:], weights(1, 19, 65, dtype=torch.bfloat16)
    yield Sample("odd address", (odd[0], odd[1][:, :, 1:], None), _BY_ROW)
    yield Sample("to float", (normal(4, 64, dtype=torch.bfloat16),
                              weights(1, 40, 64, dtype=torch.bfloat16), None),
                 _BY_ROW, {"out_dtype": torch.float32})  # fmt: skip
    group = mix("each", 70, 2)
    args = (normal(70, 40), weights(2, 33, 40), group)
    plan = list(torch.ops.lmx.skip_plan(group, 2))
    yield Sample("planned", args, None, {"plan": plan})
    yield Sample("no columns", (normal(3, 0), weights(2, 5, 0), mix("each", 3, 2)), _BY_ROW,
                 {"bias": normal(2, 5)})  # fmt: skip
    yield Sample("no outputs", (normal(3, 4), weights(1, 0, 4), None), _BY_ROW)
    yield Sample("large", (normal(70, 320, dtype=torch.bfloat16),
                           weights(1, 150, 320, dtype=torch.bfloat16), None), _BY_ROW)  # fmt: skip


def gemm_outs() -> Iterator[Sample]:
    """Into a fresh tensor, into the residual, into a view, and past skipped rows."""
    for i, dtype in enumerate(DTYPES):
        x, w = normal(7, 50, dtype=dtype), weights(2, 37, 50, dtype=dtype)
        group = mix("random", 7, 2)
        out = normal(7, 37, dtype=dtype)
        by_row = (0, 1, 3, "residual")
        yield Sample(f"plain-{i}", (x, out, w, group), by_row)
        yield Sample(f"keep-{i}", (x, out, w, group), by_row, {"skipped": "keep"})
        view = normal(7, 60, dtype=dtype)[:, 9:46]
        kwargs = {"residual": normal(7, 37, dtype=dtype)}
        yield Sample(f"view-{i}", (x, view, w, group), by_row, kwargs)
    yield Sample("wider", (normal(5, 64, dtype=torch.bfloat16), normal(5, 20),
                           weights(1, 20, 64, dtype=torch.bfloat16), None), (0, 1, 3))  # fmt: skip


def swiglus() -> Iterator[Sample]:
    """Every dtype and format, few and many rows."""
    for i, (n, k) in enumerate(SHAPES):
        for num_rows in (1, 5, 33):
            dtype = DTYPES[(i + num_rows) % 3]
            group = mix("random", num_rows, 3)
            gate, up = (weights(3, n, k, dtype=dtype) for _ in range(2))
            args = (normal(num_rows, k, dtype=dtype), gate, up, group)
            yield Sample(f"{n}x{k}-{num_rows}-{str(dtype)[6:]}", args, (0, 3))
    for format in FORMATS:
        gate, up = (blocks(format, 1, 20, 64) for _ in range(2))
        args = (normal(3, 64, dtype=torch.bfloat16), gate, up, None)
        yield Sample(format, args, (0,), {"format": format})
    (gate, a), (up, b) = (quantize_int8(weights(1, 20, 64)) for _ in range(2))
    kwargs = {"format": "int8", "gate_scale": a, "up_scale": b}
    yield Sample("int8", (normal(3, 64, dtype=torch.float16), gate, up, None), (0,), kwargs)
    several = {"gates": [weights(6, 9), torch.empty(0)], "ups": [weights(6, 9), torch.empty(0)]}
    group = torch.tensor([0, -1, 0], dtype=torch.int32)
    yield Sample("list", (normal(3, 9), None, None, group), (0, 3), several)


def plans() -> Iterator[Sample]:
    """Few and many rows and groups, aliases."""
    for num_rows, num_groups in ((1, 1), (7, 3), (33, 8), (100, 130), (5000, 7), (300, 1100)):
        for kind in ("random", "one", "none"):
            group = mix(kind, num_rows, num_groups)
            for block_m in (1, 16):
                name = f"{num_rows}-{num_groups}-{kind}-{block_m}"
                yield Sample(name, (group, num_groups, block_m), None)
    alias = torch.tensor([0, 1, 0, 1], dtype=torch.int32)
    yield Sample("alias", (mix("random", 40, 4), 4, 8, alias), None)
    yield Sample("no rows", (torch.empty(0, dtype=torch.int32), 3, 8), None)
    yield Sample("no groups", (torch.full((5,), -1, dtype=torch.int32), 0, 8), None)


def _normed() -> Iterator[tuple[str, Tensor, Tensor | None, int]]:
    for i, width in enumerate((1, 7, 31, 32, 33, 64, 257, 576, 1025)):
        dtype = DTYPES[i % 3]
        group = mix("random", 5, 3) if i % 2 else None
        yield f"{width}-{str(dtype)[6:]}", normal(5, width, dtype=dtype), group, 3 if i % 2 else 1
    yield "strided", normal(5, 90)[:, 11:80], mix("half", 5, 2), 2


def rmsnorms() -> Iterator[Sample]:
    """Widths around the lanes of a sum."""
    for name, x, group, num_groups in _normed():
        yield Sample(name, (x, normal(num_groups, x.shape[1], dtype=x.dtype), group), (0, 2))
    x = normal(3, 40, dtype=torch.bfloat16)
    yield Sample("wide weights", (x, normal(1, 40), None, 1e-3), (0,))


def layernorms() -> Iterator[Sample]:
    """The same, with and without beta."""
    for i, (name, x, group, num_groups) in enumerate(_normed()):
        shape = (num_groups, x.shape[1])
        beta = normal(*shape, dtype=x.dtype) if i % 3 else None
        yield Sample(name, (x, normal(*shape, dtype=x.dtype), beta, group), (0, 3))


def gathers() -> Iterator[Sample]:
    """Rows of any dtype, width and address."""
    perm = torch.tensor([4, 0, 0, 2, 3], dtype=torch.int32)
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.uint8):
        for width in (0, 1, 16, 37):
            x = torch.randint(0, 100, (5, width)).to(dtype)
            yield Sample(f"{width}-{str(dtype)[6:]}", (x, perm, 4), None)
    yield Sample("strided", (normal(5, 90)[:, 3:80], perm, 5), None)
    yield Sample("large", (normal(5, 40_000), perm, 5), None)


def scatters() -> Iterator[Sample]:
    """The way back."""
    perm = torch.tensor([4, 0, 1, 2], dtype=torch.int32)
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.uint8):
        for width in (0, 1, 16, 37):
            y, out = (torch.randint(0, 100, (n, width)).to(dtype) for n in (3, 6))
            yield Sample(f"{width}-{str(dtype)[6:]}", (y, perm, out), None)
    yield Sample("strided", (normal(4, 90)[:, 3:80], perm, normal(5, 99)[:, 1:78]), None)
