"""Weights as they are stored: the bits of the dequantised matrix, or a bound."""

import pytest
import torch
from helpers import same_bits
from layerskip_bounds import assert_within, gemm_bound
from layerskip_samples import blocks, mix, normal, weights

from lmx.layerskip import FORMATS, dequantize, quantize_int8, reference, row_bytes


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 9, 33, 70])
def test_blocks_are_their_bfloat16_matrix(ops, format, num_rows):
    for n, k in ((1, 32), (37, 96), (70, 1632), (33, 4128)):
        if ops.name == "simt" and n * k * num_rows > 300_000:
            continue
        packed, x = blocks(format, 2, n, k), normal(num_rows, k, dtype=torch.bfloat16)
        group, residual = mix("random", num_rows, 2), normal(num_rows, n, dtype=torch.bfloat16)
        dense = dequantize(packed, format)
        in_place = ops("skip_gemm", x, packed, group, residual=residual, format=format)
        assert same_bits(in_place, ops("skip_gemm", x, dense, group, residual=residual))
        up = blocks(format, 2, n, k)
        in_place = ops("skip_swiglu", x, packed, up, group, format=format)
        assert same_bits(in_place, ops("skip_swiglu", x, dense, dequantize(up, format), group))


@pytest.mark.parametrize("format", FORMATS)
def test_every_block_value(ops, format):
    """Extreme scales, every pattern of bits, roundings that are ties: one weight at a time."""
    packed = torch.randint(0, 256, (1, 64, 64 // 32, FORMATS[format]), dtype=torch.uint8)
    scales = torch.tensor([0.0, -0.0, 6e-8, 1e-4, 1.0, 1.0078125, -3.0, 65504.0])
    picks = scales[torch.randint(len(scales), (1, 64, 2, 2))].to(torch.float16)
    count = 2 if format == "q4_1" else 1
    packed[..., : 2 * count] = picks[..., :count].contiguous().view(torch.uint8)
    packed = packed.reshape(1, 64, row_bytes(format, 64))
    x = torch.eye(64, dtype=torch.bfloat16)
    out = ops("skip_gemm", x, packed, None, format=format, out_dtype=torch.float32)
    assert torch.equal(out, dequantize(packed, format)[0].float().T)


@pytest.mark.parametrize("format", FORMATS)
def test_a_scale_that_is_nan_stays_visible(ops, format):
    packed = blocks(format, 1, 3, 64)
    packed[0, 1, :2] = torch.tensor([255, 127], dtype=torch.uint8)  # the NaN of all ones
    x = torch.ones(1, 64, dtype=torch.bfloat16)
    for num_rows in (1, 8):
        out = ops("skip_gemm", x.expand(num_rows, -1), packed, None, format=format)
        assert out[:, 1].isnan().all() and not out[:, [0, 2]].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_int8(ops, dtype):
    for num_rows, (n, k) in ((1, (5, 7)), (3, (33, 64)), (9, (70, 129)), (40, (33, 200))):
        q, scale = quantize_int8(weights(2, n, k))
        x, group = normal(num_rows, k, dtype=dtype), mix("random", num_rows, 2)
        options = {"format": "int8", "weight_scale": scale, "bias": normal(2, n, dtype=dtype)}
        ours = ops("skip_gemm", x, q, group, **options)
        exact = reference.gemm(x, q, group, **options)
        bound = gemm_bound(exact, x, q, group, dtype, **options)
        assert_within(ours, exact, bound, f"{num_rows} rows, {n} x {k}")


def test_quantize_int8():
    w = weights(3, 20, 30)
    w[1, 2] = 0
    q, scale = quantize_int8(w)
    assert scale[1, 2] == 0 and not q[1, 2].any() and q.abs().max() == 127
    assert ((q * scale[..., None] - w).abs() <= scale[..., None] / 2 + 1e-7).all()
    assert quantize_int8(torch.empty(4, 0))[1].shape == (4,)
    with pytest.raises(ValueError, match="expected finite weights"):
        quantize_int8(torch.tensor([[1.0, torch.inf]]))


def test_dequantize_by_hand():
    one, two = (torch.tensor([v], dtype=torch.float16).view(torch.uint8) for v in (1.0, 2.0))
    halves = torch.arange(16, dtype=torch.uint8) | (15 - torch.arange(16, dtype=torch.uint8)) << 4
    up = [float(i) for i in range(16)]
    q4_1 = torch.cat((two, one, halves))
    assert dequantize(q4_1, "q4_1").tolist() == [2 * v + 1 for v in up + up[::-1]]
    q4_0 = torch.cat((two, halves))
    assert dequantize(q4_0, "q4_0").tolist() == [2 * (v - 8) for v in up + up[::-1]]
    q8_0 = torch.cat((two, torch.arange(-16, 16, dtype=torch.int8).view(torch.uint8)))
    assert dequantize(q8_0, "q8_0").tolist() == [2.0 * v for v in range(-16, 16)]
    for wrong in (q4_1[:-1], q4_1.int()):
        with pytest.raises(ValueError, match="expected uint8 rows of whole blocks"):
            dequantize(wrong, "q4_1")
    with pytest.raises(ValueError, match="q8_0, q4_0, q4_1, got .* format q5_k"):
        dequantize(q4_1, "q5_k")
    with pytest.raises(ValueError, match="a multiple of 32 for q8_0, got 33"):
        row_bytes("q8_0", 33)
    with pytest.raises(ValueError, match="expected format to be one of q8_0, q4_0, q4_1, got q6"):
        row_bytes("q6", 32)
