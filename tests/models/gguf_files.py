"""GGUF files of tiny models."""

import numpy as np

METADATA = [
    ("llama.context_length", 256),
    ("llama.embedding_length", 64),
    ("llama.block_count", 2),
    ("llama.feed_forward_length", 96),
    ("llama.rope.freq_base", 10000.0),
    ("llama.rope.dimension_count", 16),
    ("llama.attention.head_count", 4),
    ("llama.attention.head_count_kv", 2),
    ("llama.attention.layer_norm_rms_epsilon", 1e-3),
    ("llama.vocab_size", 128),
]


def write_gguf(path, tensors, architecture="llama", metadata=(), kinds=None):
    """A GGUF file with float32 tensors, but for ``kinds``, and a vocabulary of 128 letters."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    for key, value in metadata:
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        (writer.add_string if isinstance(value, str) else add)(key, value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([chr(0x100 + i) for i in range(126)] + ["\u0120", "\u0120\u0120"])
    writer.add_token_merges(["\u0120 \u0120"])
    for name, shape in tensors:
        value = shape if isinstance(shape, np.ndarray) else np.zeros(shape, np.float32)
        kind = (kinds or {}).get(name)
        if kind is None:
            writer.add_tensor(name, value)
        else:
            kind = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_tensors(model):
    """The tensors of a tied Llama as GGUF has them: rotary pairs of q and k lie side by side."""
    for name, value in model.state_dict().items():
        if name.startswith("model.layers."):
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                value = value.view(-1, 2, 8, 64).transpose(1, 2).reshape(value.shape)
            yield f"blk.{layer}.{GGUF_NAMES[part]}.weight", value.contiguous().numpy()
        elif name == "model.embed_tokens.weight":
            yield "token_embd.weight", value.numpy()
        elif name == "model.norm.weight":
            yield "output_norm.weight", value.numpy()
