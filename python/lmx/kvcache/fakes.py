"""Shapes and dtypes of the room's ops, for ``torch.compile`` and export."""

from torch import Tensor
from torch.library import register_fake


@register_fake("lmx::kv_append")
def _append(
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
    status: Tensor | None = None,
) -> None:
    return None


@register_fake("lmx::kv_copy_pages")
def _copy_pages(src: Tensor, dst: Tensor, kv_pages: Tensor, status: Tensor | None = None) -> None:
    return None


@register_fake("lmx::kv_swap_pages")
def _swap_pages(
    page_ids: Tensor,
    kv_pages: Tensor,
    host_pages: Tensor,
    direction: str,
    status: Tensor | None = None,
) -> None:
    return None


@register_fake("lmx::kv_gather_slots")
def _gather_slots(
    kv_pages: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    slots: Tensor,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    num_rows = block_table.shape[1]
    num_heads = num_rows if num_rows > 1 else kv_pages.shape[-3]
    shape = [block_table.shape[0] * slots.shape[2], num_heads, kv_pages.shape[-1]]
    if kv_pages.dim() == 6:
        shape.insert(0, kv_pages.shape[1])
    return kv_pages.new_empty(shape), kv_pages.new_empty(shape)


@register_fake("lmx::kv_scatter_slots")
def _scatter_slots(
    key: Tensor,
    value: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    slots: Tensor,
    kv_pages: Tensor,
    status: Tensor | None = None,
) -> None:
    return None
