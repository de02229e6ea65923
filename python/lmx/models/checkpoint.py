"""Read a Hugging Face folder: config.json, safetensors and tokenizer.json, and nothing else."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

logger = logging.getLogger("lmx")


def read_config(folder: Path) -> dict[str, Any]:
    """Return ``config.json``, its end-of-text ids taken from ``generation_config.json`` if there.

    Raises:
        FileNotFoundError: there is no ``config.json``.
        ValueError: a file is not a JSON object.
    """
    config = _read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    if generation.exists():
        ids = _read_json(generation).get("eos_token_id")
        config["eos_token_id"] = config.get("eos_token_id") if ids is None else ids
    return config


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of ``model.safetensors`` or of the shards that its index names.

    They stay mapped from the file.

    Raises:
        FileNotFoundError: there is neither, or a shard is missing.
        ValueError: a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    for path in _shards(folder):
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                tensors = [file.get_tensor(name) for name in names]
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        yield from zip(names, tensors, strict=True)


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of ``tokenizer.json``, or None without one."""
    if not (folder / "tokenizer.json").exists():
        logger.warning("%s has no tokenizer.json: prompts must be token lists", folder)
        return None
    # Not AutoTokenizer, which may go by the folder's word about which code to run.
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _shards(folder: Path) -> list[Path]:
    files = {path.name: path for path in folder.glob("*.safetensors")}
    if "model.safetensors" in files:
        return [files["model.safetensors"]]
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        raise FileNotFoundError(
            f"{folder} holds neither model.safetensors nor {index.name}; no other format is read"
        )
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict):
        raise ValueError(f"{index}: expected an object weight_map, got {names!r}")
    # Looked up among the folder's own files: a name is never joined to a path.
    missing = sorted({str(name) for name in names.values()} - files.keys())
    if missing:
        raise FileNotFoundError(f"{index} names {missing}, which are not in {folder}")
    return [files[name] for name in sorted(set(names.values()))]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # bad JSON, bad UTF-8
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value
