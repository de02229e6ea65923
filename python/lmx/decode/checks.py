"""Checks of what callers pass: every message says which argument, what was expected, what came."""

from collections.abc import Sequence
from typing import Any


def require(ok: bool, name: str, expected: str, got: object) -> None:
    """Raise ValueError unless ``ok``."""
    if not ok:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


def require_number(name: str, value: object, low: float, high: float) -> None:
    """Raise ValueError unless ``value`` is a number in ``[low, high]``."""
    fits = isinstance(value, int | float) and low <= value <= high  # false for NaN
    require(fits, name, f"a number in [{low:g}, {high:g}]", value)


def require_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise ValueError unless ``value`` is an integer in ``[low, high]``."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    fits = is_int and low <= value and (high is None or value <= high)
    span = f"of at least {low}" if high is None else f"in [{low}, {high}]"
    require(fits, name, f"an integer {span}", value)


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
