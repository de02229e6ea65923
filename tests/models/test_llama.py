"""The layers compute what Transformers computes; the config and the tensors must agree."""

import dataclasses

import pytest
import torch
from tiny_models import LLAMA3, TINY, layered_logits, tiny

from lmx.models import Llama, LlamaConfig, load
from lmx.protocols import Rope

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}


def random_state(config: LlamaConfig) -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape) for name, shape in config.tensors().items()}


def transformers_logits(model, tokens):
    with torch.inference_mode():
        return model(tokens[None]).logits[0]


@pytest.mark.parametrize("name", TINY)
def test_float32_logits_are_transformers(name, tokens):
    model = tiny(name)
    expected = transformers_logits(model, tokens)
    torch.testing.assert_close(layered_logits(load(model), tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama_llama3", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_logits_err_no_more_than_transformers(name, dtype, tokens):
    model = tiny(name).to(dtype)
    theirs = transformers_logits(model, tokens)
    ours = layered_logits(load(model), tokens)
    exact = transformers_logits(model.double(), tokens)
    assert ours.dtype == torch.float32
    bound = 2 * (theirs - exact).abs().max() + torch.finfo(dtype).eps * exact.abs().max()
    assert (ours - exact).abs().max() <= bound


@pytest.mark.parametrize("name", ["llama_llama3", "llama_linear", "mistral", "qwen2_window"])
def test_what_the_config_says_matters(name, tokens):
    """Each part of a config that a model could silently do without changes the logits."""
    model = load(tiny(name))
    before, config = layered_logits(model, tokens), model.config
    plain = 1.0 / 10000.0 ** (torch.arange(0, config.head_dim, 2) / config.head_dim)
    if name.startswith("llama"):
        model.position = dataclasses.replace(config.rope, inv_freq=plain)
    else:
        model.config = dataclasses.replace(config, windows=(-1, -1))
    assert (layered_logits(model, tokens) - before).abs().max() > 1e-3


def test_windows():
    assert load(tiny("llama")).config.windows == (-1, -1)
    assert load(tiny("mistral")).config.windows == (5, 5)
    assert load(tiny("qwen2")).config.windows == (-1, -1)
    assert load(tiny("qwen2_window")).config.windows == (-1, 7)
    old = CONFIG | {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 7}
    assert LlamaConfig.from_hf(old | {"max_window_layers": 1}).windows == (-1, -1)
    slides = {"use_sliding_window": True, "max_window_layers": 1}
    assert LlamaConfig.from_hf(old | slides).windows == (-1, 7)


def test_old_config_files_spell_rope_differently():
    scaling = {k: v for k, v in LLAMA3.items() if k != "rope_theta"}
    new = LlamaConfig.from_hf(CONFIG | {"rope_parameters": LLAMA3}).rope
    old = LlamaConfig.from_hf(CONFIG | {"rope_theta": 500.0, "rope_scaling": scaling}).rope
    assert torch.equal(old.inv_freq, new.inv_freq) and old.theta == new.theta == 500.0
    older = CONFIG | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    halved = LlamaConfig.from_hf(older).rope.inv_freq * 2
    assert torch.equal(halved, LlamaConfig.from_hf(CONFIG).rope.inv_freq)


def test_llama3_frequencies_by_hand():
    """Of 64 positions, a wave of 6.3 fits 10 times: kept; of 163 not once: slowed; of 32 twice."""
    params = LLAMA3 | {"rope_theta": (32 / (2 * torch.pi)) ** 3}
    frequencies = torch.tensor([1.0, 2 * torch.pi / 32, (2 * torch.pi / 32) ** 2])
    blend = (2 - 1) / (4 - 1)  # 2 waves, between low_freq_factor and high_freq_factor
    expected = frequencies * torch.tensor([1.0, blend + (1 - blend) / 8, 1 / 8])
    config = LlamaConfig.from_hf(CONFIG | {"head_dim": 6, "rope_parameters": params})
    torch.testing.assert_close(config.rope.inv_freq, expected)


def test_rope_angles():
    rope = Rope(theta=1e4, rotary_dim=4, inv_freq=torch.tensor([1.0, 0.5]), attention_factor=2.0)
    cos, sin = rope.cos_sin(torch.tensor([0, 3], dtype=torch.int32))
    assert cos.dtype == sin.dtype == torch.float32
    torch.testing.assert_close(cos, 2 * torch.tensor([[0.0, 0.0], [3.0, 1.5]]).cos())
    torch.testing.assert_close(sin, 2 * torch.tensor([[0.0, 0.0], [3.0, 1.5]]).sin())


def test_the_protocol_is_kept(tokens):
    model = load(tiny("qwen2"))
    assert (model.num_layers, model.num_heads, model.num_kv_heads, model.head_dim) == (2, 4, 2, 16)
    assert (model.vocab_size, model.max_positions, model.eos_ids) == (128, 256, (1, 2))
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert model.tokenizer is None and model.softmax_scale == 0.25
    hidden = model.embed(tokens, torch.arange(len(tokens), dtype=torch.int32))
    before = hidden.clone()
    shapes = []

    def attend(i, query, key, value):
        shapes.append((i, query.shape, key.shape, value.shape))
        return torch.zeros_like(query)

    after = model.mlp(1, model.attn(1, hidden, torch.arange(100), attend))
    assert shapes == [(1, (100, 4, 16), (100, 2, 16), (100, 2, 16))]
    assert after.shape == hidden.shape and torch.equal(hidden, before)
    assert model.norm_head(hidden[:0]).shape == (0, 128)


def test_no_rows():
    model = load(tiny("qwen3"))
    hidden = model.embed(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int32))
    hidden = model.attn(0, hidden, torch.empty(0), lambda i, query, key, value: query)
    assert model.norm_head(model.mlp(0, hidden)).shape == (0, 128)


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen2"])
def test_weights_are_shared_with_transformers(name):
    theirs = tiny(name)
    ours = load(theirs)
    linear = ours.weights(1, "k_proj")
    attention = theirs.model.layers[1].self_attn
    assert linear.format == "dense"
    assert linear.weight.data_ptr() == attention.k_proj.weight.data_ptr()
    assert (linear.bias is None) == (attention.k_proj.bias is None)
    assert ours.weights(0, "down_proj").weight.shape == (64, 96)
    with pytest.raises(ValueError, match=r"no linear layer 'lm_head'; there are: q_proj, k_proj"):
        ours.weights(0, "lm_head")


def test_another_dtype_is_a_copy(tokens):
    theirs = tiny("llama_tied")
    ours = load(theirs, dtype=torch.bfloat16)
    assert ours.dtype == torch.bfloat16 and theirs.dtype == torch.float32
    same = layered_logits(load(theirs.bfloat16()), tokens)
    assert torch.equal(layered_logits(ours, tokens), same)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"architectures": ["GPT2LMHeadModel"]}, r"GPT2LMHeadModel is not supported; .*Qwen3ForC"),
        ({"architectures": None}, r"model class None is not supported"),
        ({"hidden_act": "gelu"}, r"hidden_act='gelu' is not supported; supported: silu"),
        ({"quantization_config": {"quant_method": "fp8"}}, r"quantised checkpoints are not supp"),
        ({"hidden_size": None}, r"expected hidden_size to be a positive integer, got None"),
        ({"vocab_size": "128"}, r"expected vocab_size to be a positive integer, got '128'"),
        ({"num_hidden_layers": 0}, r"expected num_hidden_layers to be a positive integer, got 0"),
        ({"num_key_value_heads": 3}, r"num_attention_heads=4 is not a multiple of num_key_value_"),
        ({"head_dim": 7}, r"expected an even head_dim, got 7"),
        ({"rms_norm_eps": None}, r"expected rms_norm_eps to be a positive number, got None"),
        (
            {"rope_parameters": {"rope_type": "yarn"}},
            r"'yarn' is not supported; supported: default",
        ),
        ({"rope_scaling": {"type": "dynamic"}}, r"rotary scaling 'dynamic' is not supported"),
        (
            {"rope_scaling": {"type": "linear"}},
            r"expected factor to be a positive number, got None",
        ),
    ],
)
def test_bad_configs(change, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig.from_hf(CONFIG | change)


def test_bad_layer_types():
    config = CONFIG | {"architectures": ["Qwen3ForCausalLM"], "sliding_window": 4}
    with pytest.raises(ValueError, match=r"expected layer_types to be 2 of full_attention and"):
        LlamaConfig.from_hf(config | {"layer_types": ["full_attention"]})
    with pytest.raises(ValueError, match=r"got \['full_attention', 'chunked_attention'\]"):
        LlamaConfig.from_hf(config | {"layer_types": ["full_attention", "chunked_attention"]})


def test_bad_tensors():
    config = LlamaConfig.from_hf(CONFIG)
    state = random_state(config)
    name = "model.layers.1.mlp.up_proj.weight"
    Llama(config, state | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    with pytest.raises(ValueError, match=rf"lacks the tensor {name} of shape \[96, 64\]"):
        Llama(config, {key: value for key, value in state.items() if key != name})
    with pytest.raises(ValueError, match=r"lacks the tensor model.embed_tokens.weight"):
        Llama(config, {})
    with pytest.raises(ValueError, match=rf"{name}: expected shape \[96, 64\], got \[64, 96\]"):
        Llama(config, state | {name: torch.zeros(64, 96)})
    with pytest.raises(ValueError, match=rf"{name}: expected torch.float32 on cpu .* got .*16"):
        Llama(config, state | {name: torch.zeros(96, 64, dtype=torch.bfloat16)})
    with pytest.raises(ValueError, match=r"no use for: \['model.layers.0.mlp.up_proj.bias'\]"):
        Llama(config, state | {"model.layers.0.mlp.up_proj.bias": torch.zeros(96)})
