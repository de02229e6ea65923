"""Take the weights of a GGUF file as they are stored: blocks are multiplied where they lie."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import layerskip
from ..protocols import Format, Linear
from . import memory
from .decoder import State
from .gguf_file import GgufHeader, GgufTensor, read_model_header, read_tokenizer
from .llama_config import LlamaConfig

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCKS: dict[str, Format] = {"Q8_0": "q8_0", "Q4_0": "q4_0", "Q4_1": "q4_1"}
# Scales of a block, and what is added to it: so many float16 at its beginning.
_NUM_SCALES: dict[str, int] = {"q8_0": 1, "q4_0": 1, "q4_1": 2}

_ENTRIES = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}
_OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_INNER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def load_blocks(path: Path, device: torch.device) -> tuple[LlamaConfig, State, Any]:
    """Read a model without dequantising it.

    Blocks stay mapped from the file on the CPU, but for the query and key rows of a Llama, whose
    order differs. Vectors keep their dtype; matrices of floats become bfloat16.

    Returns:
        Config, tensors by their Hugging Face names, and the tokenizer.

    Raises:
        ValueError: the file is damaged, or holds what is not supported; the message names the
            tensor.
        MemoryError: the weights do not fit.
        ModuleNotFoundError: a package that GGUF files are read with is missing.
    """
    header = read_model_header(path)
    config = read_config(path, header)
    memory.require(sum(t.num_bytes for t in header.tensors.values()), device, str(path))
    names = {name: _gguf_name(name) for name in config.tensors()}
    unknown = sorted(header.tensors.keys() - names.values())
    if unknown:
        raise ValueError(f"{path}: tensor {unknown[0]} has no place in a {_class(header)}")
    data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    is_llama = header.metadata["general.architecture"] == "llama"
    state: dict[str, Tensor | Linear] = {}
    for name, shape in config.tensors().items():
        tensor = header.tensors.get(names[name])
        if tensor is None:
            raise ValueError(f"{path} lacks the tensor {names[name]} of shape {list(shape)}")
        label = f"{path}: tensor {names[name]}"
        if tensor.shape != shape:
            raise ValueError(f"{label}: expected shape {list(shape)}, got {list(tensor.shape)}")
        value = _read(data, tensor, label)
        if is_llama and re.search(r"self_attn\.[qk]_proj\.weight$", name):
            value = _reorder(value, config.head_dim)
        state[name] = _to(value, device)
    tokenizer = read_tokenizer(path, header)
    tokenizer.model_max_length = config.max_positions
    return config, state, tokenizer


def read_config(path: Path, header: GgufHeader) -> LlamaConfig:
    """Return the shape that the metadata of a file describe.

    Raises:
        ValueError: an entry is missing or wrong.
    """
    architecture, metadata = header.metadata["general.architecture"], header.metadata
    entries = {key: metadata.get(f"{architecture}.{name}") for key, name in _ENTRIES.items()}
    table = header.tensors.get("token_embd.weight")
    hidden, num_heads = entries["hidden_size"], entries["num_attention_heads"]
    if entries["head_dim"] is None and isinstance(hidden, int) and num_heads:
        entries["head_dim"] = hidden // num_heads  # Qwen3's default in a config is another one
    entries |= {
        "architectures": [_class(header)],
        "vocab_size": table.shape[0] if table is not None else None,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
    }
    try:
        config = LlamaConfig.from_hf(entries)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    rotary_dim = metadata.get(f"{architecture}.rope.dimension_count", config.head_dim)
    if rotary_dim != config.head_dim:
        raise ValueError(
            f"{path}: rotation of {rotary_dim} elements of heads of {config.head_dim} "
            "is not supported"
        )
    return config


def _class(header: GgufHeader) -> str:
    return _CLASSES[header.metadata["general.architecture"]]


def _gguf_name(name: str) -> str:
    stem, _, part = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{part}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{_INNER[inner]}.{part}"


def _read(data: Tensor, tensor: GgufTensor, label: str) -> Tensor | Linear:
    """Return a tensor as a view of the file's bytes, or refuse how it is stored."""
    raw = data[tensor.start : tensor.start + tensor.num_bytes]
    if tensor.kind in _FLOATS:
        dtype = _FLOATS[tensor.kind]
        raw = raw if tensor.start % dtype.itemsize == 0 else raw.clone()  # a view must be aligned
        floats = raw.view(dtype).view(tensor.shape)
        return floats if floats.dim() == 1 else floats.to(torch.bfloat16)
    if tensor.kind not in _BLOCKS or len(tensor.shape) != 2:
        raise ValueError(
            f"{label} is stored as {tensor.kind}; weights='file' reads matrices of "
            f"{', '.join(_BLOCKS)} and floats of {', '.join(_FLOATS)}: use weights='model'"
        )
    format = _BLOCKS[tensor.kind]
    _check_scales(raw, format, label)
    return Linear(raw.view(tensor.shape[0], -1), format=format)


def _check_scales(raw: Tensor, format: Format, label: str) -> None:
    """Raise ValueError if a block's scale is infinite or NaN: it would spread over all rows."""
    scales = raw.view(-1, layerskip.FORMATS[format])[:, : 2 * _NUM_SCALES[format]]
    is_bad = ~scales.contiguous().view(torch.float16).isfinite().all(1)
    if is_bad.any():
        raise ValueError(
            f"{label}: block {int(is_bad.nonzero()[0])} has a scale that is infinite or NaN"
        )


def _reorder(value: Tensor | Linear, head_dim: int) -> Tensor | Linear:
    """Undo the order of rows in which pairs of a rotation are neighbours.

    Row ``2 i + j`` of a head becomes row ``i + j head_dim / 2``.
    """
    rows = value.weight if isinstance(value, Linear) else value
    order = torch.arange(len(rows)).view(-1, head_dim // 2, 2).transpose(1, 2).flatten()
    return Linear(rows[order], format=value.format) if isinstance(value, Linear) else rows[order]


def _to(value: Tensor | Linear, device: torch.device) -> Tensor | Linear:
    if isinstance(value, Linear):
        return Linear(value.weight.to(device), format=value.format)
    return value.to(device) if value.dtype == torch.float32 else value.to(device, torch.bfloat16)
