"""Hugging Face models seen as layers."""

from .config import LlamaConfig
from .llama import Llama
from .load import load

__all__ = ["Llama", "LlamaConfig", "load"]
