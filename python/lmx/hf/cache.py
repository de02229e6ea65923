"""A Transformers cache whose keys and values lie in lmx's pages.

Needs Transformers; ``lmx.hf.PagedCache`` imports it.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from .. import kvcache
from ..decode.checks import require, require_int
from ..decode.pages import PAGE_SIZE, pages_for
from ..kvcache import PagedKVCache
from . import attention
from .attention import Packing, Pages, packing


class PagedCache(Cache):
    """The cache of ``model.generate(..., cache=...)`` for models whose attention is "lmx".

    ::

        model.set_attn_implementation(lmx.hf.register_attention())
        cache = lmx.hf.PagedCache(model, batch_size=2, max_tokens=512)
        model.generate(**inputs, cache=cache)

    Keys are stored as they come, rotated (``post_rope``), at the positions of their tokens
    (``orig``); padding is not stored. What a pass brings enters the pages when the next one begins,
    so taking it back (``crop``) costs nothing. Beams fork pages: no key is copied but those of a
    page that is not full.
    """

    def __init__(self, model: Any, *, batch_size: int, max_tokens: int) -> None:
        """Make an empty cache.

        Args:
            model: a Transformers model; its config, dtype and device count.
            batch_size: sequences of a batch, beams and returned sequences counted.
            max_tokens: the most tokens of a sequence.

        Raises:
            ValueError: the model's attention is not "lmx", or a size is out of its range.
        """
        config = model.config.get_text_config(decoder=True)
        name = config._attn_implementation
        how = f"{attention.NAME!r} (model.set_attn_implementation(lmx.hf.register_attention()))"
        require(name == attention.NAME, "model's attention", how, name)
        require_int("batch_size", batch_size, 1)
        require_int("max_tokens", max_tokens, 1)
        num_heads = config.num_attention_heads
        num_kv_heads = getattr(config, "num_key_value_heads", None) or num_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
        self.paged = PagedKVCache(
            num_layers=config.num_hidden_layers,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            # Beams are forked before the old ones go, and each then writes to a page of its own.
            num_pages=batch_size * (pages_for(max_tokens) + 2) + 1,
            max_seqs=2 * batch_size,
            max_tokens=max_tokens,
            dtype=model.dtype,
            device=model.device,
            page_size=PAGE_SIZE,
        )
        layers: list[Any] = [_Layer(self, i) for i in range(config.num_hidden_layers)]
        super().__init__(layers=layers)
        self._layer_pages = self.paged.kv_pages.unbind(1)
        self._handles: list[int] = []
        self._tables: tuple[Tensor, Tensor] | None = None  # of the sequences of the batch
        self._known: list[int] = []  # tokens of each in pages
        self._fresh: dict[int, tuple[Tensor, Tensor]] = {}  # of the newest pass, by layer
        self._packing: Packing | None = None  # of the newest pass
        self._is_real: Tensor | None = None  # [B, tokens], bool: no padding; the newest included
        self.length = 0  # tokens, padding and the newest included

    # ---- a pass ------------------------------------------------------------------------------

    def store(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Keep the new keys and values of a layer, ``[B, Hkv, T, D]``."""
        if layer in self._fresh or not self._fresh:
            self._begin(key)
        self._fresh[layer] = (key, value)

    def layout(self, mask: Tensor | None) -> Packing:
        """Return where the tokens of the pass are; ``mask [B, tokens]``, bool, or no padding."""
        if self._packing is None:
            key, _ = next(iter(self._fresh.values()))
            batch_size, length = key.shape[0], key.shape[2]
            newest = None if mask is None else mask[:, -length:]
            self._packing = packing(newest, (batch_size, length), self._known, key.device)
            real = torch.ones(batch_size, length, dtype=torch.bool, device=key.device)
            real = real if newest is None else newest
            past = [] if self._is_real is None else [self._is_real]
            self._is_real = torch.cat([*past, real], dim=1)
        return self._packing

    def pages(self, layer: int) -> Pages:
        """Return where the earlier keys of a layer are."""
        if self._tables is None:
            rows = torch.tensor(self.paged.rows(self._handles), device=self.paged.device)
            self._tables = (self.paged.block_table[rows], self.paged.num_slots[rows])
        return Pages(
            kv_pages=self._layer_pages[layer],
            block_table=self._tables[0],
            num_slots=self._tables[1],
            most_slots=max(self._known),
        )

    def _begin(self, key: Tensor) -> None:
        """Begin a pass: what the one before has brought enters the pages."""
        self._commit()
        if not self._handles:
            self._handles = [self.paged.create() for _ in range(key.shape[0])]
            self._known = [0] * key.shape[0]
        require(key.shape[0] == len(self._handles), "keys", f"{len(self._handles)} rows", key.shape)
        self.length += key.shape[2]

    def _commit(self) -> None:
        """Write what the newest pass has brought, if it was whole; else forget it."""
        fresh, layout = self._fresh, self._packing
        self._fresh, self._packing = {}, None
        if not fresh:
            return
        if len(fresh) < len(self.layers):  # it was interrupted
            self._forget(next(iter(fresh.values()))[0].shape[2], layout)
            return
        if layout is None:
            raise ValueError(f"PagedCache: the model's attention is not {attention.NAME!r}")
        keys = torch.stack([layout.pack(fresh[i][0]) for i in range(len(fresh))])
        values = torch.stack([layout.pack(fresh[i][1]) for i in range(len(fresh))])
        slots = self.paged.append(self._handles, layout.counts)
        kvcache.append(keys, values, slots, self.paged.kv_pages)
        self._known = [n + m for n, m in zip(self._known, layout.counts, strict=True)]
        self._tables = None

    def _forget(self, count: int, layout: Packing | None) -> None:
        """Take back tokens that are not in pages."""
        self.length -= count
        if layout is not None and self._is_real is not None:
            self._is_real = self._is_real[:, : self.length]

    # ---- what Transformers asks for ----------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Return how many sequences there are; -1 before the first pass."""
        return len(self._handles) or -1

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest tokens of all sequences, ``-tokens_to_remove`` of them."""
        require(tokens_to_remove <= 0, "tokens_to_remove", "at most 0", tokens_to_remove)
        self._commit()
        count = min(-tokens_to_remove, self.length)
        if count and self._is_real is not None:
            removed = self._is_real[:, -count:].sum(1).tolist()
            for handle, known, gone in zip(self._handles, self._known, removed, strict=True):
                self.paged.truncate(handle, known - gone)
            self._known = [n - m for n, m in zip(self._known, removed, strict=True)]
            self._tables = None
            self._is_real = self._is_real[:, :-count]
            self.length -= count

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let sequence i go on from what sequence ``beam_idx[i]`` has."""
        self._select(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some of the sequences, in this order."""
        chosen = indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices
        self._select(chosen.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence."""
        self._select([i for i in range(len(self._handles)) for _ in range(repeats)])

    def reset(self) -> None:
        """Forget all sequences."""
        self.paged.free(self._handles)
        self._handles, self._known, self._tables = [], [], None
        self._fresh, self._packing, self._is_real, self.length = {}, None, None, 0

    def _select(self, indices: Sequence[int]) -> None:
        self._commit()
        old, known = self._handles, self._known
        self._handles = [self.paged.fork(old[i])[0] for i in indices]
        self._known = [known[i] for i in indices]
        self._tables = None
        self.paged.free(old)
        if self._is_real is not None:
            self._is_real = self._is_real[torch.tensor(indices, device=self._is_real.device)]


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer as Transformers sees it; the cache does the work."""

    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, cache: PagedCache, index: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = weakref.ref(cache)  # so that the pool goes with the cache, at once
        self._index = index

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep new rows; they come back marked, so that attention finds the pages."""
        self.is_initialized = True
        self._whole.store(self._index, key_states, value_states)
        key_states.lmx_source = (self._cache, self._index)  # type: ignore[attr-defined]
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._whole.length + query_length, 0

    def get_seq_length(self) -> int:
        return self._whole.length

    def get_max_length(self) -> int:
        return self._whole.paged.max_tokens

    @property
    def _whole(self) -> PagedCache:
        cache = self._cache()
        assert cache is not None  # who calls this has the cache
        return cache
