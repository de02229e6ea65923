"""The families of models, by the class that a Hugging Face config names."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from . import gpt2, llama_config, opt
from .config import DecoderConfig, model_class
from .decoder import State
from .gpt2 import Gpt2, Gpt2Config
from .llama import Llama
from .llama_config import LlamaConfig
from .opt import Opt, OptConfig

Model: TypeAlias = Llama | Opt | Gpt2

SUPPORTED = (*llama_config.SUPPORTED, *opt.SUPPORTED, *gpt2.SUPPORTED)


def read_config(entries: Mapping[str, Any]) -> DecoderConfig:
    """Read what ``config.json`` or ``PreTrainedConfig.to_dict()`` holds.

    Raises:
        ValueError: the class is not supported, or its family refuses an entry.
    """
    name = model_class(entries, SUPPORTED)
    if name in opt.SUPPORTED:
        return OptConfig.from_hf(entries)
    if name in gpt2.SUPPORTED:
        return Gpt2Config.from_hf(entries)
    return LlamaConfig.from_hf(entries)


def build(config: DecoderConfig, state: State, tokenizer: Any) -> Model:
    """Return the model of a config over its tensors."""
    if isinstance(config, LlamaConfig):
        return Llama(config, state, tokenizer)
    if isinstance(config, OptConfig):
        return Opt(config, state, tokenizer)
    assert isinstance(config, Gpt2Config)
    return Gpt2(config, state, tokenizer)
