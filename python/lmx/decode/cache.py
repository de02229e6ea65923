"""The keys and values of one sequence, in one buffer that grows."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..protocols import LayeredModel

_MIN_CAPACITY = 64


class Slots(NamedTuple):
    """Views of the slots of a pass, one per layer: made at once, since each costs a call."""

    new_keys: tuple[Tensor, ...]  # [T, num_kv_heads, head_dim], to be written
    new_values: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]  # [1, num_kv_heads, length + T, head_dim]: cached rows and new ones
    values: tuple[Tensor, ...]


class KVBuffer:
    """Keys and values of all layers, ``[num_layers, 2, num_kv_heads, capacity, head_dim]``.

    A pass writes its rows behind the first ``length`` slots; they count only once ``commit`` has
    been called, so a pass that was interrupted is simply run again.
    """

    def __init__(self, model: LayeredModel) -> None:
        """Make an empty buffer for ``model``."""
        shape = (model.num_layers, 2, model.num_kv_heads, 0, model.head_dim)
        self.length = 0
        self._slots = torch.empty(shape, dtype=model.dtype, device=model.device)

    def open(self, num_new: int) -> Slots:
        """Make room for ``num_new`` rows behind the cached ones, and return where they go."""
        self._reserve(num_new)
        end = self.length + num_new
        seen = self._slots[:, :, :, :end]
        new = self._slots[:, :, :, self.length : end].transpose(2, 3)
        return Slots(
            new_keys=new[:, 0].unbind(),
            new_values=new[:, 1].unbind(),
            keys=seen[:, :1].unbind(),
            values=seen[:, 1:].unbind(),
        )

    def commit(self, num_new: int) -> None:
        """Count the last ``num_new`` written rows as cached."""
        self.length += num_new

    def _reserve(self, num_new: int) -> None:
        """Make room. The capacity doubles, so copying is linear in total."""
        needed, capacity = self.length + num_new, self._slots.shape[3]
        if needed <= capacity:
            return
        capacity = max(_MIN_CAPACITY, 1 << (needed - 1).bit_length())
        layers, _, heads, _, dim = self._slots.shape
        slots = self._slots.new_empty(layers, 2, heads, capacity, dim)
        slots[:, :, :, : self.length] = self._slots[:, :, :, : self.length]
        self._slots = slots
