"""The keys and values of one sequence, in one buffer that grows."""

import torch
from torch import Tensor

from ..protocols import LayeredModel

_MIN_CAPACITY = 64


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

    def reserve(self, num_new: int) -> None:
        """Make room for ``num_new`` rows. The capacity doubles, so copying is linear in total."""
        needed, capacity = self.length + num_new, self._slots.shape[3]
        if needed <= capacity:
            return
        capacity = max(_MIN_CAPACITY, 1 << (needed - 1).bit_length())
        layers, _, heads, _, dim = self._slots.shape
        slots = self._slots.new_empty(layers, 2, heads, capacity, dim)
        slots[:, :, :, : self.length] = self._slots[:, :, :, : self.length]
        self._slots = slots

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store new rows of a layer.

        Args:
            layer: the layer.
            key: ``[T, num_kv_heads, head_dim]``; room for T rows is reserved.
            value: the same shape.

        Returns:
            Keys and values ``[num_kv_heads, length + T, head_dim]`` of all rows, as views.
        """
        end = self.length + key.shape[0]
        slots = self._slots[layer, :, :, :end]
        slots[0, :, self.length :] = key.transpose(0, 1)
        slots[1, :, self.length :] = value.transpose(0, 1)
        return slots[0], slots[1]

    def commit(self, num_new: int) -> None:
        """Count the last ``num_new`` written rows as cached."""
        self.length += num_new
