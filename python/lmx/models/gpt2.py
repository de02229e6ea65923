"""GPT-2 (Radford et al. 2019, Language Models are Unsupervised Multitask Learners) as layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..protocols import Linear
from .config import choice, count, eos_ids, model_class, number, refuse_quantised, switch
from .learned import ACTIVATIONS, LearnedConfig, LearnedDecoder

SUPPORTED = ("GPT2LMHeadModel",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpt2Config(LearnedConfig):
    """The sizes of a GPT-2."""

    table: ClassVar[str] = "transformer.wte.weight"
    layer: ClassVar[str] = "transformer.h"
    positions: ClassVar[str] = "transformer.wpe.weight"
    last_norm: ClassVar[str] = "transformer.ln_f"
    attn_norm: ClassVar[str] = "ln_1"
    mlp_norm: ClassVar[str] = "ln_2"
    qkv: ClassVar[tuple[str, ...]] = ("attn.c_attn",)
    out: ClassVar[str] = "attn.c_proj"
    fc1: ClassVar[str] = "mlp.c_fc"
    fc2: ClassVar[str] = "mlp.c_proj"
    is_adapted: ClassVar[bool] = True

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "Gpt2Config":
        """Read what ``config.json`` or ``PreTrainedConfig.to_dict()`` holds.

        Raises:
            ValueError: an entry asks for what is not supported, is missing or of the wrong kind;
                the message names it.
        """
        model_class(config, SUPPORTED)
        refuse_quantised(config)
        switch(config, "scale_attn_by_inverse_layer_idx", False)
        switch(config, "add_cross_attention", False)
        hidden, num_heads = count(config, "n_embd"), count(config, "n_head")
        if hidden % num_heads:
            raise ValueError(f"n_embd={hidden} is not a multiple of n_head={num_heads}")
        is_scaled = bool(config.get("scale_attn_weights", True))
        return cls(
            hidden_size=hidden,
            inner_size=count(config, "n_inner", 4 * hidden),
            num_layers=count(config, "n_layer"),
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=hidden // num_heads,
            vocab_size=count(config, "vocab_size"),
            max_positions=count(config, "n_positions"),
            norm_eps=number(config, "layer_norm_epsilon"),
            tied=bool(config.get("tie_word_embeddings", True)),
            eos_ids=eos_ids(config.get("eos_token_id")),
            activation=choice(config, "activation_function", "gelu_new", ACTIVATIONS),
            softmax_scale=(hidden // num_heads) ** -0.5 if is_scaled else 1.0,
        )

    def adapt(self, name: str, tensor: Tensor) -> tuple[str, Tensor]:
        """Return a tensor under its full name; matrices of layers are stored ``[in, out]``."""
        if name.split(".")[0] in ("wte", "wpe", "h", "ln_f"):  # of the model without a head
            name = f"transformer.{name}"
        is_matrix = name.startswith(f"{self.layer}.") and tensor.dim() == 2
        return name, tensor.t().contiguous() if is_matrix else tensor

    def is_redundant(self, name: str) -> bool:
        """Return whether it is a tied head, or the causal mask of old checkpoints."""
        is_mask = name.endswith((".attn.bias", ".attn.masked_bias"))
        return is_mask or (self.tied and name == self.head)


class Gpt2(LearnedDecoder):
    """A ``LayeredModel`` over the tensors of a checkpoint, matrices of layers transposed."""

    def weights(self, i: int, name: str) -> Linear:
        """Return a linear layer of layer ``i``; q_proj, k_proj and v_proj are rows of c_attn.

        Raises:
            ValueError: no linear layer has that name; the message lists them.
        """
        parts = ("q_proj", "k_proj", "v_proj")
        if name not in parts:
            return super().weights(i, name)
        whole, part = super().weights(i, "c_attn"), parts.index(name)
        rows = slice(part * self.config.hidden_size, (part + 1) * self.config.hidden_size)
        return Linear(
            whole.weight[rows],
            whole.bias[rows] if whole.bias is not None else None,
            whole.format,
            whole.scale[rows] if whole.scale is not None else None,
        )
