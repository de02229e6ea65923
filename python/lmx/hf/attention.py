"""lmx's attention inside Transformers' models: ``attn_implementation="lmx"``.

Needs Transformers; `lmx.hf.register_attention` imports it.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .. import attention
from ..decode.checks import require

NAME = "lmx"
MOST_FRESH = 2048  # keys of a sequence that one call takes beside those in pages
_PAGE = 16


def register() -> str:
    """Make the name known to Transformers, and return it."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, padding_mask)
    return NAME


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pages:
    """Where the earlier keys of a batch are."""

    kv_pages: Tensor  # of one layer
    block_table: Tensor  # [B, 1, max_pages], int32
    num_slots: Tensor  # [B, 1], int32
    most_slots: int  # of them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packing:
    """The rows of a padded batch ``[B, T]`` that hold tokens, one sequence after another."""

    index: Tensor | None  # [num_rows], of B * T; None: all
    counts: list[int]  # [B]: rows of each sequence
    cu_seqlens: Tensor  # [B + 1], int32
    positions: Tensor  # [num_rows], int32

    def pack(self, heads: Tensor) -> Tensor:
        """Return ``heads [B, H, T, D]`` as ``[num_rows, H, D]``."""
        rows = heads.transpose(1, 2).flatten(0, 1)
        return rows if self.index is None else rows[self.index]

    def unpack(self, rows: Tensor, batch_size: int, length: int) -> Tensor:
        """Return ``rows [num_rows, H, D]`` as ``[B, T, H, D]``, with zeros for padding."""
        if self.index is not None:
            padded = rows.new_zeros(batch_size * length, *rows.shape[1:])
            padded[self.index] = rows
            rows = padded
        return rows.unflatten(0, (batch_size, length))


def packing(mask: Tensor | None, shape: tuple[int, int], known: list[int], device: Any) -> Packing:
    """Say where the tokens of a padded batch are.

    Args:
        mask: ``[B, T]``, bool, or None: no padding.
        shape: ``(B, T)``.
        known: tokens of each sequence before these.
        device: of the results.
    """
    batch_size, length = shape
    counts = [length] * batch_size if mask is None else mask.sum(1).tolist()
    is_full = mask is None or min(counts) == length
    starts = torch.tensor(known, dtype=torch.int32, device=device)
    if is_full:
        steps = torch.arange(length, dtype=torch.int32, device=device)
        index, positions = None, (starts[:, None] + steps).flatten()
    else:
        assert mask is not None
        index = mask.flatten().nonzero()[:, 0]
        ranks = mask.cumsum(1, dtype=torch.int32) - 1
        positions = (starts[:, None] + ranks).flatten()[index]
    offsets = torch.tensor([0, *accumulate(counts)], dtype=torch.int32, device=device)
    return Packing(index=index, counts=counts, cu_seqlens=offsets, positions=positions)


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    **options: Any,
) -> Tensor | None:
    """Return what `attend` gets as its mask: ``[B, kv_length]``, bool, or None without padding."""
    require(not use_vmap, "attention mask", "a causal one, with or without window", "another")
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask[:, -kv_length:]


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention in Transformers' form; keys of a `PagedCache` stay in its pages.

    Args:
        module: its layer.
        query: ``[B, Hq, T, D]``, rotated, as ``key`` is.
        key: ``[B, Hkv, K, D]``: of these tokens if a `PagedCache` holds the earlier ones, else of
            all, the last T of which are these.
        value: likewise.
        attention_mask: ``[B, keys in all]``, what `padding_mask` returned.
        scaling: multiplies scores; None is ``D ** -0.5``.
        dropout: must be 0.
        sliding_window: positions that a token sees, its own included; None = all.
        softcap: ``c tanh(score / c)``; None = off.
        is_causal: must not be False.
        **options: others of Transformers, of which some are refused.

    Returns:
        ``[B, T, Hq, D]``, zeros for padding, and None for the weights.

    Raises:
        ValueError: something is asked for that lmx's attention does not do.
    """
    _refuse(dropout, is_causal, options, attention_mask)
    batch_size, length = query.shape[0], query.shape[2]
    source = getattr(key, "lmx_source", None)  # what `PagedCache` has marked
    if source is not None:
        cache, layer = source[0](), source[1]
        fresh, pages = cache.layout(attention_mask), cache.pages(layer)
        queries = fresh
    else:
        shape = (batch_size, key.shape[2])
        fresh, pages = packing(attention_mask, shape, [0] * batch_size, key.device), None
        queries = _newest(fresh, attention_mask, batch_size, key.shape[2], length)
    call = _Call(
        query=queries.pack(query),
        key=fresh.pack(key),
        value=fresh.pack(value),
        queries=queries,
        keys=fresh,
        pages=pages or _no_pages(key),
        options={
            "softmax_scale": query.shape[-1] ** -0.5 if scaling is None else scaling,
            "window": -1 if sliding_window is None else sliding_window,
            "softcap": softcap or 0.0,
        },
    )
    out = call.at_once() if max(fresh.counts) <= MOST_FRESH else call.in_blocks()
    return queries.unpack(out, batch_size, length), None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Call:
    """Packed rows, where they belong, and how they attend."""

    query: Tensor
    key: Tensor
    value: Tensor
    queries: Packing
    keys: Packing
    pages: Pages
    options: dict[str, Any]

    def at_once(self) -> Tensor:
        """Attend to pages and fresh keys in one call."""
        out, _, _, _ = attention.paged(
            self.query,
            self.key,
            self.value,
            self.queries.cu_seqlens,
            self.keys.cu_seqlens,
            None,
            self.pages.kv_pages,
            self.pages.block_table,
            self.pages.num_slots,
            self.queries.positions,
            self.keys.positions,
            max_q=max(self.queries.counts),
            max_slots=self.pages.most_slots,
            **self.options,
        )
        return out

    def in_blocks(self) -> Tensor:
        """Attend block by block of queries and fresh keys, and merge what they give."""
        outs = []
        first_q = first_k = 0
        for i, (num_q, num_k) in enumerate(zip(self.queries.counts, self.keys.counts, strict=True)):
            shift = first_k + num_k - first_q - num_q  # from a query row to its own key
            for start in range(first_k, first_k + num_k, MOST_FRESH):
                keys = slice(start, min(start + MOST_FRESH, first_k + num_k))
                rows = slice(max(start - shift, first_q), keys.stop - shift)
                if rows.start >= rows.stop:
                    continue
                out, lse = self._block(i, rows, keys)
                for earlier in range(first_k, start, MOST_FRESH):
                    more = slice(earlier, earlier + MOST_FRESH)
                    seen = self._block(i, rows, more, part="fresh", causal=False)
                    out, lse = attention.merge(out, lse, *seen)
                outs.append(out)
            first_q, first_k = first_q + num_q, first_k + num_k
        return torch.cat(outs)

    def _block(
        self, sequence: int, rows: slice, keys: slice, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Attend from some rows of a sequence to some of its fresh keys, and to pages if asked."""
        counts = [rows.stop - rows.start, keys.stop - keys.start]
        ends = torch.tensor([[0, count] for count in counts], dtype=torch.int32)
        cu_seqlens_q, cu_seqlens_k = ends.to(self.query.device).unbind()
        out, lse, _, _ = attention.paged(
            self.query[rows],
            self.key[keys],
            self.value[keys],
            cu_seqlens_q,
            cu_seqlens_k,
            None,
            self.pages.kv_pages,
            self.pages.block_table[sequence, None],
            self.pages.num_slots[sequence, None],
            self.queries.positions[rows],
            self.keys.positions[keys],
            max_q=counts[0],
            max_slots=self.pages.most_slots,
            **self.options,
            **options,
        )
        return out, lse


def _newest(
    keys: Packing, mask: Tensor | None, batch_size: int, num_keys: int, length: int
) -> Packing:
    """Return the packing of the last ``length`` tokens of each sequence."""
    if length == num_keys:
        return keys
    newest = None if mask is None else mask[:, -length:]
    counts = [length] * batch_size if newest is None else newest.sum(1).tolist()
    known = [k - q for k, q in zip(keys.counts, counts, strict=True)]
    return packing(newest, (batch_size, length), known, keys.positions.device)


def _no_pages(key: Tensor) -> Pages:
    batch_size, num_heads, _, head_dim = key.shape
    return Pages(
        kv_pages=key.new_zeros(1, 2, num_heads, _PAGE, head_dim),
        block_table=torch.zeros(batch_size, 1, 1, dtype=torch.int32, device=key.device),
        num_slots=torch.zeros(batch_size, 1, dtype=torch.int32, device=key.device),
        most_slots=0,
    )


def _refuse(
    dropout: float, is_causal: bool | None, options: dict[str, Any], mask: Tensor | None
) -> None:
    require(dropout == 0, "dropout", "0: the operator is for inference", dropout)
    require(is_causal is not False, "is_causal", "True", is_causal)
    for name in ("output_attentions", "s_aux", "head_mask"):
        require(not _is_set(options.get(name)), name, "it unset", options.get(name))
    is_plain = mask is None or mask.dim() == 2
    require(is_plain, "attention_mask", "[batch, tokens], of padding", mask)


def _is_set(value: object) -> bool:
    return value is not None and value is not False
