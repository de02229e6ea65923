"""Checks of what callers pass: every message says which argument, what was expected, what came."""

import struct
from collections.abc import Sequence
from typing import Any

# What the bits of an op's status say of a sequence: the list of csrc/common/status.h.
STATUS_FAULTS = {
    1 << 0: "a bad tree",
    1 << 1: "more entries than there is room for",
    1 << 2: "a token outside the vocabulary",
    1 << 3: "bad offsets",
    1 << 4: "a bad page",
    1 << 5: "a bad mask id",
    1 << 6: "a sampling parameter outside its range",
    1 << 7: "a bad weight group",
    1 << 8: "a corrupt index",
}


def require(ok: bool, name: str, expected: str, got: object) -> None:
    """Raise ValueError unless ``ok``."""
    if not ok:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


def require_number(name: str, value: object, low: float, high: float) -> None:
    """Raise ValueError unless ``value`` is a number in ``[low, high]``."""
    fits = isinstance(value, int | float) and low <= value <= high  # false for NaN
    require(fits, name, f"a number in [{low:g}, {high:g}]", value)


def as_float32(value: float) -> float:
    """Return what is left of ``value`` in float32, the type in which ops take parameters."""
    return struct.unpack("f", struct.pack("f", value))[0]


def require_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise ValueError unless ``value`` is an integer in ``[low, high]``."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    fits = is_int and low <= value and (high is None or value <= high)
    span = f"of at least {low}" if high is None else f"in [{low}, {high}]"
    require(fits, name, f"an integer {span}", value)


def status_fault(status: int) -> str:
    """Return what the bits of an op's status say, or ``""``."""
    return ", ".join(text for bit, text in STATUS_FAULTS.items() if status & bit)


def prompt_fault(tokens: Sequence[int], vocab_size: int, max_positions: int) -> str:
    """Return what is wrong with a prompt, or ``""``."""
    if not tokens:
        return "prompt: expected at least one token, got none"
    if len(tokens) > max_positions:
        return f"prompt: expected at most {max_positions} tokens, got {len(tokens)}"
    low, high = min(tokens), max(tokens)
    if low < 0 or high >= vocab_size:
        return f"prompt: expected tokens in [0, {vocab_size}), got {low if low < 0 else high}"
    return ""
