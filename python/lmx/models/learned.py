"""What OPT and GPT-2 share: layer norms, learned positions, and two linear layers per MLP."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..layerskip.ops import Activation
from ..protocols import Attend, Learned
from .config import DecoderConfig
from .decoder import Decoder, State, vector
from .products import LayerNorm, Product

# What configs call the activations of an MLP.
ACTIVATIONS: Mapping[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "tanh": "tanh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedConfig(DecoderConfig):
    """What the families differ in: names, activation, and where norms stand."""

    positions: ClassVar[str]  # names in a checkpoint
    last_norm: ClassVar[str]
    attn_norm: ClassVar[str]
    mlp_norm: ClassVar[str]
    qkv: ClassVar[tuple[str, ...]]  # three linear layers, or one for all
    out: ClassVar[str]
    fc1: ClassVar[str]
    fc2: ClassVar[str]
    position_offset: ClassVar[int] = 0  # row of position 0 in the table of positions
    norm_bias: ClassVar[bool] = True

    inner_size: int  # of the MLP
    activation: Activation
    softmax_scale: float
    bias: bool = True  # of the linear layers
    norm_first: bool = True  # norms stand before attention and MLP, else after the residual
    has_last_norm: bool = True

    def linears(self) -> dict[str, tuple[int, int, bool]]:
        """Return (out, in, has bias) of each linear layer of a decoder layer, by name."""
        hidden, inner = self.hidden_size, self.inner_size
        width = 3 * hidden // len(self.qkv)
        return {
            **dict.fromkeys(self.qkv, (width, hidden, self.bias)),
            self.out: (hidden, hidden, self.bias),
            self.fc1: (inner, hidden, self.bias),
            self.fc2: (hidden, inner, self.bias),
        }

    def norms(self) -> dict[str, int]:
        """Return the width of each norm of a decoder layer, by name."""
        return dict.fromkeys((self.attn_norm, self.mlp_norm), self.hidden_size)

    def outer(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the table of positions and of the last norm."""
        rows = self.max_positions + self.position_offset
        shapes: dict[str, tuple[int, ...]] = {self.positions: (rows, self.hidden_size)}
        if self.has_last_norm:
            shapes |= dict.fromkeys(
                (f"{self.last_norm}.weight", f"{self.last_norm}.bias"), (self.hidden_size,)
            )
        return shapes


@dataclass(frozen=True, slots=True)
class _Layer:
    attn_norm: LayerNorm
    qkv: tuple[Product, ...]
    out: Product
    mlp_norm: LayerNorm
    fc1: Product
    fc2: Product


class LearnedDecoder(Decoder):
    """A ``LayeredModel`` over the tensors of a checkpoint."""

    def __init__(self, config: LearnedConfig, state: State, tokenizer: Any = None) -> None:
        """Take the tensors of ``state``: see `Decoder`."""
        super().__init__(
            config,
            state,
            tokenizer,
            position=Learned(num_positions=config.max_positions),
            softmax_scale=config.softmax_scale,
        )
        self.config = config
        self._positions = vector(state, config.positions)[config.position_offset :]
        self._last_norm = self._norm(state, config.last_norm) if config.has_last_norm else None
        self._layers = [self._layer(state, i) for i in range(self.num_layers)]
        self._shape = (-1, self.num_heads, self.head_dim)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return hidden rows ``[T, hidden]``: embeddings of tokens and of positions, added."""
        return self._look_up(tokens) + F.embedding(positions, self._positions)

    def attn(self, i: int, hidden: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Run the attention half of layer ``i``."""
        layer, norm_first = self._layers[i], self.config.norm_first
        x = layer.attn_norm(hidden) if norm_first else hidden
        rows: tuple[Tensor, ...] = tuple(product(x) for product in layer.qkv)
        if len(rows) == 1:
            rows = rows[0].chunk(3, -1)
        query, key, value = (part.view(self._shape) for part in rows)
        out = layer.out(attend(i, query, key, value).flatten(1), hidden)
        return out if norm_first else layer.attn_norm(out)

    def mlp(self, i: int, hidden: Tensor) -> Tensor:
        """Run the feed-forward half of layer ``i``: fc2(activation(fc1(x)))."""
        layer, norm_first = self._layers[i], self.config.norm_first
        x = layer.mlp_norm(hidden) if norm_first else hidden
        out = layer.fc2(layer.fc1(x), hidden)
        return out if norm_first else layer.mlp_norm(out)

    def norm_head(self, hidden_rows: Tensor) -> Tensor:
        """Return float32 logits ``[rows, V]``, sums that are never rounded to 16 bits."""
        return self._head(self._last_norm(hidden_rows) if self._last_norm else hidden_rows)

    def _norm(self, state: State, name: str) -> LayerNorm:
        weight, bias = (vector(state, f"{name}.{part}") for part in ("weight", "bias"))
        return LayerNorm(weight, bias, self.config.norm_eps)

    def _layer(self, state: State, i: int) -> _Layer:
        config, linears = self.config, self._linears[i]

        def product(name: str, activation: Activation = "none") -> Product:
            return Product(linears[name], activation=activation)

        prefix = f"{config.layer}.{i}"
        return _Layer(
            attn_norm=self._norm(state, f"{prefix}.{config.attn_norm}"),
            qkv=tuple(product(name) for name in config.qkv),
            out=product(config.out),
            mlp_norm=self._norm(state, f"{prefix}.{config.mlp_norm}"),
            fc1=product(config.fc1, config.activation),
            fc2=product(config.fc2),
        )
