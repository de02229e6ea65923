"""The gates on a real model: Transformers' text, and the same text whatever the batch."""

import pytest
import torch
from decode.prompts import PROMPTS
from decode.toys import smollm2_hf, smollm2_layers

import lmx
from lmx.decode import Sampling


def chat(text):
    return [{"role": "user", "content": text}]


def transformers_answer(text, max_new_tokens):
    tokenizer = smollm2_layers().tokenizer
    ids = tokenizer.apply_chat_template(
        chat(text), add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    out = smollm2_hf().generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
    )
    return out[0, ids.shape[1] :].tolist()


def check_greedy(texts, max_new_tokens):
    model = smollm2_layers()
    answers = lmx.generate(model, [chat(text) for text in texts], max_new_tokens=max_new_tokens)
    for text, answer in zip(texts, answers, strict=True):
        expected = transformers_answer(text, max_new_tokens)
        assert answer.tokens == expected, text
        assert answer.text == model.tokenizer.decode(expected, skip_special_tokens=True)


def test_greedy_text_is_that_of_transformers():
    check_greedy(PROMPTS[:4], 24)


@pytest.mark.long
def test_greedy_text_is_that_of_transformers_at_full_size():
    check_greedy(PROMPTS, 64)


def check_sampled(texts, max_new_tokens):
    model = smollm2_layers()
    samplings = [
        Sampling(temperature=0.7 + 0.1 * i, top_k=50 * (i % 2), top_p=0.95, seed=i)
        for i in range(len(texts))
    ]

    def answer(which):
        answers = lmx.generate(
            model,
            [chat(texts[i]) for i in which],
            sampling=[samplings[i] for i in which],
            max_new_tokens=max_new_tokens,
        )
        return [(g.tokens, g.text) for g in answers]

    batch = answer(range(len(texts)))
    assert batch == [answer([i])[0] for i in range(len(texts))]
    assert batch[:1] == answer([0])
    samplings[0] = Sampling(temperature=1.0, seed=99)
    assert batch[:1] != answer([0])


def test_sampled_text_is_the_same_twice_alone_and_in_a_batch():
    check_sampled(PROMPTS[:4], 8)


@pytest.mark.long
def test_sampled_text_is_the_same_twice_alone_and_in_a_batch_at_full_size():
    check_sampled(PROMPTS[:4], 64)


def test_stop_string_across_tokens_and_streaming():
    model, pieces = smollm2_layers(), []
    [free] = lmx.generate(model, [chat(PROMPTS[0])], max_new_tokens=16)
    words = free.text.split()
    stop = f"{words[2][-2:]} {words[3][:2]}"  # ends in the middle of a token
    [answer] = lmx.generate(
        model,
        [chat(PROMPTS[0])],
        max_new_tokens=16,
        stop=stop,
        stream=lambda _, p: pieces.append(p),
    )
    assert answer.finish_reason == "stop" and answer.text == free.text[: free.text.index(stop)]
    assert "".join(pieces) == answer.text and answer.tokens == free.tokens[: len(answer.tokens)]
