"""Grammars as exact masks over tokens: EBNF, regular expressions, JSON; matchers, drafts."""

from . import fakes, reference  # noqa: F401  (fakes registers them)
from .device import DeviceAutomaton
from .grammars import CompiledGrammar, Compiler, Grammar, deserialize, serialize
from .matcher import (
    ALL_ALLOWED,
    LIMIT,
    NO_TOKEN,
    PARTIAL,
    TERMINATED,
    BatchMatcher,
    Matcher,
    new_bitmask,
)
from .ops import accept, fill, fill_tree, step
from .tokenizer import BYTE_FALLBACK, BYTE_LEVEL, RAW, TokenizerInfo

__all__ = [
    "ALL_ALLOWED",
    "BYTE_FALLBACK",
    "BYTE_LEVEL",
    "LIMIT",
    "NO_TOKEN",
    "PARTIAL",
    "RAW",
    "TERMINATED",
    "BatchMatcher",
    "CompiledGrammar",
    "Compiler",
    "DeviceAutomaton",
    "Grammar",
    "Matcher",
    "TokenizerInfo",
    "accept",
    "deserialize",
    "fill",
    "fill_tree",
    "new_bitmask",
    "serialize",
    "step",
]
