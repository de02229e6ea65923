"""One packed pass through a layered model over pages: rotation, attention, hidden rows.

The rows of all sequences run together. What a row gets depends on its sequence alone: products and
norms treat rows one by one, and attention sees a sequence's own pages and rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..kvcache import PagedKVCache
from ..protocols import Alibi, LayeredModel, Rope

GRID = 512  # chunks of a prompt end at multiples of it

_rope = torch.ops.lmx.attention_rope.default
_paged = torch.ops.lmx.attention_paged.default
_append = torch.ops.lmx.kv_append.default


def chunk_end(start: int, length: int) -> int:
    """Return where the chunk that starts at ``start`` of a prompt of ``length`` tokens ends."""
    return min((start // GRID + 1) * GRID, length)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """The rows of a pass: a chain or a tree for each row of the cache's tables, or nothing."""

    tokens: Tensor  # [T], int64
    positions: Tensor  # [T], int32
    cu_seqlens: Tensor  # [B + 1], int32
    ancestors: Tensor | None = None  # [T, ceil(max_q / 32)], int32; None: all are chains
    max_q: int  # most rows of a sequence
    max_slots: int  # most slots of a sequence that are in use


def chains(
    parts: Sequence[tuple[int, int, Sequence[int]]],
    num_rows: int,
    max_slots: int,
    device: torch.device,
) -> Rows:
    """Pack tokens that follow what is in pages.

    Args:
        parts: (row of the tables, position of the first token, tokens), by row.
        num_rows: rows of the tables.
        max_slots: most slots in use of any sequence in the tables.
        device: where the model is.
    """
    lengths = [0] * num_rows
    tokens: list[int] = []
    positions: list[int] = []
    for row, start, new in parts:
        lengths[row] = len(new)
        tokens += new
        positions += range(start, start + len(new))
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return Rows(
        tokens=torch.tensor(tokens, device=device),
        positions=torch.tensor(positions, dtype=torch.int32, device=device),
        cu_seqlens=torch.tensor(offsets, dtype=torch.int32, device=device),
        max_q=max(lengths),
        max_slots=max_slots,
    )


@dataclass(slots=True, kw_only=True, eq=False)
class Fresh:
    """What a pass has computed: nothing of it is in pages yet."""

    hidden: Tensor  # [T, hidden], after the last layer that was run
    keys: list[Tensor]  # of each layer that was run, [T, Hkv, D], rotated
    values: list[Tensor]
    taps: dict[int, Tensor] = field(default_factory=dict)  # rows after the layers asked for


class Runner:
    """Runs rows through a model over the pages of a cache, and commits them."""

    def __init__(self, model: LayeredModel, cache: PagedKVCache) -> None:
        """Take a cache that was made for the model: `lmx.decode.pages.new_cache`."""
        self.model, self.cache = model, cache
        self.num_rows = cache.block_table.shape[0]
        self.pages = cache.kv_pages.unbind(1)  # of each layer: a view costs a call
        position = model.position
        slopes = position.slopes.to(model.device) if isinstance(position, Alibi) else None
        self.options = [
            {
                "softmax_scale": model.softmax_scale,
                "window": model.window(i),
                "alibi_slopes": slopes,
            }
            for i in range(model.num_layers)
        ]
        self.rope = position if isinstance(position, Rope) else None
        self.cos = self.sin = torch.empty(0)  # of positions 0, 1, ...: they grow

    def forward(
        self,
        rows: Rows,
        status: Tensor | None = None,
        *,
        hidden: Tensor | None = None,
        layers: range | None = None,
        taps: Collection[int] = (),
    ) -> Fresh:
        """Run rows through layers; nothing enters the pages.

        Args:
            rows: what to run.
            status: ``[B]``, int32, receives the faults of sequences; without it the CPU raises.
            hidden: ``[T, hidden]``, input rows of the first layer; None embeds the tokens.
            layers: consecutive layers to run; None runs all.
            taps: layers whose output rows are wanted.
        """
        model = self.model
        attend = self._attend(rows, status)
        if hidden is None:
            hidden = model.embed(rows.tokens, rows.positions)
        fresh = Fresh(hidden=hidden, keys=attend.keys, values=attend.values)
        for i in range(model.num_layers) if layers is None else layers:
            hidden = model.attn(i, hidden, rows.positions, attend)
            hidden = model.mlp(i, hidden)
            if i in taps:
                fresh.taps[i] = hidden
        fresh.hidden = hidden
        return fresh

    def commit(self, fresh: Fresh, slot_mapping: Tensor) -> None:
        """Write keys and values of all layers into the pages, in one call.

        Args:
            fresh: of a pass through all layers.
            slot_mapping: ``[T]``, int64; -1 = do not store.
        """
        if fresh.keys:
            keys, values = torch.stack(fresh.keys), torch.stack(fresh.values)
            _append(keys, values, slot_mapping, self.cache.kv_pages)

    def _attend(self, rows: Rows, status: Tensor | None) -> "_Attend":
        """Return the ``attend`` of one pass."""
        needed = rows.max_slots + rows.max_q
        if self.rope is not None and needed > self.cos.shape[0]:
            count = max(GRID, 1 << (needed - 1).bit_length())
            positions = torch.arange(count, device=self.model.device)
            self.cos, self.sin = self.rope.cos_sin(positions)
        return _Attend(self, rows, status)


class _Attend:
    """Rotates, attends to pages and fresh rows, and keeps those.

    A step calls it once per layer, so it does little else than two operators.
    """

    __slots__ = ("_options", "_rows", "_runner", "_tables", "keys", "values")

    def __init__(self, runner: Runner, rows: Rows, status: Tensor | None) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._runner, self._rows = runner, rows
        self._tables = (runner.cache.block_table, runner.cache.num_slots)
        self._options = {"max_q": rows.max_q, "max_slots": rows.max_slots, "status": status}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        runner, rows = self._runner, self._rows
        if runner.rope is not None:
            query, key = _rope(
                query, key, runner.cos, runner.sin, rows.positions, runner.rope.interleaved
            )
        self.keys.append(key)
        self.values.append(value)
        out: Tensor = _paged(
            query,
            key,
            value,
            rows.cu_seqlens,
            rows.cu_seqlens,
            rows.ancestors,
            runner.pages[layer],
            *self._tables,
            rows.positions,
            rows.positions,
            **runner.options[layer],
            **self._options,
        )[0]
        return out
