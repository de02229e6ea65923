"""Transformers: logits processors, and the decode loop as a ``custom_generate`` callable."""

from .custom_generate import generate
from .grammar import GrammarLogitsProcessor
from .processors import InfgramLogitsProcessor, LogitsProcessor, VocabMask, as_processor

__all__ = [
    "GrammarLogitsProcessor",
    "InfgramLogitsProcessor",
    "LogitsProcessor",
    "VocabMask",
    "as_processor",
    "generate",
]
