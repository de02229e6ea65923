"""Grammars as exact masks over tokens: EBNF, regular expressions, JSON; matchers, drafts."""

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
    "Grammar",
    "Matcher",
    "TokenizerInfo",
    "deserialize",
    "new_bitmask",
    "serialize",
]
