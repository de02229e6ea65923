"""SmolLM2 out of its package: the model and its tokenizer."""

import pytest
import torch
from tiny_models import layered_logits

from lmx.models import load, smollm2

PROMPT = "The capital of France is Paris. The capital of Italy is"


def test_shape(smollm2_model):
    model = smollm2_model
    assert (model.num_layers, model.num_heads, model.num_kv_heads, model.head_dim) == (30, 9, 3, 64)
    assert (model.vocab_size, model.max_positions, model.eos_ids) == (49152, 8192, (2,))
    assert model.position.theta == 100000.0 and model.position.rotary_dim == 64
    assert model.config.tied and model.dtype == torch.float32


def test_logits_are_transformers(smollm2_model, smollm2_folder):
    from transformers import LlamaForCausalLM

    tokens = torch.tensor(smollm2_model.tokenizer.encode(PROMPT))
    ours = layered_logits(smollm2_model, tokens)
    theirs = LlamaForCausalLM.from_pretrained(
        smollm2_folder, local_files_only=True, attn_implementation="eager"
    )
    with torch.inference_mode():
        expected = theirs(tokens[None]).logits[0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert smollm2_model.tokenizer.decode(ours[-1].argmax()) == " Rome"


TEXTS = [
    "",
    "Hello, world!",
    "  two blanks\n\n\tand a tab ",
    "a1234567890 3.14  3   42",
    "don't I'll WE'RE",
    "\u65e5\u672c\u8a9e \u00e9 e\u0301 \ufb01\u00bd\u2460 \u202e",
    "emoji \U0001f389 \U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\x00\x01\x7f\xff\ufffd",
    "<|im_start|>user\nhi<|im_end|>",
    "x" * 1000,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_tokenizer_round_trip(smollm2_model, text):
    tokenizer = smollm2_model.tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokenizer(smollm2_model):
    tokenizer = smollm2_model.tokenizer
    assert tokenizer.encode("Hello world") == [19556, 905]
    assert tokenizer.encode("<|im_start|>") == [1] and tokenizer.encode("<|im_end|>") == [2]
    assert tokenizer.eos_token_id == 2 and tokenizer.model_max_length == 8192
    # Digits stand alone and take no blank with them: two blanks before one are one token.
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("x  31")) == [
        "x",
        "\u0120\u0120",
        "3",
        "1",
    ]
    assert tokenizer.decode([19556, 2], skip_special_tokens=True) == "Hello"


def test_chat_template(smollm2_model):
    def render(*messages):
        return smollm2_model.tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            tokenize=False,
            add_generation_prompt=True,
        )

    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    turn = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert render(("user", "hi")) == f"<|im_start|>system\n{system}<|im_end|>\n{turn}"
    assert render(("system", "Be terse."), ("user", "hi")) == (
        f"<|im_start|>system\nBe terse.<|im_end|>\n{turn}"
    )


@pytest.mark.long
def test_cache_holds_what_the_file_says(smollm2_model):
    """Against the blocks of the file, dequantised and put in order without Transformers."""
    import gguf

    tensors = {t.name: t for t in gguf.GGUFReader(smollm2.packaged_file()).tensors}

    def dequantised(name):
        tensor = tensors[name]
        return torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))

    for i in range(30):
        for name, ours in [("attn_v", "v_proj"), ("ffn_down", "down_proj"), ("ffn_up", "up_proj")]:
            expected = dequantised(f"blk.{i}.{name}.weight")
            assert torch.equal(smollm2_model.weights(i, ours).weight, expected)
        for name, ours in [("attn_q", "q_proj"), ("attn_k", "k_proj")]:
            pairs = dequantised(f"blk.{i}.{name}.weight").view(-1, 32, 2, 576)
            expected = pairs.transpose(1, 2).reshape(-1, 576)
            assert torch.equal(smollm2_model.weights(i, ours).weight, expected)


@pytest.mark.long
def test_bfloat16_of_its_own(smollm2_model, tmp_path):
    model = load("smollm2", dtype=torch.bfloat16, cache_dir=tmp_path)
    expected = smollm2_model.weights(7, "o_proj").weight.bfloat16()
    assert torch.equal(model.weights(7, "o_proj").weight, expected)


def test_the_file_as_it_is_has_the_bits_of_bfloat16(smollm2_folder):
    packed, plain = load("smollm2", weights="file"), load(smollm2_folder, dtype=torch.bfloat16)
    assert packed.weights(29, "q_proj").format == "q4_1" and packed.eos_ids == plain.eos_ids == (2,)
    assert torch.equal(packed.position.inv_freq, plain.position.inv_freq)
    tokens = torch.tensor(packed.tokenizer.encode(PROMPT))
    assert tokens.tolist() == plain.tokenizer.encode(PROMPT)
    assert packed.tokenizer.chat_template == plain.tokenizer.chat_template
    assert packed.tokenizer.model_max_length == 8192
    logits = layered_logits(packed, tokens)
    assert torch.equal(logits, layered_logits(plain, tokens))
    assert packed.tokenizer.decode(logits[-1].argmax()) == " Rome"
    assert 90 < packed.bytes_per_token / 2**20 < 94  # of 256.5 in bfloat16


def test_int8_answers_as_well(smollm2_folder):
    model = load(smollm2_folder, weights="int8")
    logits = layered_logits(model, torch.tensor(model.tokenizer.encode(PROMPT)))
    assert model.tokenizer.decode(logits[-1].argmax()) == " Rome"
    assert 125 < model.bytes_per_token / 2**20 < 132
