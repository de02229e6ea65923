"""What the loader and the layers want to know of any model: sizes, and the name of each tensor."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The sizes of a decoder, and how its checkpoints call what they hold.

    A decoder layer is made of linear layers and norms; ``linears`` and ``norms`` name them
    relative to the layer, ``tensors`` all of them in full.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    norm_eps: float
    tied: bool  # the head is the embedding table
    eos_ids: tuple[int, ...]

    table: ClassVar[str]  # names in a checkpoint
    head: ClassVar[str] = "lm_head.weight"
    layer: ClassVar[str]  # what stands before the number of a layer
    norm_bias: ClassVar[bool] = False  # norms add a bias
    is_adapted: ClassVar[bool] = False  # ``adapt`` copies

    def linears(self) -> dict[str, tuple[int, int, bool]]:
        """Return (out, in, has bias) of each linear layer of a decoder layer, by name."""
        raise NotImplementedError

    def norms(self) -> dict[str, int]:
        """Return the width of each norm of a decoder layer, by name."""
        raise NotImplementedError

    def outer(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what lies outside of the layers, table and head left out."""
        raise NotImplementedError

    def adapt(self, name: str, tensor: Tensor) -> tuple[str, Tensor]:
        """Return a tensor of a checkpoint under the name and in the layout of ``tensors``."""
        return name, tensor

    def is_redundant(self, name: str) -> bool:
        """Return whether checkpoints may hold ``name`` although nothing reads it."""
        return self.tied and name == self.head

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the model, by its name in a checkpoint."""
        table = (self.vocab_size, self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {self.table: table, **self.outer()}
        for i in range(self.num_layers):
            for name, (num_out, num_in, has_bias) in self.linears().items():
                shapes[f"{self.layer}.{i}.{name}.weight"] = (num_out, num_in)
                if has_bias:
                    shapes[f"{self.layer}.{i}.{name}.bias"] = (num_out,)
            for name, width in self.norms().items():
                shapes[f"{self.layer}.{i}.{name}.weight"] = (width,)
                if self.norm_bias:
                    shapes[f"{self.layer}.{i}.{name}.bias"] = (width,)
        if not self.tied:
            shapes[self.head] = table
        return shapes

    def matrices(self) -> Iterator[str]:
        """Yield the names of all weights that rows are multiplied by, a tied head's left out."""
        for i in range(self.num_layers):
            yield from (f"{self.layer}.{i}.{name}.weight" for name in self.linears())
        if not self.tied:
            yield self.head

    def num_bytes(self, dtype: torch.dtype, weights: str = "model") -> int:
        """Return the memory that the weights take: in ``dtype``, or matrices in "int8"."""
        shapes = self.tensors()
        if weights != "int8":
            return sum(map(math.prod, shapes.values())) * dtype.itemsize
        matrices = [shapes.pop(name) for name in self.matrices()]
        if self.tied:
            matrices.append(shapes[self.table])
        scales = sum(num_out for num_out, _ in matrices) * torch.float32.itemsize
        floats = sum(map(math.prod, shapes.values())) * dtype.itemsize
        return sum(map(math.prod, matrices)) + scales + floats


def eos_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """Read an ``eos_token_id``, which Hugging Face writes as a number, a list or nothing."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Read a positive integer, or raise ValueError."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"config: expected {key} to be a positive integer, got {value!r}")
    return value


def number(config: Mapping[str, Any], key: str) -> float:
    """Read a positive number, or raise ValueError."""
    value = config.get(key)
    if not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"config: expected {key} to be a positive number, got {value!r}")
    return float(value)


def choice(config: Mapping[str, Any], key: str, default: str, options: Mapping[str, _T]) -> _T:
    """Read one of the keys of ``options`` and return what it stands for, or raise ValueError."""
    value = config.get(key, default)
    if value not in options:
        raise ValueError(f"{key}={value!r} is not supported; supported: {', '.join(options)}")
    return options[value]


def switch(config: Mapping[str, Any], key: str, only: bool) -> None:
    """Raise ValueError if a switch is set otherwise than the way that is supported."""
    if bool(config.get(key, only)) != only:
        raise ValueError(f"{key}={config[key]!r} is not supported; supported: {only}")


def model_class(config: Mapping[str, Any], supported: Iterable[str]) -> str:
    """Return the first of ``architectures``; raise ValueError unless it is supported."""
    name = (config.get("architectures") or [None])[0]
    if name not in supported:
        raise ValueError(f"model class {name} is not supported; supported: {', '.join(supported)}")
    return str(name)


def refuse_quantised(config: Mapping[str, Any]) -> None:
    """Raise ValueError for a checkpoint whose tensors are not plain floats."""
    if config.get("quantization_config"):
        raise ValueError("quantised checkpoints are not supported; supported: plain floats")
