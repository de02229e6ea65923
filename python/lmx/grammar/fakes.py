"""Shapes and dtypes of the room's ops, for ``torch.compile`` and export."""

import torch
from torch import Tensor
from torch.library import register_fake


@register_fake("lmx::grammar_fill")
def _fill(
    handles: Tensor,
    bitmask: Tensor,
    status: Tensor,
    rows: Tensor | None = None,
    num_threads: int = 1,
) -> None:
    return None


@register_fake("lmx::grammar_accept")
def _accept(handles: Tensor, tokens: Tensor) -> Tensor:
    return handles.new_empty(handles.shape, dtype=torch.bool)


@register_fake("lmx::grammar_fill_tree")
def _fill_tree(
    handle: Tensor,
    parents: Tensor,
    tokens: Tensor,
    bitmask: Tensor,
    valid: Tensor,
    root_is_current: bool = False,
) -> None:
    return None


@register_fake("lmx::grammar_step")
def _step(
    states: Tensor,
    tokens: Tensor,
    transitions: Tensor,
    classes: Tensor,
    symbols: Tensor,
    offsets: Tensor,
    status: Tensor | None = None,
) -> Tensor:
    return states.new_empty(states.shape)
