"""The page pool of a model: how large a page is, and how many there should be."""

from collections.abc import Sequence

from ..kvcache import PagedKVCache
from ..models import memory
from ..protocols import LayeredModel
from .checks import require_int

PAGE_SIZE = 16  # tokens of a page, which holds all layers


def pages_for(num_tokens: int) -> int:
    """Return how many pages hold that many tokens."""
    return -(-num_tokens // PAGE_SIZE)


def new_cache(model: LayeredModel, max_seqs: int, num_pages: int | None = None) -> PagedKVCache:
    """Make an empty cache for a model.

    Args:
        model: the model.
        max_seqs: sequences that it holds at a time.
        num_pages: pages for them; by default as many as they can fill, but at most half of the
            memory that is available.

    Raises:
        ValueError: ``num_pages`` is below 1.
        MemoryError: so many pages do not fit.
    """
    num_bytes = page_bytes(model)
    if num_pages is None:
        fitting = memory.available_bytes(model.device) // 2 // num_bytes
        num_pages = max(1, min(max_seqs * pages_for(model.max_positions), fitting))
    require_int("num_pages", num_pages, 1)
    memory.require((num_pages + 1) * num_bytes, model.device, f"a pool of {num_pages} pages")
    return PagedKVCache(
        num_layers=max(1, model.num_layers),  # one is unused if the model has none
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        num_pages=num_pages + 1,  # and the null page
        max_seqs=max_seqs,
        max_tokens=model.max_positions,
        dtype=model.dtype,
        device=model.device,
        page_size=PAGE_SIZE,
    )


def page_bytes(model: LayeredModel) -> int:
    """Return the bytes of a page."""
    numbers = 2 * max(1, model.num_layers) * model.num_kv_heads * model.head_dim
    return numbers * PAGE_SIZE * model.dtype.itemsize


def enough_pages(model: LayeredModel, lengths: Sequence[int], max_seqs: int) -> int | None:
    """Return how many pages sequences need, ``max_seqs`` of them at a time.

    Args:
        model: the model.
        lengths: the most tokens that each sequence may have.
        max_seqs: sequences that run at a time.

    Returns:
        The number, or None if `new_cache` should rather look at the memory there is.
    """
    longest = sorted((min(n, model.max_positions) for n in lengths), reverse=True)[:max_seqs]
    needed = max(1, sum(map(pages_for, longest)))
    fits = needed * page_bytes(model) <= memory.available_bytes(model.device) // 2
    return needed if fits else None
