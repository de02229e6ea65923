"""The shape of a model of the Llama family, read from a Hugging Face config."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..protocols import Rope
from .config import (
    DecoderConfig,
    choice,
    count,
    eos_ids,
    model_class,
    number,
    refuse_quantised,
)

SUPPORTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig(DecoderConfig):
    """What the members of the family differ in: biases, norms, rotation and windows."""

    table: ClassVar[str] = "model.embed_tokens.weight"
    layer: ClassVar[str] = "model.layers"

    intermediate_size: int
    rope: Rope
    windows: tuple[int, ...]  # per layer; -1 = all positions
    qkv_bias: bool
    out_bias: bool  # of o_proj
    mlp_bias: bool
    qk_norm: bool  # RMSNorm over each query and key head, before rotation

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "LlamaConfig":
        """Read what ``config.json`` or ``PreTrainedConfig.to_dict()`` holds.

        Raises:
            ValueError: the class, the rotary embedding or the activation is not supported, or
                an entry is missing or of the wrong kind; the message names it.
        """
        architecture = model_class(config, SUPPORTED)
        refuse_quantised(config)
        choice(config, "hidden_act", "silu", {"silu": "silu"})
        num_heads = count(config, "num_attention_heads")
        num_kv_heads = count(config, "num_key_value_heads", num_heads)
        if num_heads % num_kv_heads:
            raise ValueError(
                f"num_attention_heads={num_heads} is not a multiple of "
                f"num_key_value_heads={num_kv_heads}"
            )
        qwen2, qwen3 = architecture == "Qwen2ForCausalLM", architecture == "Qwen3ForCausalLM"
        has_bias = architecture != "MistralForCausalLM" and bool(config.get("attention_bias"))
        default_head_dim = 128 if qwen3 else count(config, "hidden_size") // num_heads
        head_dim = count(config, "head_dim", default_head_dim)
        return cls(
            hidden_size=count(config, "hidden_size"),
            intermediate_size=count(config, "intermediate_size"),
            num_layers=count(config, "num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            vocab_size=count(config, "vocab_size"),
            max_positions=count(config, "max_position_embeddings"),
            norm_eps=number(config, "rms_norm_eps"),
            rope=_rope(config, head_dim),
            windows=_windows(config, architecture, count(config, "num_hidden_layers")),
            qkv_bias=qwen2 or has_bias,
            out_bias=has_bias and not qwen2,
            mlp_bias=architecture == "LlamaForCausalLM" and bool(config.get("mlp_bias")),
            qk_norm=qwen3,
            tied=bool(config.get("tie_word_embeddings", False)),
            eos_ids=eos_ids(config.get("eos_token_id")),
        )

    def linears(self) -> dict[str, tuple[int, int, bool]]:
        """Return (out, in, has bias) of each linear layer of a decoder layer, by name."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (query, hidden, self.qkv_bias),
            "self_attn.k_proj": (key, hidden, self.qkv_bias),
            "self_attn.v_proj": (key, hidden, self.qkv_bias),
            "self_attn.o_proj": (hidden, query, self.out_bias),
            "mlp.gate_proj": (inner, hidden, self.mlp_bias),
            "mlp.up_proj": (inner, hidden, self.mlp_bias),
            "mlp.down_proj": (hidden, inner, self.mlp_bias),
        }

    def norms(self) -> dict[str, int]:
        """Return the width of each norm of a decoder layer, by name."""
        norms = {"input_layernorm": self.hidden_size, "post_attention_layernorm": self.hidden_size}
        if self.qk_norm:
            norms |= {"self_attn.q_norm": self.head_dim, "self_attn.k_norm": self.head_dim}
        return norms

    def outer(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of the last norm."""
        return {"model.norm.weight": (self.hidden_size,)}

    def is_redundant(self, name: str) -> bool:
        """Return whether it is a tied head, or the rotary frequencies of old checkpoints."""
        return name.endswith("rotary_emb.inv_freq") or (self.tied and name == self.head)


def _windows(config: Mapping[str, Any], architecture: str, num_layers: int) -> tuple[int, ...]:
    if architecture == "LlamaForCausalLM" or config.get("sliding_window", 4096) is None:
        return (-1,) * num_layers
    window = count(config, "sliding_window", 4096)
    if architecture == "MistralForCausalLM":
        return (window,) * num_layers
    kinds = config.get("layer_types")
    if kinds is None:  # Qwen before Transformers 4.53: the layers from a bound on slide
        slides = bool(config.get("use_sliding_window"))
        first = count(config, "max_window_layers", 28) if slides else num_layers
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(num_layers)]
    if len(kinds) != num_layers or not {"full_attention", "sliding_attention"}.issuperset(kinds):
        raise ValueError(
            f"config: expected layer_types to be {num_layers} of full_attention and "
            f"sliding_attention, got {kinds}"
        )
    return tuple(window if kind == "sliding_attention" else -1 for kind in kinds)


def _rope(config: Mapping[str, Any], head_dim: int) -> Rope:
    # Transformers 5 keeps all in rope_parameters; before, rope_theta stood beside rope_scaling.
    params = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(params.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = params.get("rope_type") or params.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise ValueError(
            f"rotary scaling {kind!r} is not supported; supported: {', '.join(ROPE_TYPES)}"
        )
    if head_dim % 2:
        raise ValueError(f"config: expected an even head_dim, got {head_dim}")
    inv_freq = 1.0 / (theta ** (torch.arange(0, head_dim, 2).float() / head_dim))
    if kind == "linear":
        inv_freq = inv_freq / number(params, "factor")
    if kind == "llama3":
        inv_freq = _llama3_inv_freq(inv_freq, params)
    return Rope(theta=theta, rotary_dim=head_dim, inv_freq=inv_freq)


def _llama3_inv_freq(inv_freq: Tensor, params: Mapping[str, Any]) -> Tensor:
    """Slow down low frequencies by ``factor``, keep high ones, blend in between.

    A frequency is low if its wave fits less than ``low_freq_factor`` times into the length the
    model was first trained on, high if it fits more than ``high_freq_factor`` times.
    The blend is linear in the number of waves. Source: Llama 3.1's reference code, apply_scaling.
    """
    low, high = number(params, "low_freq_factor"), number(params, "high_freq_factor")
    num_waves = number(params, "original_max_position_embeddings") * inv_freq / (2 * math.pi)
    keep = ((num_waves - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 - keep) * inv_freq / number(params, "factor") + keep * inv_freq
