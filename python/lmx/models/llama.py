"""The Llama family (Llama, Mistral, Qwen2, Qwen3, SmolLM) seen as layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..protocols import Attend, Linear, Position
from .config import LlamaConfig

# Rows of a 16-bit head that norm_head widens to float32 at a time, so that no float32 copy of the
# whole head exists: 512 rows of 1,024 numbers are 2 MiB, the size of a second-level cache.
_HEAD_BLOCK = 512


@dataclass(frozen=True, slots=True)
class _Layer:
    linears: dict[str, Linear]  # by name, without the sub-module: "q_proj"
    norms: dict[str, Tensor]  # likewise: "input_layernorm"


class Llama:
    """A ``LayeredModel`` over the tensors of a checkpoint, which it shares and never changes.

    Linear layers are torch's, whose results for a row may depend on the other rows of the call.
    The decode loop therefore calls the model for one sequence at a time.
    """

    def __init__(self, config: LlamaConfig, state: Mapping[str, Tensor], tokenizer: Any = None):
        """Take the tensors of ``state``.

        Args:
            config: the model's shape.
            state: the tensors ``config.tensors()`` by name, of one floating dtype, on one device.
            tokenizer: a Transformers tokenizer, or None if prompts are token lists.

        Raises:
            ValueError: a tensor is missing, unknown, or of another shape, dtype or device.
        """
        check_state(config, state)
        self.config = config
        self.num_layers = config.num_layers
        self.num_heads = config.num_heads
        self.num_kv_heads = config.num_kv_heads
        self.head_dim = config.head_dim
        self.vocab_size = config.vocab_size
        self.max_positions = config.max_positions
        self.position: Position = config.rope
        self.softmax_scale = config.head_dim**-0.5
        self.tokenizer = tokenizer
        self.eos_ids = config.eos_ids
        self._table = state["model.embed_tokens.weight"]
        self._norm = state["model.norm.weight"]
        self._head = self._table if config.tied else state["lm_head.weight"]
        self._layers = [_layer(config, state, f"model.layers.{i}") for i in range(self.num_layers)]
        self.dtype = self._table.dtype
        self.device = self._table.device

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return hidden rows ``[T, hidden]``; ``positions`` act in attention only."""
        return F.embedding(tokens, self._table)

    def attn(self, i: int, hidden: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Run the attention half of layer ``i``."""
        layer = self._layers[i]
        x = self._rms_norm(hidden, layer.norms["input_layernorm"])
        query = self._heads(x, layer.linears["q_proj"], self.num_heads)
        key = self._heads(x, layer.linears["k_proj"], self.num_kv_heads)
        value = self._heads(x, layer.linears["v_proj"], self.num_kv_heads)
        if self.config.qk_norm:
            query = self._rms_norm(query, layer.norms["q_norm"])
            key = self._rms_norm(key, layer.norms["k_norm"])
        out = attend(i, query, key, value)
        return hidden + _linear(out.flatten(1), layer.linears["o_proj"])

    def mlp(self, i: int, hidden: Tensor) -> Tensor:
        """Run the feed-forward half of layer ``i``: down(silu(gate(x)) * up(x))."""
        layer = self._layers[i]
        x = self._rms_norm(hidden, layer.norms["post_attention_layernorm"])
        gate, up = (_linear(x, layer.linears[name]) for name in ("gate_proj", "up_proj"))
        return hidden + _linear(F.silu(gate) * up, layer.linears["down_proj"])

    def norm_head(self, hidden_rows: Tensor) -> Tensor:
        """Return float32 logits ``[rows, V]``.

        With 16-bit weights too they are sums in float32, never rounded: bfloat16 keeps 8 bits, so
        rounded logits of good tokens often tie.
        """
        x = self._rms_norm(hidden_rows, self._norm)
        if x.dtype == torch.float32:
            return F.linear(x, self._head)
        blocks = torch.split(self._head, _HEAD_BLOCK)
        return torch.cat([F.linear(x.float(), block.float()) for block in blocks], dim=-1)

    def weights(self, i: int, name: str) -> Linear:
        """Return ``name`` of layer ``i``: q_proj, k_proj, v_proj, o_proj, gate_proj, ...

        Raises:
            ValueError: no linear layer has that name; the message lists them.
        """
        linears = self._layers[i].linears
        if name not in linears:
            raise ValueError(f"no linear layer {name!r}; there are: {', '.join(linears)}")
        return linears[name]

    def window(self, i: int) -> int:
        """Return how many positions a row of layer ``i`` sees, its own included; -1 = all."""
        return self.config.windows[i]

    def _heads(self, x: Tensor, linear: Linear, num_heads: int) -> Tensor:
        return _linear(x, linear).view(x.shape[0], num_heads, self.head_dim)

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        # float32 inside and the weight applied after rounding, as Transformers does.
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.config.norm_eps)
        return weight * (wide * scale).to(x.dtype)


def check_state(config: LlamaConfig, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless ``state`` holds exactly the tensors that ``config`` describes."""
    shapes = config.tensors()
    first = state.get("model.embed_tokens.weight")
    for name, shape in shapes.items():
        tensor = state.get(name)
        if tensor is None or first is None:
            raise ValueError(f"checkpoint lacks the tensor {name} of shape {list(shape)}")
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise ValueError(
                f"{name}: expected {first.dtype} on {first.device} as the embedding table, "
                f"got {tensor.dtype} on {tensor.device}"
            )
    unknown = [name for name in state if name not in shapes and not _is_redundant(name, config)]
    if unknown:
        raise ValueError(f"checkpoint holds tensors that the config has no use for: {unknown[:3]}")


def _is_redundant(name: str, config: LlamaConfig) -> bool:
    # Old checkpoints carry the rotary frequencies, and tied ones a copy of the embedding table.
    return name.endswith("rotary_emb.inv_freq") or (config.tied and name == "lm_head.weight")


def _layer(config: LlamaConfig, state: Mapping[str, Tensor], prefix: str) -> _Layer:
    def linear(name: str) -> Linear:
        return Linear(state[f"{prefix}.{name}.weight"], state.get(f"{prefix}.{name}.bias"))

    return _Layer(
        linears={name.split(".")[-1]: linear(name) for name in config.linears()},
        norms={name.split(".")[-1]: state[f"{prefix}.{name}.weight"] for name in config.norms()},
    )


def _linear(x: Tensor, linear: Linear) -> Tensor:
    return F.linear(x, linear.weight, linear.bias)
