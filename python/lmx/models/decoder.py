"""What the layered models of all families have in common."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import layerskip
from ..layerskip.quant import BLOCK
from ..protocols import Linear, Position
from .config import DecoderConfig
from .products import Product

# The tensors of a model by name; matrices that are not stored as floats are Linears without bias.
State: TypeAlias = Mapping[str, Tensor | Linear]


class Decoder:
    """The parts of a ``LayeredModel`` that no family does in its own way.

    It shares the tensors of a checkpoint and never changes them. Every product and norm is an
    operator of ``lmx.layerskip``: what a row gets does not depend on the other rows of a call.
    """

    def __init__(
        self,
        config: DecoderConfig,
        state: State,
        tokenizer: Any,
        *,
        position: Position,
        softmax_scale: float,
    ) -> None:
        """Take the tensors of ``state``.

        Args:
            config: the model's shape.
            state: the tensors ``config.tensors()`` by name, on one device: matrices of one
                floating dtype or quantised, vectors of that dtype or float32. A tied head may
                stand beside the table in another format.
            tokenizer: a Transformers tokenizer, or None if prompts are token lists.
            position: how positions enter.
            softmax_scale: multiplies attention scores.

        Raises:
            ValueError: a tensor is missing, unknown, or of another shape, dtype or device.
        """
        self.dtype, self.device = check_state(config, state)
        self.num_layers = config.num_layers
        self.num_heads = config.num_heads
        self.num_kv_heads = config.num_kv_heads
        self.head_dim = config.head_dim
        self.vocab_size = config.vocab_size
        self.max_positions = config.max_positions
        self.position = position
        self.softmax_scale = softmax_scale
        self.tokenizer = tokenizer
        self.eos_ids = config.eos_ids
        self._table = linear(state, config.table)
        is_table = config.tied and not isinstance(state.get(config.head), Linear)
        head = self._table if is_table else linear(state, config.head)
        self._head = Product(head, out_dtype=torch.float32)
        self._linears = [
            {name: linear(state, f"{config.layer}.{i}.{name}") for name in config.linears()}
            for i in range(config.num_layers)
        ]
        self._names = _short_names(config.linears())
        shapes = config.tensors()
        looked_up = {name for name, shape in shapes.items() if len(shape) == 2}
        read = [name for name in shapes if name not in looked_up.difference(config.matrices())]
        if config.tied:
            read.append(config.table if is_table else config.head)
        self.bytes_per_token = sum(_num_bytes(state[name]) for name in read)

    def weights(self, i: int, name: str) -> Linear:
        """Return a linear layer of layer ``i``, sharing the model's memory.

        Names are those of the checkpoint, without the sub-module where they are clear: "q_proj".

        Raises:
            ValueError: no linear layer has that name; the message lists them.
        """
        if name not in self._names:
            raise ValueError(f"no linear layer {name!r}; there are: {', '.join(self._names)}")
        return self._linears[i][self._names[name]]

    def window(self, i: int) -> int:
        """Return how many positions a row of layer ``i`` sees, its own included; -1 = all."""
        return -1

    def _look_up(self, tokens: Tensor) -> Tensor:
        """Return the rows ``[T, hidden]`` of the embedding table."""
        table = self._table
        if table.format == "dense":
            return F.embedding(tokens, table.weight)
        return layerskip.dequantize(table.weight[tokens], table.format)


def _short_names(names: Collection[str]) -> dict[str, str]:
    """Return full names by their last parts, or by themselves where last parts are equal."""
    last = Counter(name.split(".")[-1] for name in names)
    return {name if last[name.split(".")[-1]] > 1 else name.split(".")[-1]: name for name in names}


def linear(state: State, name: str) -> Linear:
    """Return a linear layer, or a table, by its full name (of which ``.weight`` may be left out).

    The bias is the state's, if it has one.
    """
    name = name.removesuffix(".weight")
    weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
    assert weight is not None and not isinstance(bias, Linear)  # check_state has seen them
    if isinstance(weight, Linear):
        return Linear(weight.weight, bias, weight.format, weight.scale)
    return Linear(weight, bias)


def vector(state: State, name: str) -> Tensor:
    """Return a tensor that is never quantised."""
    tensor = state[name]
    assert isinstance(tensor, Tensor)
    return tensor


def check_state(config: DecoderConfig, state: State) -> tuple[torch.dtype, torch.device]:
    """Return the dtype that rows have, and the device.

    Raises:
        ValueError: ``state`` does not hold exactly the tensors that ``config`` describes.
    """
    shapes = config.tensors()
    first = state.get(config.table)
    for name, shape in shapes.items():
        if first is None or name not in state:
            raise ValueError(f"checkpoint lacks the tensor {name} of shape {list(shape)}")
        _check(name, state[name], shape, *_origin(first))
    assert first is not None
    unknown = [name for name in state if name not in shapes and not config.is_redundant(name)]
    if unknown:
        raise ValueError(f"checkpoint holds tensors that the config has no use for: {unknown[:3]}")
    return _origin(first)


def _origin(table: Tensor | Linear) -> tuple[torch.dtype, torch.device]:
    if isinstance(table, Linear):  # blocks are multiplied as bfloat16
        return torch.bfloat16, table.weight.device
    return table.dtype, table.device


def _check(
    name: str,
    value: Tensor | Linear,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    tensor = value.weight if isinstance(value, Linear) else value
    found = list(tensor.shape)
    if isinstance(value, Linear) and value.format in layerskip.FORMATS:
        found[-1] = found[-1] // layerskip.FORMATS[value.format] * BLOCK
    if found != list(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {found}")
    if isinstance(value, Linear):
        dtype = torch.int8 if value.format == "int8" else torch.uint8
    allowed = {dtype, torch.float32} if len(shape) == 1 else {dtype}
    if tensor.dtype not in allowed or tensor.device != device:
        raise ValueError(
            f"{name}: expected {dtype} on {device} as the embedding table, "
            f"got {tensor.dtype} on {tensor.device}"
        )


def _num_bytes(value: Tensor | Linear) -> int:
    parts = [value] if isinstance(value, Tensor) else [value.weight, value.scale]
    return sum(part.numel() * part.element_size() for part in parts if part is not None)
