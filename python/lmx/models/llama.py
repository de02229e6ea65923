"""The Llama family (Llama, Mistral, Qwen2, Qwen3, SmolLM) seen as layers."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..protocols import Attend
from .decoder import Decoder, State, vector
from .llama_config import LlamaConfig
from .products import Product, RmsNorm, SwiGlu


@dataclass(frozen=True, slots=True)
class _Layer:
    attn_norm: RmsNorm
    query: Product
    key: Product
    value: Product
    query_norm: RmsNorm | None
    key_norm: RmsNorm | None
    out: Product
    mlp_norm: RmsNorm
    swiglu: SwiGlu
    down: Product


class Llama(Decoder):
    """A ``LayeredModel`` over the tensors of a checkpoint."""

    def __init__(self, config: LlamaConfig, state: State, tokenizer: Any = None) -> None:
        """Take the tensors of ``state``: see `Decoder`."""
        super().__init__(
            config,
            state,
            tokenizer,
            position=config.rope,
            softmax_scale=config.head_dim**-0.5,
        )
        self.config = config
        self._norm = RmsNorm(vector(state, "model.norm.weight"), config.norm_eps)
        self._layers = [self._layer(state, i) for i in range(self.num_layers)]
        self._query_shape = (-1, self.num_heads, self.head_dim)
        self._key_shape = (-1, self.num_kv_heads, self.head_dim)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return hidden rows ``[T, hidden]``; ``positions`` act in attention only."""
        return self._look_up(tokens)

    def attn(self, i: int, hidden: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Run the attention half of layer ``i``."""
        layer = self._layers[i]
        x = layer.attn_norm(hidden)
        query = layer.query(x).view(self._query_shape)
        key = layer.key(x).view(self._key_shape)
        value = layer.value(x).view(self._key_shape)
        if layer.query_norm is not None and layer.key_norm is not None:
            query = layer.query_norm(query.flatten(0, 1)).view(self._query_shape)
            key = layer.key_norm(key.flatten(0, 1)).view(self._key_shape)
        return layer.out(attend(i, query, key, value).flatten(1), hidden)

    def mlp(self, i: int, hidden: Tensor) -> Tensor:
        """Run the feed-forward half of layer ``i``: down(silu(gate(x)) * up(x))."""
        layer = self._layers[i]
        return layer.down(layer.swiglu(layer.mlp_norm(hidden)), hidden)

    def norm_head(self, hidden_rows: Tensor) -> Tensor:
        """Return float32 logits ``[rows, V]``, sums that are never rounded to 16 bits.

        bfloat16 keeps 8 bits, so rounded logits of good tokens often tie.
        """
        return self._head(self._norm(hidden_rows))

    def window(self, i: int) -> int:
        """Return how many positions a row of layer ``i`` sees, its own included; -1 = all."""
        return self.config.windows[i]

    def _layer(self, state: State, i: int) -> _Layer:
        linears = self._linears[i]

        def norm(name: str) -> RmsNorm:
            weight = vector(state, f"{self.config.layer}.{i}.{name}.weight")
            return RmsNorm(weight, self.config.norm_eps)

        has_head_norms = self.config.qk_norm
        return _Layer(
            attn_norm=norm("input_layernorm"),
            query=Product(linears["self_attn.q_proj"]),
            key=Product(linears["self_attn.k_proj"]),
            value=Product(linears["self_attn.v_proj"]),
            query_norm=norm("self_attn.q_norm") if has_head_norms else None,
            key_norm=norm("self_attn.k_norm") if has_head_norms else None,
            out=Product(linears["self_attn.o_proj"]),
            mlp_norm=norm("post_attention_layernorm"),
            swiglu=SwiGlu(linears["mlp.gate_proj"], linears["mlp.up_proj"]),
            down=Product(linears["mlp.down_proj"]),
        )
