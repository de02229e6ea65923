"""A cache of keys and values in pages: sequences that grow, fork, shrink and wait on the host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import _C
from . import ops

_PAGE_SIZES = (8, 16, 32, 64, 128)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds. A page here is one layer's; a slot of all layers counts once for each."""

    pages_total: int  # without null pages
    pages_free: int
    pages_used: int
    slots_live: int  # slots with a token; of a page that several sequences hold, once
    slots_dead: int  # slots whose token was evicted; none yet
    bytes_used: int
    meta_bytes: int  # positions and scores of slots; none yet
    shared_bytes_saved: int  # what copies for each holder would take more
    fragmentation: float  # share of the used pages' slots without a token


class PagedKVCache:
    """Keys and values of many sequences, in pages of ``page_size`` tokens of all layers.

    A sequence is a handle, and a row of the persistent tables for life: ``rows(handles)``. Pages
    are shared by forks and prefixes, and copied before one of several holders writes. A method that
    raises has changed nothing. ::

        cache = PagedKVCache(num_layers=30, num_kv_heads=3, head_dim=64, num_pages=1024,
                             max_seqs=8, max_tokens=4096, dtype=torch.bfloat16)
        seq = cache.create()
        slots = cache.append([seq], [len(key[0])])  # key, value: [num_layers, T, Hkv, D]
        lmx.kvcache.append(key, value, slots, cache.kv_pages)

    Attributes:
        kv_pages: ``[num_pages, num_layers, 2, num_kv_heads, page_size, head_dim]``.
        block_table: int32 ``[max_seqs, 1, max_pages]``, on the device of ``kv_pages``: the pages of
            each row, then 0.
        num_slots: int32 ``[max_seqs, 1]``: committed tokens of each row; 0 where there is none.

    Source: Kwon et al. 2023, arXiv 2309.06180, section 4.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        num_pages: int,
        max_seqs: int,
        max_tokens: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        page_size: int = 16,
        scope: Literal["seq"] = "seq",
    ) -> None:
        """Make an empty cache.

        Args:
            num_layers, num_kv_heads, head_dim: of the model; ``head_dim`` a multiple of 8, at most
                256.
            num_pages: pages of ``page_size`` tokens, the null page included.
            max_seqs: rows of the tables.
            max_tokens: the most tokens of a sequence.
            dtype: float32, float16 or bfloat16.
            device: where the pages and the tables are.
            page_size: 8, 16, 32, 64 or 128 tokens.
            scope: "seq": all layers and heads of a sequence keep the same tokens. The scopes
                "layer" and "head" are not built yet.

        Raises:
            ValueError: an argument is out of its range.
        """
        if scope != "seq":
            raise ValueError(f"PagedKVCache: expected scope 'seq', the one there is, got {scope!r}")
        if page_size not in _PAGE_SIZES:
            raise ValueError(f"PagedKVCache: expected page_size in {_PAGE_SIZES}, got {page_size}")
        if dtype not in _DTYPES:
            raise ValueError(
                f"PagedKVCache: expected dtype float32, float16 or bfloat16, got {dtype}"
            )
        if head_dim % 8 or not 8 <= head_dim <= 256:
            raise ValueError(
                f"PagedKVCache: expected head_dim a multiple of 8 in [8, 256], got {head_dim}"
            )
        counts = {
            "num_layers": num_layers,
            "num_kv_heads": num_kv_heads,
            "num_pages": num_pages - 1,
            "max_seqs": max_seqs,
            "max_tokens": max_tokens,
        }
        for name, count in counts.items():
            if count < 1:
                least = 2 if name == "num_pages" else 1
                raise ValueError(
                    f"PagedKVCache: expected {name} at least {least}, got {count - 1 + least}"
                )
        max_pages = -(-max_tokens // page_size)
        self.page_size = page_size
        self.max_tokens = max_pages * page_size
        self._table = torch.zeros(max_seqs, max_pages, dtype=torch.int32)
        self._lengths = torch.zeros(max_seqs, dtype=torch.int32)
        self.pool = _C.kvcache.PagePool(num_pages, page_size, self._table, self._lengths)
        self.device = torch.device(device)
        shape = (num_pages, num_layers, 2, num_kv_heads, page_size, head_dim)
        self.kv_pages = torch.empty(shape, dtype=dtype, device=self.device)
        self.kv_pages[0] = 0
        self.block_table = self._table.to(self.device)[:, None]
        self.num_slots = self._lengths.to(self.device)[:, None]
        self._version = self.pool.version  # of block_table on the device
        self._swapped: dict[int, Tensor] = {}

    # ---- life of a sequence ----------------------------------------------------------------

    def create(self) -> int:
        """Return the handle of a new, empty sequence. Raises OutOfRows."""
        return self.pool.create()

    def free(self, handles: int | Sequence[int]) -> None:
        """Give back the pages and rows of sequences, swapped out or not. Raises StaleHandle."""
        freed = [handles] if isinstance(handles, int) else handles
        self.pool.free(freed)
        for handle in freed:
            self._swapped.pop(handle, None)
        self._publish()

    def fork(self, handle: int, n: int = 1) -> list[int]:
        """Return ``n`` new sequences that begin as a copy of one; no key or value is moved.

        Raises:
            StaleHandle, OutOfRows: as named.
            ValueError: the sequence is swapped out, or ``n`` is negative.
        """
        children = self.pool.fork(handle, n)
        self._publish()
        return children

    def truncate(self, handle: int, length: int) -> None:
        """Forget the tokens from ``length`` on, and give back their pages and reserved ones.

        Raises:
            StaleHandle: as named.
            ValueError: ``length`` is negative or above the sequence's, or it is swapped out.
        """
        self.pool.truncate(handle, length)
        self._publish()

    def share_prefix(self, handle: int, num_tokens: int) -> int:
        """Return a new sequence of the full pages in the first ``num_tokens`` tokens of one.

        Raises:
            StaleHandle, OutOfRows: as named.
            ValueError: there are not that many tokens, or the sequence is swapped out.
        """
        child = self.pool.share_prefix(handle, num_tokens)
        self._publish()
        return child

    # ---- tokens ------------------------------------------------------------------------------

    def reserve(self, handles: Sequence[int], counts: Sequence[int]) -> Tensor:
        """Make room for ``counts[i]`` more tokens of ``handles[i]``, of all or of none.

        Pages that others hold too are copied now. The tokens count only once `commit` is called; a
        step that is given up calls `abandon`, or reserves anew. A fork of a sequence is not made
        between its ``reserve`` and the writing of its tokens.

        Args:
            handles: each sequence once, in any order.
            counts: at least 0.

        Returns:
            The slots of the new tokens, int64 ``[sum(counts)]``, one sequence after the other: the
            ``slot_mapping`` of `append` for all layers.

        Raises:
            OutOfPages: with ``needed`` and ``free``, pages of all layers; nothing was changed.
            StaleHandle: as named.
            ValueError: a count is negative or more than the row has room for, a handle occurs
                twice, or a sequence is swapped out.
        """
        slots = torch.empty(max(sum(counts), 0), dtype=torch.int64)
        src, dst = self.pool.reserve(handles, counts, slots)
        if src:
            pairs = torch.tensor([src, dst], dtype=torch.int32).to(self.device)
            ops.copy_pages(pairs[0], pairs[1], self.kv_pages)
        self._publish()
        return slots.to(self.device, non_blocking=True)

    def commit(self, handles: Sequence[int], counts: Sequence[int]) -> None:
        """Count the first ``counts[i]`` reserved tokens of ``handles[i]`` as cached.

        Raises:
            StaleHandle: as named.
            ValueError: more than were reserved, or as in `reserve`.
        """
        self.pool.commit(handles, counts)
        self._publish()

    def abandon(self, handles: Sequence[int]) -> None:
        """Give back pages that were reserved and hold no committed token."""
        self.pool.abandon(handles)
        self._publish()

    def append(self, handles: Sequence[int], counts: Sequence[int]) -> Tensor:
        """`reserve` and `commit` in one; return the slots, to be written before the next read."""
        slots = self.reserve(handles, counts)
        self.commit(handles, counts)
        return slots

    # ---- the host ------------------------------------------------------------------------------

    def swap_out(self, handle: int) -> None:
        """Move a sequence to host memory and give back its pages; it keeps its row.

        Pages that others hold are copied too. Until `swap_in` only `free` and `length` take it.

        Raises:
            StaleHandle: as named.
            ValueError: it is swapped out already.
        """
        pages = self.pool.pages(handle)
        host = torch.empty(
            len(pages),
            *self.kv_pages.shape[1:],
            dtype=self.kv_pages.dtype,
            pin_memory=self.device.type == "cuda",
        )
        if pages:
            ops.swap_pages(self._ids(pages), self.kv_pages, host, "out")
        self.pool.swap_out(handle)
        self._swapped[handle] = host
        self._publish()

    def swap_in(self, handle: int) -> None:
        """Bring a sequence back, into pages of its own.

        Raises:
            OutOfPages: with ``needed`` and ``free``; it is swapped out still.
            StaleHandle: as named.
            ValueError: it is not swapped out.
        """
        pages = self.pool.swap_in(handle)
        host = self._swapped.pop(handle)
        if pages:
            ops.swap_pages(self._ids(pages), self.kv_pages, host, "in")
        self._publish()

    # ---- prefixes ------------------------------------------------------------------------------

    def index_prefix(self, handle: int, tokens: Sequence[int] | Tensor, extra_key: bytes) -> None:
        """Enter the full pages of a sequence, whose first tokens these are, into the prefix index.

        The index holds them after the sequence is gone, until the pool needs them: those used
        longest ago go first.

        Args:
            handle: the sequence.
            tokens: int64 ``[n]`` or numbers; at most the sequence's length.
            extra_key: all that keys and values depend on besides tokens: model, adapter, rotary
                settings. The dtype and the shapes are the cache's own.

        Raises:
            StaleHandle: as named.
            ValueError: too many tokens, or the sequence is swapped out.
        """
        self.pool.index_insert(handle, _token_tensor(tokens), extra_key)

    def match_prefix(
        self, tokens: Sequence[int] | Tensor, extra_key: bytes, *, multiple: int | None = None
    ) -> tuple[int, int]:
        """Return a new sequence that begins with the indexed prefix of ``tokens``.

        Args:
            tokens: int64 ``[n]`` or numbers.
            extra_key: as in `index_prefix`; a prefix of another key is never found.
            multiple: the prefix's length is rounded down to this, a multiple of ``page_size``,
                which is the default.

        Returns:
            The handle, and how many tokens the sequence has: 0 if no prefix is known.

        Raises:
            OutOfRows: as named.
            ValueError: ``multiple`` is none of ``page_size``.
        """
        found = self.pool.index_match(_token_tensor(tokens), extra_key, multiple or self.page_size)
        self._publish()
        return found

    def clear_index(self) -> None:
        """Give back all pages that only the prefix index holds, and forget the prefixes."""
        self.pool.index_clear()

    # ---- questions -----------------------------------------------------------------------------

    def length(self, handle: int) -> int:
        """Return the number of tokens of a sequence, swapped out or not. Raises StaleHandle."""
        return self.pool.length(handle)

    def rows(self, handles: Sequence[int]) -> list[int]:
        """Return the sequences' rows of the tables. Handles are not checked."""
        return [handle & 0xFFFFFFFF for handle in handles]

    @property
    def num_free_pages(self) -> int:
        """Pages, of all layers, that no sequence and no index holds."""
        return self.pool.num_free_pages

    @property
    def num_available_pages(self) -> int:
        """The same with those that the prefix index would give back. Takes time in its size."""
        return self.pool.num_free_pages + self.pool.num_reclaimable_pages

    @property
    def num_free_rows(self) -> int:
        """How many more sequences there can be."""
        return self.pool.num_free_rows

    def stats(self) -> CacheStats:
        """Return what the cache holds now."""
        total, free, live, extra = self.pool.stats()
        num_layers = self.kv_pages.shape[1]
        page_bytes = self.kv_pages[0, 0].numel() * self.kv_pages.element_size()
        used = total - free
        return CacheStats(
            pages_total=total * num_layers,
            pages_free=free * num_layers,
            pages_used=used * num_layers,
            slots_live=live * num_layers,
            slots_dead=0,
            bytes_used=used * num_layers * page_bytes,
            meta_bytes=0,
            shared_bytes_saved=extra * num_layers * page_bytes,
            fragmentation=1 - live / (used * self.page_size) if used else 0.0,
        )

    def check_invariants(self) -> None:
        """Raise RuntimeError if the books of pages and tables do not agree; for tests."""
        self.pool.check_invariants()

    def _ids(self, pages: list[int]) -> Tensor:
        return torch.tensor(pages, dtype=torch.int32).to(self.device, non_blocking=True)

    def _publish(self) -> None:
        """Bring the tables to the device. On a CPU they are the pool's own."""
        if self.device.type == "cpu":
            return
        self.num_slots.copy_(self._lengths[:, None], non_blocking=True)
        if self._version != self.pool.version:
            self.block_table.copy_(self._table[:, None], non_blocking=True)
            self._version = self.pool.version


def _token_tensor(tokens: Sequence[int] | Tensor) -> Tensor:
    if not isinstance(tokens, Tensor):
        return torch.tensor(tokens, dtype=torch.int64)
    return tokens.to(device="cpu", dtype=torch.int64).contiguous()
