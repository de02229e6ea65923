"""Known tokens in chains of 16 against the same tokens one by one: the same argmax, on SmolLM2.

What a pass computes differs by rounding at most, so an argmax may differ only where two logits are
that close. At full size (`make test-long`, 20 prompts of 64 tokens) the figures are printed.
"""

import pytest
import torch
from decode.prompts import PROMPTS
from decode.toys import smollm2_bf16, smollm2_layers

import lmx
from lmx.decode.forward import Runner, chains, chunk_end
from lmx.decode.pages import new_cache, pages_for

CHAIN = 16


class Text:
    """A prompt in pages, and behind it tokens in passes of any size."""

    def __init__(self, model, prompt, num_tokens):
        self.runner = Runner(model, new_cache(model, 1, pages_for(len(prompt) + num_tokens)))
        self.handle = self.runner.cache.create()
        self.prompt_length = len(prompt)
        while (start := self.runner.cache.length(self.handle)) < len(prompt):
            self.run(prompt[start : chunk_end(start, len(prompt))])

    def run(self, tokens):
        """Run tokens as one chain; return the logits that follow each of them."""
        cache, model = self.runner.cache, self.runner.model
        start = cache.length(self.handle)
        fresh = self.runner.forward(chains([(0, start, tokens)], 1, start, model.device))
        self.runner.commit(fresh, cache.append([self.handle], [len(tokens)]))
        return model.norm_head(fresh.hidden)

    def score(self, tokens, size):
        """Return the logits behind each token, run in chains of ``size``."""
        self.runner.cache.truncate(self.handle, self.prompt_length)
        parts = [tokens[i : i + size] for i in range(0, len(tokens), size)]
        return torch.cat([self.run(part) for part in parts])


@torch.inference_mode()
def compare(model, tokenizer, texts, num_tokens):
    """Return the gaps between the two best logits where the argmax differs, and the largest
    difference of any logit."""
    gaps, largest = [], 0.0
    for text in texts:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        no_end = lmx.Sampling(logit_bias=dict.fromkeys(model.eos_ids, -torch.inf))
        [answer] = lmx.generate(model, [prompt], max_new_tokens=num_tokens, sampling=no_end)
        behind = Text(model, prompt, num_tokens)
        singly, chained = (behind.score(answer.tokens, size) for size in (1, CHAIN))
        largest = max(largest, float((singly - chained).abs().max()))
        best = singly.topk(2).values
        differs = singly.argmax(-1) != chained.argmax(-1)
        gaps += (best[:, 0] - best[:, 1])[differs].tolist()
    return gaps, largest


def check(model, num_prompts, num_tokens, most):
    gaps, largest = compare(model, smollm2_layers().tokenizer, PROMPTS[:num_prompts], num_tokens)
    print(
        f"\n{model.dtype}: {len(gaps)} of {num_prompts * num_tokens} argmax differ, "
        f"gaps {[round(gap, 5) for gap in gaps]}, largest difference of a logit {largest:.3g}"
    )
    assert len(gaps) <= most
    assert all(gap <= 2 * largest for gap in gaps)


MODELS = {"float32": (smollm2_layers, 0), "bfloat16": (smollm2_bf16, 5)}


@pytest.mark.parametrize("dtype", MODELS)
def test_chains(dtype):
    model, most = MODELS[dtype]
    check(model(), 1, 2 * CHAIN, most)


@pytest.mark.long
@pytest.mark.parametrize("dtype", MODELS)
def test_chains_at_full_size(dtype):
    model, most = MODELS[dtype]
    check(model(), 20, 64, most)
