"""The shape of a model of the Llama family, read from a Hugging Face config."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import Rope

SUPPORTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """What the members of the family differ in: sizes, biases, norms and windows."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    norm_eps: float
    rope: Rope
    windows: tuple[int, ...]  # per layer; -1 = all positions
    qkv_bias: bool
    out_bias: bool  # of o_proj
    mlp_bias: bool
    qk_norm: bool  # RMSNorm over each query and key head, before rotation
    tied: bool  # lm_head is the embedding table
    eos_ids: tuple[int, ...]

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "LlamaConfig":
        """Read what ``config.json`` or ``PreTrainedConfig.to_dict()`` holds.

        Raises:
            ValueError: the class, the rotary embedding or the activation is not supported, or
                an entry is missing or of the wrong kind; the message names it.
        """
        architecture = (config.get("architectures") or [None])[0]
        if architecture not in SUPPORTED:
            raise ValueError(
                f"model class {architecture} is not supported; supported: {', '.join(SUPPORTED)}"
            )
        if config.get("quantization_config"):
            raise ValueError("quantised checkpoints are not supported; supported: plain floats")
        if config.get("hidden_act", "silu") != "silu":
            raise ValueError(
                f"hidden_act={config['hidden_act']!r} is not supported; supported: silu"
            )
        num_heads = _count(config, "num_attention_heads")
        num_kv_heads = _count(config, "num_key_value_heads", num_heads)
        if num_heads % num_kv_heads:
            raise ValueError(
                f"num_attention_heads={num_heads} is not a multiple of "
                f"num_key_value_heads={num_kv_heads}"
            )
        qwen2, qwen3 = architecture == "Qwen2ForCausalLM", architecture == "Qwen3ForCausalLM"
        has_bias = architecture != "MistralForCausalLM" and bool(config.get("attention_bias"))
        default_head_dim = 128 if qwen3 else _count(config, "hidden_size") // num_heads
        head_dim = _count(config, "head_dim", default_head_dim)
        return cls(
            hidden_size=_count(config, "hidden_size"),
            intermediate_size=_count(config, "intermediate_size"),
            num_layers=_count(config, "num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            vocab_size=_count(config, "vocab_size"),
            max_positions=_count(config, "max_position_embeddings"),
            norm_eps=_number(config, "rms_norm_eps"),
            rope=_rope(config, head_dim),
            windows=_windows(config, architecture, _count(config, "num_hidden_layers")),
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

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the model, by its name in a checkpoint."""
        table = (self.vocab_size, self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": table}
        for i in range(self.num_layers):
            for name, (num_out, num_in, bias) in self.linears().items():
                shapes[f"model.layers.{i}.{name}.weight"] = (num_out, num_in)
                if bias:
                    shapes[f"model.layers.{i}.{name}.bias"] = (num_out,)
            for name, width in self.norms().items():
                shapes[f"model.layers.{i}.{name}.weight"] = (width,)
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tied:
            shapes["lm_head.weight"] = table
        return shapes

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Return the memory that the weights take in ``dtype``."""
        return sum(math.prod(shape) for shape in self.tensors().values()) * dtype.itemsize


def eos_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """Read an ``eos_token_id``, which Hugging Face writes as a number, a list or nothing."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"config: expected {key} to be a positive integer, got {value!r}")
    return value


def _number(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"config: expected {key} to be a positive number, got {value!r}")
    return float(value)


def _windows(config: Mapping[str, Any], architecture: str, num_layers: int) -> tuple[int, ...]:
    if architecture == "LlamaForCausalLM" or config.get("sliding_window", 4096) is None:
        return (-1,) * num_layers
    window = _count(config, "sliding_window", 4096)
    if architecture == "MistralForCausalLM":
        return (window,) * num_layers
    kinds = config.get("layer_types")
    if kinds is None:  # Qwen before Transformers 4.53: the layers from a bound on slide
        slides = bool(config.get("use_sliding_window"))
        first = _count(config, "max_window_layers", 28) if slides else num_layers
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
        inv_freq = inv_freq / _number(params, "factor")
    if kind == "llama3":
        inv_freq = _llama3_inv_freq(inv_freq, params)
    return Rope(theta=theta, rotary_dim=head_dim, inv_freq=inv_freq)


def _llama3_inv_freq(inv_freq: Tensor, params: Mapping[str, Any]) -> Tensor:
    """Slow down low frequencies by ``factor``, keep high ones, blend in between.

    A frequency is low if its wave fits less than ``low_freq_factor`` times into the length the
    model was first trained on, high if it fits more than ``high_freq_factor`` times.
    The blend is linear in the number of waves. Source: Llama 3.1's reference code, apply_scaling.
    """
    low, high = _number(params, "low_freq_factor"), _number(params, "high_freq_factor")
    num_waves = _number(params, "original_max_position_embeddings") * inv_freq / (2 * math.pi)
    keep = ((num_waves - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 - keep) * inv_freq / _number(params, "factor") + keep * inv_freq
