"""``load``: every kind of source, and what it says about bad ones."""

import json
import logging
import random
import struct
import subprocess
import sys

import pytest
import torch
from gguf_files import METADATA, gguf_tensors, write_gguf
from safetensors.torch import load_file, save_file
from tiny_models import layered_logits, tiny

from lmx.models import LlamaConfig, load, memory
from lmx.models.gguf_file import read_header


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder as Transformers writes it, without a tokenizer, and its model."""
    folder = tmp_path_factory.mktemp("saved")
    model = tiny("qwen2")
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it that a test may break."""
    for path in saved[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def shard(folder, *names):
    """Split ``model.safetensors`` into the files ``names`` with an index, as Transformers does."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {key: names[i % len(names)] for i, key in enumerate(sorted(state))}
    for name in names:
        save_file({key: state[key] for key in state if weight_map[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_importing_models_does_not_import_transformers():
    code = (
        "import lmx.models, sys; sys.exit('transformers' in sys.modules or 'gguf' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_folder(saved, tokens, caplog):
    folder, model = saved
    with caplog.at_level(logging.INFO, "lmx"):
        loaded = load(folder)
    assert torch.equal(layered_logits(loaded, tokens), layered_logits(load(model), tokens))
    assert loaded.eos_ids == (1, 2) and loaded.tokenizer is None
    assert load(str(folder), dtype=torch.float16).dtype == torch.float16
    needs = loaded.config.num_bytes(torch.float32) / 2**20
    assert f"{folder} needs {needs:,.1f} MiB on cpu, where" in caplog.text
    assert "has no tokenizer.json: prompts must be token lists" in caplog.text


def test_folder_of_shards(folder, tokens):
    expected = layered_logits(load(folder), tokens)
    shard(folder, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert torch.equal(layered_logits(load(folder), tokens), expected)


def test_bytes_needed():
    config = load(tiny("llama_tied")).config
    layer = 64 * (4 + 2 + 2 + 4) * 16 + 3 * 64 * 96 + 2 * 64
    assert config.num_bytes(torch.bfloat16) == 2 * (128 * 64 + 2 * layer + 64)


def test_arguments(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected weights to be 'model', 'file' or 'int8', got 'i"
    ):
        load("smollm2", weights="int4")
    with pytest.raises(ValueError, match=r"torch.bfloat16 for weights='file', got torch.float16"):
        load("smollm2", weights="file", dtype=torch.float16)
    with pytest.raises(ValueError, match=r"16 bits for weights='int8', got torch.float32"):
        load("smollm2", weights="int8", dtype=torch.float32)
    with pytest.raises(ValueError, match=r"='file' needs a .gguf file or 'smollm2', got the fold"):
        load(tmp_path, weights="file")
    with pytest.raises(ValueError, match=r"='file' needs a .gguf file or 'smollm2', got a Llama"):
        load(tiny("llama"), weights="file")
    with pytest.raises(
        ValueError, match=r"expected dtype to be one of .*float16.*, got torch.int8"
    ):
        load("smollm2", dtype=torch.int8)
    for path in (tmp_path / "no.gguf", tmp_path / "none", "HuggingFaceTB/SmolLM2-135M"):
        with pytest.raises(
            FileNotFoundError, match=rf"{path} is neither a folder nor a .gguf file"
        ):
            load(path)


def test_unsupported_models(tmp_path):
    with pytest.raises(
        ValueError, match=r"class Linear is not supported; supported: LlamaForCausa"
    ):
        load(torch.nn.Linear(1, 1))
    with torch.device("meta"):
        with pytest.raises(ValueError, match=r"LlamaForCausalLM are on the meta device"):
            load(tiny("llama"))
    (tmp_path / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    with pytest.raises(
        ValueError, match=r"class MambaForCausalLM is not supported; supported: Llam"
    ):
        load(tmp_path)


def test_no_memory(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**17)
    with pytest.raises(MemoryError, match=r"needs 0.3 MiB on cpu, where 0.1 MiB are available"):
        load(saved[0])
    with pytest.raises(MemoryError, match=r"Qwen2ForCausalLM needs"):
        load(saved[1], dtype=torch.bfloat16)
    load(saved[1])  # nothing is copied
    with pytest.raises(MemoryError, match=r"tiny.gguf needs"):
        load(write_gguf(tmp_path / "tiny.gguf", [("token_embd.weight", (128, 1024))]))


def test_memory_of_this_machine():
    assert 2**20 < memory.available_bytes(torch.device("cpu")) < 2**50


def test_missing_files(folder):
    (folder / "model.safetensors").rename(folder / "elsewhere.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04}\x94.")
    with pytest.raises(
        FileNotFoundError, match=r"holds neither model.safetensors nor .*index.json"
    ):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json"):
        load(folder)


@pytest.mark.parametrize("text, message", [("{", "is not JSON"), ("[]", "expected a JSON object")])
def test_bad_json(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"config.json.*{message}"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_safetensors(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged: "):
        load(folder)


def test_tensors_that_are_no_floats(folder):
    state = load_file(folder / "model.safetensors")
    save_file(
        state | {"model.norm.weight": torch.ones(64, dtype=torch.int8)},
        folder / "model.safetensors",
    )
    with pytest.raises(ValueError, match=r"model.norm.weight: expected floats, got torch.int8"):
        load(folder)


def test_index_cannot_point_elsewhere(folder):
    shard(folder, "model-1.safetensors")
    index = folder / "model.safetensors.index.json"
    outside = folder.parent / "outside.safetensors"
    (folder / "model-1.safetensors").rename(outside)
    for name in ("../outside.safetensors", str(outside), "model-1.safetensors", ".", 3):
        index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
        with pytest.raises(FileNotFoundError, match=r"names \['.*'\], which are not in"):
            load(folder)
    index.write_text("{}")
    with pytest.raises(ValueError, match=r"expected an object weight_map, got None"):
        load(folder)


def test_gguf(tmp_path, tokens):
    model = tiny("llama_tied")
    path = write_gguf(tmp_path / "tiny.gguf", gguf_tensors(model), metadata=METADATA)
    loaded = load(path)
    expected = layered_logits(load(model), tokens)
    torch.testing.assert_close(layered_logits(loaded, tokens), expected, rtol=1e-5, atol=1e-5)
    assert loaded.tokenizer.encode("  ") == [127]  # one token, although a digit may follow
    assert load(path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_gguf_that_transformers_would_misread(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, [("token_embd.weight", (128, 64))], architecture="gemma")
    with pytest.raises(
        ValueError, match=r"architecture gemma is not supported; supported: llama, qw"
    ):
        load(path)
    write_gguf(path, [("rope_freqs.weight", (8,))])
    with pytest.raises(
        ValueError, match=r"scaled rotary frequencies are not supported in GGUF files"
    ):
        load(path)
    write_gguf(path, [("a", (8,))], metadata=[("llama.rope.scaling.type", "yarn")])
    with pytest.raises(
        ValueError, match=r"scaled rotary frequencies are not supported in GGUF files"
    ):
        load(path)


def test_gguf_header(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", [("a", (8, 32)), ("b", (5,))])
    header = read_header(path)
    assert {name: tensor.num_values for name, tensor in header.tensors.items()} == {
        "a": 8 * 32,
        "b": 5,
    }
    a = header.tensors["a"]
    assert (a.shape, a.kind, a.num_bytes) == ((8, 32), "F32", 1024)
    assert path.read_bytes()[a.start : a.start + 1024] == bytes(1024)
    assert header.metadata["general.name"] == "tiny"
    whole = path.read_bytes()
    for keep in [0, 3, 4, 20, 40, 200, len(whole) // 2, len(whole) - 2000]:
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"tiny.gguf is .*not a GGUF file: "):
            read_header(path)


def test_gguf_header_lies(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", [("a", (8, 32))])
    whole = path.read_bytes()
    record = whole.index(struct.pack("<Q", 1) + b"a" + struct.pack("<IQQ", 2, 32, 8))
    for offset, new, message in [
        (0, b"GGML", r"it does not begin with GGUF"),
        (4, struct.pack("<I", 9), r"version 9 is not among \(2, 3\)"),
        (8, struct.pack("<Q", 2**62), r"is damaged"),
        (16, struct.pack("<Q", 2**62), r"is damaged"),
        (24, struct.pack("<Q", 2**63), r"unpack_from requires a buffer"),
        (record + 9, struct.pack("<I", 9), r"tensor a has 9 dimensions"),
        (record + 13, struct.pack("<Q", 2**60), r"bytes at \d+, the file ends at \d+"),
        (record + 29, struct.pack("<I", 77), r"tensor a has rows of 32 in blocks of type 77"),
        (record + 29, struct.pack("<I", 12), r"tensor a has rows of 32 in blocks of type 12"),
        (record + 33, struct.pack("<Q", 2**40), r"tensor a has 1024 bytes at 1099\d+, the file"),
        (record + 33, struct.pack("<Q", 1), r"tensor a has 1024 bytes"),
    ]:
        path.write_bytes(whole[:offset] + new + whole[offset + len(new) :])
        with pytest.raises(ValueError, match=message):
            read_header(path)


def test_gguf_header_fuzzed(tmp_path):
    """Whatever 8 bytes of a header say, it is read or refused by name, and soon."""
    path = write_gguf(tmp_path / "tiny.gguf", [("a", (8, 32)), ("b", (4,))])
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        offset = rng.randrange(len(whole) - 1200)
        new = struct.pack("<Q", rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, rng.getrandbits(64)]))
        path.write_bytes(whole[:offset] + new + whole[offset + len(new) :])
        try:
            read_header(path)
        except ValueError as error:
            assert "tiny.gguf is damaged or not a GGUF file: " in str(error)
            refused += 1
    assert refused > 100


def test_config_and_checkpoint_disagree(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"num_hidden_layers": 3, "layer_types": None})
    )
    with pytest.raises(
        ValueError, match=r"lacks the tensor model.layers.2.self_attn.q_proj.weight"
    ):
        load(folder)
    assert LlamaConfig.from_hf(config).num_layers == 2
