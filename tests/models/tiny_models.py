"""Random Transformers models of two layers, and a forward pass over layers to compare them with."""

import pytest
import torch
from torch import Tensor

from lmx.protocols import LayeredModel, Rope

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-3,  # large, so that a wrong one shows
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,  # low, so that all three ranges of frequencies occur
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# name: (family, what differs from the family's defaults)
TINY = {
    "llama": ("Llama", {}),
    "llama_biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "llama_tied": ("Llama", {"tie_word_embeddings": True}),
    "llama_linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "llama_llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "mistral": ("Mistral", {"sliding_window": 5}),
    "mistral_full": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2_window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
}
OPT_SIZES = {
    "hidden_size": 64,
    "word_embed_proj_dim": 64,
    "ffn_dim": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "pad_token_id": None,
}
GPT2_SIZES = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 128, "n_positions": 256}
TINY_LEARNED = {
    "opt": ("OPT", OPT_SIZES),
    "opt_norm_after": ("OPT", OPT_SIZES | {"do_layer_norm_before": False}),
    "opt_untied": (
        "OPT",
        OPT_SIZES | {"activation_function": "gelu", "tie_word_embeddings": False},
    ),
    "opt_no_bias": ("OPT", OPT_SIZES | {"enable_bias": False}),
    "gpt2": ("GPT2", GPT2_SIZES),
    "gpt2_options": (
        "GPT2",
        GPT2_SIZES
        | {
            "n_inner": 96,
            "activation_function": "relu",
            "scale_attn_weights": False,
            "layer_norm_epsilon": 1e-2,
            "tie_word_embeddings": False,
        },
    ),
}


def tiny(name: str):
    """A random Transformers model of two layers; no weight is left at 0 or 1."""
    family, options = TINY_LEARNED.get(name) or TINY[name]
    sizes = {} if name in TINY_LEARNED else SIZES
    config = getattr(transformers, f"{family}Config")(
        **sizes, **options, attn_implementation="eager", bos_token_id=None, eos_token_id=[1, 2]
    )
    torch.manual_seed(0)
    head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    model = getattr(transformers, f"{family}{head}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def layered_logits(model: LayeredModel, tokens: Tensor) -> Tensor:
    """Logits of one sequence, its attention written out, in the order Transformers computes."""
    positions = torch.arange(len(tokens), dtype=torch.int32)
    distance = positions[:, None] - positions

    def rotate(x: Tensor) -> Tensor:
        if not isinstance(model.position, Rope):
            return x
        cos, sin = (
            t.to(x.dtype)[:, None].repeat(1, 1, 2) for t in model.position.cos_sin(positions)
        )
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    def attend(i: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        group = model.num_heads // model.num_kv_heads
        query, key = rotate(query), rotate(key).repeat_interleave(group, dim=1)
        value = value.repeat_interleave(group, dim=1)
        scores = torch.einsum("qhd,khd->hqk", query, key) * model.softmax_scale
        window = model.window(i)
        hidden = (distance < 0) | ((distance >= window) if window >= 0 else False)
        scores = scores.masked_fill(hidden, -torch.inf)
        probs = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        return torch.einsum("hqk,khd->qhd", probs, value)

    with torch.inference_mode():
        hidden = model.embed(tokens, positions)
        for i in range(model.num_layers):
            hidden = model.attn(i, hidden, positions, attend)
            hidden = model.mlp(i, hidden)
        return model.norm_head(hidden)
