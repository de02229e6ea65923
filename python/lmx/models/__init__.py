"""Hugging Face models seen as layers."""

from .gpt2 import Gpt2, Gpt2Config
from .llama import Llama
from .llama_config import LlamaConfig
from .load import load
from .opt import Opt, OptConfig

__all__ = ["Gpt2", "Gpt2Config", "Llama", "LlamaConfig", "Opt", "OptConfig", "load"]
