"""Quantised weights: int8 with a scale per row, and the block formats of GGUF read in place."""

import torch
from torch import Tensor

# Bytes of a block of 32 weights. Source: the block layouts of ggml, docs/gguf.md.
FORMATS = {"q8_0": 34, "q4_0": 18, "q4_1": 20}
BLOCK = 32


def row_bytes(format: str, width: int) -> int:
    """Return how many bytes ``width`` weights take in a block format.

    Raises:
        ValueError: the format is not supported, or ``width`` is no multiple of 32.
    """
    if format not in FORMATS:
        raise ValueError(f"expected format to be one of {', '.join(FORMATS)}, got {format}")
    if width % BLOCK:
        raise ValueError(f"expected width a multiple of {BLOCK} for {format}, got {width}")
    return width // BLOCK * FORMATS[format]


def dequantize(blocks: Tensor, format: str) -> Tensor:
    """Return the weights of packed rows, as the GEMM multiplies them.

    Args:
        blocks: uint8 ``[..., row bytes]``: rows of blocks of 32 weights.
        format: "q8_0", "q4_0" or "q4_1".

    Returns:
        bfloat16 ``[..., K]``. A weight is computed in float32 (``d q``, ``d (q - 8)``, ``d q + m``)
        and rounded to nearest even.

    Raises:
        ValueError: the format is unknown, or a row is no whole number of blocks.
    """
    size = FORMATS.get(format, 0)
    if size == 0 or blocks.dtype != torch.uint8 or blocks.shape[-1] % size:
        raise ValueError(
            f"expected uint8 rows of whole blocks of one of {', '.join(FORMATS)}, "
            f"got {blocks.dtype}, {blocks.shape[-1]} bytes, format {format}"
        )
    block = blocks.reshape(-1, size)
    scale = block[:, :2].contiguous().view(torch.float16).float()
    if format == "q8_0":
        weights = scale * block[:, 2:].contiguous().view(torch.int8).float()
    else:
        first = 4 if format == "q4_1" else 2
        halves = torch.cat((block[:, first:] & 15, block[:, first:] >> 4), -1).float()
        if format == "q4_0":
            weights = scale * (halves - 8)
        else:
            # One rounding, as an fma has: the product of 11 and 4 bits is exact.
            weights = scale * halves + block[:, 2:4].contiguous().view(torch.float16).float()
    return weights.to(torch.bfloat16).reshape(*blocks.shape[:-1], -1)


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise rows symmetrically to int8: weight is about ``q * scale[..., None]``.

    Args:
        weight: floating ``[..., N, K]``, finite.

    Returns:
        ``q``, int8 ``[..., N, K]`` in [-127, 127], and ``scale``, float32 ``[..., N]``: the largest
        magnitude of the row over 127, 0 for a row of zeros.

    Raises:
        ValueError: a weight is infinite or NaN.
    """
    if not weight.isfinite().all():
        raise ValueError("expected finite weights, got an infinity or NaN")
    wide = weight.float()
    scale = wide.abs().amax(-1) / 127 if wide.shape[-1] else wide.new_zeros(wide.shape[:-1])
    q = torch.round(wide / torch.where(scale > 0, scale, 1)[..., None])
    return q.clamp(-127, 127).to(torch.int8), scale
