"""OPT (Zhang et al. 2022, arXiv 2205.01068) seen as layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .config import choice, count, eos_ids, model_class, refuse_quantised, switch
from .learned import ACTIVATIONS, LearnedConfig, LearnedDecoder

SUPPORTED = ("OPTForCausalLM",)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptConfig(LearnedConfig):
    """The sizes of an OPT; the smaller ones norm first, OPT-350m after the residual."""

    table: ClassVar[str] = "model.decoder.embed_tokens.weight"
    layer: ClassVar[str] = "model.decoder.layers"
    positions: ClassVar[str] = "model.decoder.embed_positions.weight"
    last_norm: ClassVar[str] = "model.decoder.final_layer_norm"
    attn_norm: ClassVar[str] = "self_attn_layer_norm"
    mlp_norm: ClassVar[str] = "final_layer_norm"
    qkv: ClassVar[tuple[str, ...]] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: ClassVar[str] = "self_attn.out_proj"
    fc1: ClassVar[str] = "fc1"
    fc2: ClassVar[str] = "fc2"
    position_offset: ClassVar[int] = 2

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "OptConfig":
        """Read what ``config.json`` or ``PreTrainedConfig.to_dict()`` holds.

        Raises:
            ValueError: an entry asks for what is not supported, is missing or of the wrong kind;
                the message names it.
        """
        model_class(config, SUPPORTED)
        refuse_quantised(config)
        hidden, num_heads = count(config, "hidden_size"), count(config, "num_attention_heads")
        if hidden % num_heads:
            raise ValueError(f"hidden_size={hidden} is not a multiple of {num_heads} heads")
        if count(config, "word_embed_proj_dim", hidden) != hidden:
            raise ValueError(
                f"word_embed_proj_dim={config['word_embed_proj_dim']} is not supported; "
                f"supported: hidden_size, which is {hidden}"
            )
        switch(config, "layer_norm_elementwise_affine", True)
        norm_first = bool(config.get("do_layer_norm_before", True))
        return cls(
            hidden_size=hidden,
            inner_size=count(config, "ffn_dim"),
            num_layers=count(config, "num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=hidden // num_heads,
            vocab_size=count(config, "vocab_size"),
            max_positions=count(config, "max_position_embeddings"),
            norm_eps=1e-5,  # torch's default, which the config does not change
            tied=bool(config.get("tie_word_embeddings", True)),
            eos_ids=eos_ids(config.get("eos_token_id")),
            activation=choice(config, "activation_function", "relu", ACTIVATIONS),
            softmax_scale=(hidden // num_heads) ** -0.5,
            bias=bool(config.get("enable_bias", True)),
            norm_first=norm_first,
            has_last_norm=norm_first and not config.get("_remove_final_layer_norm"),
        )

    def adapt(self, name: str, tensor: Tensor) -> tuple[str, Tensor]:
        """Return a tensor under its full name: the bare decoder's checkpoints lack "model."."""
        return (f"model.{name}" if name.startswith("decoder.") else name), tensor


class Opt(LearnedDecoder):
    """A ``LayeredModel`` over the tensors of a checkpoint."""
