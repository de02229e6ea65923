"""Paged keys and values: a pool of pages, sequences that share them, and the ops that move rows."""

from . import fakes  # noqa: F401  (registers them)
from .cache import CacheStats, PagedKVCache
from .ops import append, copy_pages, gather_slots, scatter_slots, swap_pages

__all__ = [
    "CacheStats",
    "PagedKVCache",
    "append",
    "copy_pages",
    "gather_slots",
    "scatter_slots",
    "swap_pages",
]
