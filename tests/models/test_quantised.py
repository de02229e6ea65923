"""Weights as a file stores them, and in int8."""

import logging
import struct

import numpy as np
import pytest
import torch
from gguf_files import METADATA, gguf_tensors, write_gguf
from tiny_models import layered_logits, tiny

import lmx
from lmx import layerskip
from lmx.models import load
from lmx.models.gguf_file import read_header

KINDS = ["Q8_0", "Q4_0", "Q4_1", "F32", "F16", "BF16"]
PROMPT = [5, 17, 99, 4]


def write(path, kind, **changes):
    """A Llama whose matrices are stored as ``kind``; ``changes`` are kinds by name."""
    tensors = list(gguf_tensors(tiny("llama_tied")))
    kinds = {name: kind for name, value in tensors if value.ndim == 2 and kind != "F32"}
    kinds |= {name.replace("__", "."): other for name, other in changes.items()}
    return write_gguf(path, tensors, metadata=METADATA, kinds=kinds)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "tiny.gguf", "Q4_1")


def overwrite(path, name, offset, data):
    """Put ``data`` into the bytes of a tensor."""
    whole, tensor = bytearray(path.read_bytes()), read_header(path).tensors[name]
    start = tensor.start + (offset if offset >= 0 else tensor.num_bytes + offset)
    whole[start : start + len(data)] = data
    path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_have_the_bits_of_dequantised_weights(kind, tmp_path, tokens):
    path = write(tmp_path / "tiny.gguf", kind)
    model, dequantised = load(path, weights="file"), load(path, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    for i in range(2):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
            ours, expected = model.weights(i, name), dequantised.weights(i, name).weight
            if kind in ("F32", "F16", "BF16"):
                assert ours.format == "dense" and torch.equal(ours.weight, expected)
            else:
                assert ours.format == kind.lower()
                assert torch.equal(layerskip.dequantize(ours.weight, ours.format), expected)
    # Vectors keep float32; here they are no bfloat16 numbers, so the other model gets them too.
    for ours, theirs in zip(model._layers, dequantised._layers, strict=True):
        theirs.attn_norm._weight, theirs.mlp_norm._weight = (
            ours.attn_norm._weight,
            ours.mlp_norm._weight,
        )
    dequantised._norm = model._norm
    assert torch.equal(layered_logits(model, tokens), layered_logits(dequantised, tokens))
    [ours], [theirs] = (lmx.generate(m, [PROMPT], max_new_tokens=8) for m in (model, dequantised))
    assert ours.tokens == theirs.tokens


def test_formats_may_differ_between_tensors(tmp_path, tokens):
    kinds = {"blk__0__ffn_up__weight": "Q8_0", "token_embd__weight": "Q4_0"}
    path = write(tmp_path / "tiny.gguf", "Q4_1", **kinds)
    model, dequantised = load(path, weights="file"), load(path, dtype=torch.bfloat16)
    assert model.weights(0, "up_proj").format == "q8_0"
    difference = layered_logits(model, tokens) - layered_logits(dequantised, tokens)
    assert difference.abs().max() < 0.02 * layered_logits(dequantised, tokens).abs().max()


def test_bytes_per_token(path, caplog):
    with caplog.at_level(logging.INFO, "lmx"):
        model = load(path, weights="file")
    tensors = read_header(path).tensors.values()
    assert model.bytes_per_token == sum(tensor.num_bytes for tensor in tensors)
    assert f"{model.bytes_per_token / 2**20:.1f} MiB of weights are read per token" in caplog.text
    floats = load(path)
    assert floats.bytes_per_token == floats.config.num_bytes(torch.float32)


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1"])
def test_other_blocks_are_refused_by_name(kind, tmp_path):
    path = write(tmp_path / "tiny.gguf", "Q8_0", blk__1__ffn_down__weight=kind)
    message = (
        rf"{path}: tensor blk.1.ffn_down.weight is stored as {kind}; weights='file' reads "
        r"matrices of Q8_0, Q4_0, Q4_1 and floats of F32, F16, BF16: use weights='model'"
    )
    with pytest.raises(ValueError, match=message):
        load(path, weights="file")


@pytest.mark.parametrize("kind, parts", [("Q8_0", 1), ("Q4_0", 1), ("Q4_1", 2)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_scales(kind, parts, bad, tmp_path):
    half, size = np.float16(bad).tobytes(), layerskip.FORMATS[kind.lower()]
    for part in range(parts):
        path = write(tmp_path / "tiny.gguf", kind)
        overwrite(path, "blk.1.attn_v.weight", 3 * size + 2 * part, half)
        message = (
            rf"{path}: tensor blk.1.attn_v.weight: block 3 has a scale that is infinite or NaN"
        )
        with pytest.raises(ValueError, match=message):
            load(path, weights="file")


def test_truncated_file(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"{path} is damaged .* tensor .* the file ends at \d+"):
        load(path, weights="file")


def test_records_that_lie(path):
    whole, name = path.read_bytes(), b"blk.0.ffn_up.weight"
    record = whole.index(name) + len(name)  # dimensions, K, N, type, offset
    for offset, new, message in [
        (4, struct.pack("<Q", 80), r"blk.0.ffn_up.weight has rows of 80 in blocks of type 3"),
        (4, struct.pack("<Q", 32), r"blk.0.ffn_up.weight: expected shape \[96, 64\], got \[96, 3"),
        (4, struct.pack("<Q", 2**62), r"blk.0.ffn_up.weight has \d+ bytes at \d+, the file ends"),
        (12, struct.pack("<Q", 2**63), r"blk.0.ffn_up.weight has \d+ bytes at \d+, the file ends"),
        (20, struct.pack("<I", 99), r"blk.0.ffn_up.weight has rows of 64 in blocks of type 99"),
        (20, struct.pack("<I", 14), r"blk.0.ffn_up.weight has rows of 64 in blocks of type 14"),
        (24, struct.pack("<Q", 2**50), r"blk.0.ffn_up.weight has \d+ bytes at \d+, the file end"),
    ]:
        at = record + offset
        path.write_bytes(whole[:at] + new + whole[at + len(new) :])
        with pytest.raises(ValueError, match=rf"{path}.*tensor {message}"):
            load(path, weights="file")


def test_missing_and_unknown_tensors(tmp_path):
    tensors = dict(gguf_tensors(tiny("llama_tied")))
    path = write_gguf(
        tmp_path / "a.gguf", [*tensors.items(), ("blk.0.attn_rot_embd", (8,))], metadata=METADATA
    )
    with pytest.raises(ValueError, match=rf"{path}: tensor blk.0.attn_rot_embd has no place in a"):
        load(path, weights="file")
    tensors.pop("blk.1.ffn_gate.weight")
    path = write_gguf(tmp_path / "b.gguf", tensors.items(), metadata=METADATA)
    with pytest.raises(ValueError, match=rf"{path} lacks the tensor blk.1.ffn_gate.weight of sha"):
        load(path, weights="file")
    metadata = [(key, value) for key, value in METADATA if not key.endswith("block_count")]
    path = write_gguf(tmp_path / "c.gguf", tensors.items(), metadata=metadata)
    with pytest.raises(ValueError, match=rf"{path}: config: expected num_hidden_layers to be a p"):
        load(path, weights="file")


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen2", "qwen3", "opt", "gpt2"])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_int8(name, dtype, tokens):
    theirs = tiny(name)
    model = load(theirs, weights="int8", dtype=dtype)
    assert model.dtype == (dtype or torch.bfloat16)
    linear = model.weights(1, "q_proj")
    exact = load(theirs).weights(1, "q_proj").weight
    assert linear.format == "int8" and linear.weight.dtype == torch.int8
    error = (linear.weight * linear.scale[:, None] - exact).abs()
    assert (error <= 0.501 * linear.scale[:, None]).all()
    expected = layered_logits(load(theirs), tokens)
    assert (layered_logits(model, tokens) - expected).norm() < 0.05 * expected.norm()
    table = model.embed(torch.arange(128), torch.zeros(128, dtype=torch.int32))
    assert table.dtype == model.dtype  # looked up as floats


def test_int8_head_beside_a_table_of_floats(tmp_path, tokens):
    theirs = tiny("llama_tied")
    theirs.save_pretrained(tmp_path)
    model, same = load(theirs, weights="int8"), load(tmp_path, weights="int8")
    assert torch.equal(layered_logits(model, tokens), layered_logits(same, tokens))
    assert torch.equal(
        model.embed(tokens, tokens), theirs.model.embed_tokens.weight[tokens].bfloat16()
    )
    layer = 64 * (4 + 2 + 2 + 4) * 16 + 3 * 64 * 96
    scales = 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64) + 128
    assert model.bytes_per_token == 128 * 64 + 2 * layer + 4 * scales + 2 * 5 * 64
    assert model.config.num_bytes(torch.bfloat16, "int8") == model.bytes_per_token + 2 * 128 * 64


def test_int8_of_infinite_weights():
    theirs = tiny("opt")
    with torch.no_grad():
        theirs.model.decoder.layers[1].fc2.weight[3, 5] = torch.inf
    with pytest.raises(ValueError, match=r"layers.1.fc2.weight: expected finite weights, got an"):
        load(theirs, weights="int8")
