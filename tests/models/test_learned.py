"""OPT and GPT-2: the layers compute what Transformers computes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TINY_LEARNED, layered_logits, tiny

import lmx
from lmx.models import Gpt2Config, OptConfig, load
from lmx.protocols import Learned

PROMPTS = [[5, 17, 99], [3] * 20, list(range(60, 100))]


@pytest.mark.parametrize("name", TINY_LEARNED)
def test_float32_logits_are_transformers(name, tokens):
    model = tiny(name)
    with torch.inference_mode():
        expected = model(tokens[None]).logits[0]
    torch.testing.assert_close(layered_logits(load(model), tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["opt", "opt_norm_after", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_logits_err_no_more_than_transformers(name, dtype, tokens):
    model = tiny(name).to(dtype)
    with torch.inference_mode():
        theirs = model(tokens[None]).logits[0]
        ours = layered_logits(load(model), tokens)
        exact = model.double()(tokens[None]).logits[0]
    assert ours.dtype == torch.float32
    bound = 2 * (theirs - exact).abs().max() + torch.finfo(dtype).eps * exact.abs().max()
    assert (ours - exact).abs().max() <= bound


@pytest.mark.parametrize("name", ["opt", "opt_norm_after", "gpt2"])
def test_greedy_text_is_that_of_transformers(name):
    theirs = tiny(name)
    answers = lmx.generate(load(theirs), PROMPTS, max_new_tokens=24)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([prompt])
        out = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        assert answer.tokens == out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_scores(name, tokens):
    model = tiny(name)
    with torch.inference_mode():
        logprobs = model(tokens[None]).logits[0].log_softmax(-1)
    expected = logprobs[:-1].gather(1, tokens[1:, None])[:, 0]
    [scores] = lmx.score(load(model), [tokens.tolist()])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_positions_end(name):
    """The table of positions has no row for a 257th token."""
    model = load(tiny(name))
    assert isinstance(model.position, Learned) and model.max_positions == 256
    [full, over] = lmx.generate(model, [[7] * 255, [7] * 257], max_new_tokens=9)
    assert len(full.tokens) <= 2 and full.finish_reason in ("length", "eos")
    assert over.error == "prompt: expected at most 256 tokens, got 257"


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_folder(name, tokens, tmp_path):
    model = tiny(name)
    model.save_pretrained(tmp_path)
    expected = layered_logits(load(model), tokens)
    assert torch.equal(layered_logits(load(tmp_path), tokens), expected)
    path = tmp_path / "model.safetensors"
    prefix = "transformer." if name == "gpt2" else "model."  # the models without heads lack it
    bare = {key.removeprefix(prefix): value for key, value in load_file(path).items()}
    bare.pop("lm_head.weight", None)
    if name == "gpt2":  # as old checkpoints do
        bare["h.0.attn.bias"] = torch.ones(1, 1, 256, 256, dtype=torch.uint8)
    save_file(bare, path)
    assert torch.equal(layered_logits(load(tmp_path), tokens), expected)


def test_bytes_per_token():
    model = load(tiny("gpt2"))
    assert model.bytes_per_token == model.config.num_bytes(torch.float32) - 256 * 64 * 4
    model = load(tiny("opt_untied"))  # its table is looked up only, as are positions
    assert model.bytes_per_token == model.config.num_bytes(torch.float32) - (258 + 128) * 64 * 4


def test_weights():
    theirs = tiny("gpt2")
    ours = load(theirs)
    attention = theirs.transformer.h[1].attn
    whole = ours.weights(1, "c_attn")
    assert torch.equal(whole.weight, attention.c_attn.weight.t())
    for i, name in enumerate(("q_proj", "k_proj", "v_proj")):
        part = ours.weights(1, name)
        assert part.weight.data_ptr() == whole.weight[64 * i :].data_ptr()
        assert torch.equal(part.bias, attention.c_attn.bias[64 * i : 64 * i + 64])
    assert ours.weights(0, "attn.c_proj").weight.shape == (64, 64)
    assert ours.weights(0, "mlp.c_proj").weight.shape == (64, 256)
    with pytest.raises(ValueError, match=r"no linear layer 'c_proj'; there are: c_attn, attn.c_p"):
        ours.weights(0, "c_proj")
    theirs = tiny("opt")
    fc1 = load(theirs).weights(1, "fc1")
    assert fc1.weight.data_ptr() == theirs.model.decoder.layers[1].fc1.weight.data_ptr()


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("opt", {"word_embed_proj_dim": 32}, r"word_embed_proj_dim=32 is not supported; .* is 64"),
        ("opt", {"activation_function": "swish2"}, r"activation_function='swish2' is not support"),
        ("opt", {"layer_norm_elementwise_affine": False}, r"layer_norm_elementwise_affine=False"),
        ("opt", {"ffn_dim": 0}, r"expected ffn_dim to be a positive integer, got 0"),
        ("opt", {"num_attention_heads": 5}, r"hidden_size=64 is not a multiple of 5 heads"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, r"inverse_layer_idx=True is not supp"),
        ("gpt2", {"add_cross_attention": True}, r"add_cross_attention=True is not supported; sup"),
        ("gpt2", {"n_head": 5}, r"n_embd=64 is not a multiple of n_head=5"),
        ("gpt2", {"layer_norm_epsilon": None}, r"layer_norm_epsilon to be a positive number, got"),
        ("gpt2", {"quantization_config": {"quant_method": "awq"}}, r"quantised checkpoints are n"),
        ("gpt2", {"architectures": ["GPT2Model"]}, r"GPT2Model is not supported; .*: GPT2LMHeadM"),
    ],
)
def test_bad_configs(name, change, message):
    model = tiny(name)
    entries = model.config.to_dict() | {"architectures": [type(model).__name__]} | change
    with pytest.raises(ValueError, match=message):
        (OptConfig if name == "opt" else Gpt2Config).from_hf(entries)


def test_missing_tensors(tmp_path):
    model = tiny("opt")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 300}))
    with pytest.raises(ValueError, match=r"embed_positions.weight: expected shape \[302, 64\]"):
        load(tmp_path)
