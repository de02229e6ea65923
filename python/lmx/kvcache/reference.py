"""The room's ops in plain torch: slow, clear. Tests compare with these, bit for bit."""

from collections.abc import Iterator

from torch import Tensor


def _rows(kv_pages: Tensor, layer: int, slot: int, head: int) -> Tensor:
    """Key and value row ``[2, head_dim]`` of a slot, as a view."""
    page, offset = divmod(slot, kv_pages.shape[-2])
    of_layer = kv_pages[page, layer] if kv_pages.dim() == 6 else kv_pages[page]
    return of_layer[:, head if of_layer.shape[1] > 1 else 0, offset]


def _entries(key: Tensor, slots: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Layer, token, head and slot of all rows.

    ``slots`` is ``[tokens]``, ``[layers, tokens]`` or ``[layers, tokens, heads]``, of sizes 1 where
    layers or heads share a slot.
    """
    num_layers, num_tokens, num_heads, _ = key.shape
    full = slots if slots.dim() > 1 else slots[None]
    full = full if full.dim() == 3 else full[..., None]
    full = full.expand(num_layers, num_tokens, num_heads)
    for layer in range(num_layers):
        for token in range(num_tokens):
            for head in range(num_heads):
                yield layer, token, head, int(full[layer, token, head])


def append(
    key: Tensor,
    value: Tensor,
    slot_mapping: Tensor,
    kv_pages: Tensor,
    scale: Tensor | None = None,
    meta_slots: Tensor | None = None,
    pos: Tensor | None = None,
    score: Tensor | None = None,
    meta_pos: Tensor | None = None,
    meta_score: Tensor | None = None,
) -> None:
    """See ``lmx.kvcache.append``; no slot may be bad."""
    if key.dim() == 3:
        key, value = key[None], value[None]
        slot_mapping = slot_mapping[None]
        meta_slots = None if meta_slots is None else meta_slots[None]
        score = None if score is None else score[None]
    for layer, token, head, slot in _entries(key, slot_mapping):
        if slot >= 0:
            rows = _rows(kv_pages, layer, slot, head)
            rows[0], rows[1] = key[layer, token, head], value[layer, token, head]
    if meta_slots is None:
        return
    stored = meta_slots >= 0
    if pos is not None and meta_pos is not None:
        token_axis = 0 if meta_slots.dim() == 1 else 1
        shape = [len(pos) if d == token_axis else 1 for d in range(meta_slots.dim())]
        meta_pos.view(-1)[meta_slots[stored]] = pos.view(shape).expand_as(meta_slots)[stored]
    if score is not None and meta_score is not None:
        meta_score.view(-1)[meta_slots[stored]] = score[stored]


def copy_pages(src: Tensor, dst: Tensor, kv_pages: Tensor) -> None:
    """See ``lmx.kvcache.copy_pages``."""
    kv_pages[dst.long()] = kv_pages[src.long()]


def swap_pages(page_ids: Tensor, kv_pages: Tensor, host_pages: Tensor, direction: str) -> None:
    """See ``lmx.kvcache.swap_pages``."""
    if direction == "out":
        host_pages[: len(page_ids)] = kv_pages[page_ids.long()]
    else:
        kv_pages[page_ids.long()] = host_pages[: len(page_ids)]


def _physical(block_table: Tensor, slots: Tensor, page_size: int) -> Tensor:
    """Slots of the pool ``[1, num_seqs * n, num_rows]``, -1 where the logical slot is."""
    page = block_table.gather(2, (slots.clamp(min=0) // page_size).long()).long()
    physical = (page * page_size + slots % page_size).where(slots >= 0, -1)
    return physical.transpose(1, 2).flatten(0, 1)[None]


def gather_slots(
    kv_pages: Tensor, block_table: Tensor, num_slots: Tensor, slots: Tensor
) -> tuple[Tensor, Tensor]:
    """See ``lmx.kvcache.gather_slots``; no slot may be bad."""
    num_layers = kv_pages.shape[1] if kv_pages.dim() == 6 else 1
    num_heads = max(block_table.shape[1], kv_pages.shape[-3])
    num_tokens = slots.shape[0] * slots.shape[2]
    key, value = kv_pages.new_zeros(2, num_layers, num_tokens, num_heads, kv_pages.shape[-1])
    for layer, token, head, slot in _entries(
        key, _physical(block_table, slots, kv_pages.shape[-2])
    ):
        if slot >= 0:
            rows = _rows(kv_pages, layer, slot, head)
            key[layer, token, head], value[layer, token, head] = rows[0], rows[1]
    return (key, value) if kv_pages.dim() == 6 else (key[0], value[0])


def scatter_slots(
    key: Tensor,
    value: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    slots: Tensor,
    kv_pages: Tensor,
) -> None:
    """See ``lmx.kvcache.scatter_slots``; no slot may be bad."""
    if key.dim() == 3:
        key, value = key[None], value[None]
    for layer, token, head, slot in _entries(
        key, _physical(block_table, slots, kv_pages.shape[-2])
    ):
        if slot >= 0:
            rows = _rows(kv_pages, layer, slot, head)
            rows[0], rows[1] = key[layer, token, head], value[layer, token, head]
