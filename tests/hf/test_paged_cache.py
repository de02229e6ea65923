"""Transformers' own loops over lmx's attention and pages, against Transformers alone."""

import copy
import re

import pytest
import torch
from decode.toys import random_prompts, tiny_hf
from transformers import DynamicCache

import lmx
from lmx.hf import attention

PROMPTS = [[p % 198 + 1 for p in prompt] for prompt in random_prompts(4, 198)]


def paged_model(window=None):
    """``tiny_hf`` with lmx's attention."""
    model = copy.deepcopy(tiny_hf(window))
    model.set_attn_implementation(lmx.hf.register_attention())
    return model


def batch(prompts, side="left"):
    longest = max(len(prompt) for prompt in prompts)
    pads = [[0] * (longest - len(prompt)) for prompt in prompts]
    rows = [pad + p if side == "left" else p + pad for pad, p in zip(pads, prompts, strict=True)]
    ones = [[1] * len(p) for p in prompts]
    masks = [z + o if side == "left" else o + z for z, o in zip(pads, ones, strict=True)]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


def caches(batch_size):
    """No cache, one of Transformers', and ours."""
    model = paged_model()
    return {
        "none": {"use_cache": False},
        "dynamic": {"cache": DynamicCache(config=model.config)},
        "paged": {"cache": lmx.hf.PagedCache(model, batch_size=batch_size, max_tokens=64)},
    }


@pytest.mark.parametrize("kind", ["none", "dynamic", "paged"])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("window", [None, 7])
def test_greedy_ids_are_those_of_transformers(kind, count, window):
    options = {"max_new_tokens": 12, "do_sample": False}
    theirs = tiny_hf(window).generate(**batch(PROMPTS[:count]), **options)
    ours = paged_model(window).generate(**batch(PROMPTS[:count]), **options, **caches(count)[kind])
    assert torch.equal(theirs, ours)


def test_logits_are_those_of_transformers_with_padding_on_either_side():
    for side in ("left", "right"):
        inputs = batch(PROMPTS, side)
        mask = inputs["attention_mask"].bool()
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        model = paged_model()
        cache = lmx.hf.PagedCache(model, batch_size=4, max_tokens=64)
        with torch.no_grad():
            theirs = tiny_hf()(**inputs).logits[mask]
            ours = model(**inputs, cache=cache).logits[mask]
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", [0, 100])
@pytest.mark.parametrize("paged", [False, True])
def test_more_tokens_at_once_than_a_call_takes(monkeypatch, padding, paged):
    monkeypatch.setattr(attention, "MOST_FRESH", 16)
    model, tokens = paged_model(), (torch.arange(2 * 150) * 7 % 199).view(2, 150)
    mask = torch.ones_like(tokens)
    mask[1, :padding] = 0
    cache = lmx.hf.PagedCache(model, batch_size=2, max_tokens=150) if paged else None
    seen = []
    with torch.no_grad():
        theirs = tiny_hf()(tokens, attention_mask=mask).logits[mask.bool()]
        for start, end in ((0, 40), (40, 150)) if paged else ((0, 150),):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, start:end]
            out = model(
                tokens[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=positions,
                cache=cache,
                use_cache=paged,
            )
            seen.append(out.logits)
    ours = torch.cat(seen, 1)[mask.bool()]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_beams_fork_pages():
    options = {"max_new_tokens": 10, "do_sample": False, "num_beams": 3, "num_return_sequences": 3}
    theirs = tiny_hf().generate(**batch(PROMPTS[:2]), **options)
    model = paged_model()
    cache = lmx.hf.PagedCache(model, batch_size=6, max_tokens=64)
    ours = model.generate(**batch(PROMPTS[:2]), **options, cache=cache)
    assert torch.equal(theirs, ours)
    cache.paged.check_invariants()
    cache.reset()
    assert cache.paged.stats().pages_used == 0 and cache.get_seq_length() == 0


def test_a_cache_goes_on_where_it_was():
    model = paged_model()
    cache = lmx.hf.PagedCache(model, batch_size=1, max_tokens=64)
    ids = torch.tensor([PROMPTS[0]])
    options = {"max_new_tokens": 4, "do_sample": False}
    first = model.generate(ids, attention_mask=torch.ones_like(ids), cache=cache, **options)
    assert cache.get_seq_length() == first.shape[1] - 1  # the last token has not been run
    more = torch.cat((first, torch.tensor([[7, 8]])), 1)
    ours = model.generate(more, attention_mask=torch.ones_like(more), cache=cache, **options)
    theirs = tiny_hf().generate(more, attention_mask=torch.ones_like(more), **options)
    assert torch.equal(ours, theirs)


def test_tokens_are_taken_back():
    model, tokens = paged_model(), torch.tensor([PROMPTS[0][:3] + PROMPTS[1][:9]])
    cache = lmx.hf.PagedCache(model, batch_size=1, max_tokens=64)
    with torch.no_grad():
        model(tokens[:, :8], cache=cache)
        model(torch.full((1, 20), 5), cache=cache)
        cache.crop(-20)
        ours = model(tokens[:, 8:], cache=cache).logits
        theirs = tiny_hf()(tokens).logits[:, 8:]
    assert cache.get_seq_length() == 12 and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="tokens_to_remove: expected at most 0, got 3"):
        cache.crop(3)


def test_batches_are_repeated_and_selected():
    model = paged_model()
    cache = lmx.hf.PagedCache(model, batch_size=4, max_tokens=64)
    with torch.no_grad():
        model(torch.tensor([[3, 4, 5], [6, 7, 8]]), cache=cache)
        cache.batch_repeat_interleave(2)
        assert cache.batch_size == 4
        cache.batch_select_indices(torch.tensor([3, 0]))
        ours = model(torch.tensor([[9], [10]]), cache=cache).logits
        theirs = tiny_hf()(torch.tensor([[6, 7, 8, 9], [3, 4, 5, 10]])).logits[:, 3:]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    cache.paged.check_invariants()


def test_a_pass_that_failed_is_forgotten(monkeypatch):
    model = paged_model()
    cache = lmx.hf.PagedCache(model, batch_size=1, max_tokens=64)
    with torch.no_grad():
        model(torch.tensor([[3, 4, 5]]), cache=cache)
        layer = model.model.layers[1].self_attn
        monkeypatch.setattr(layer, "forward", None)
        with pytest.raises(TypeError):
            model(torch.tensor([[6, 7]]), cache=cache)
        monkeypatch.undo()
        ours = model(torch.tensor([[8]]), cache=cache, position_ids=torch.tensor([[3]])).logits
        theirs = tiny_hf()(torch.tensor([[3, 4, 5, 8]])).logits[:, 3:]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_honoured_is_refused():
    message = "model's attention: expected 'lmx' (model.set_attn_implementation("
    with pytest.raises(ValueError, match=re.escape(message)):
        lmx.hf.PagedCache(tiny_hf(), batch_size=1, max_tokens=8)
    model, ids = paged_model(), torch.tensor([[3, 4, 5]])
    with pytest.raises(ValueError, match="batch_size: expected an integer of at least 1, got 0"):
        lmx.hf.PagedCache(model, batch_size=0, max_tokens=8)
    with torch.no_grad():
        with pytest.raises(ValueError, match="attention_mask: expected .batch, tokens., of padd"):
            model(ids, attention_mask=torch.zeros(1, 1, 3, 3))
        with pytest.raises(ValueError, match="output_attentions: expected it unset, got True"):
            model(ids, output_attentions=True)
        cache = lmx.hf.PagedCache(model, batch_size=1, max_tokens=16)
        with pytest.raises(ValueError, match="expected at most 16 more tokens of sequence"):
            model(ids.repeat(1, 9), cache=cache)
            model(ids, cache=cache)
        cache = lmx.hf.PagedCache(model, batch_size=1, max_tokens=16)
        model(ids, cache=cache)
        with pytest.raises(ValueError, match="keys: expected 1 rows, got"):
            model(ids.repeat(2, 1), cache=cache)
    with pytest.raises(ValueError, match="does not|no_grad|inference"):
        model(ids)
