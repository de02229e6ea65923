"""Transformers: logits processors, our loop in its ``generate``, its loops over our pages."""

from typing import TYPE_CHECKING, Any

from .custom_generate import generate
from .grammar import GrammarLogitsProcessor
from .processors import InfgramLogitsProcessor, LogitsProcessor, VocabMask, as_processor

if TYPE_CHECKING:
    from .cache import PagedCache

__all__ = [
    "GrammarLogitsProcessor",
    "InfgramLogitsProcessor",
    "LogitsProcessor",
    "PagedCache",
    "VocabMask",
    "as_processor",
    "generate",
    "register_attention",
]


def register_attention() -> str:
    """Make lmx's attention known to Transformers.

    Returns:
        Its name, for ``from_pretrained(attn_implementation=...)`` or
        ``model.set_attn_implementation(...)``.
    """
    from .attention import register

    return register()


def __getattr__(name: str) -> Any:
    """Import what needs Transformers when it is asked for."""
    if name == "PagedCache":
        from .cache import PagedCache

        return PagedCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
