"""A block of known tokens passes through the same numbers as the tokens one by one."""

import pytest
import torch
from helpers import same_bits
from tiny_models import tiny

import lmx
from lmx.decode.forward import Runner, chains
from lmx.decode.pages import new_cache, pages_for
from lmx.models import products

NUM_TOKENS = 16


def recorded(model, tokens, monkeypatch):
    """Run tokens one by one and keep what every product was given and what it returned."""
    calls: dict[int, list] = {}
    for kind in (products.Product, products.SwiGlu):
        plain = kind.__call__

        def spy(self, *args, plain=plain):
            out = plain(self, *args)
            calls.setdefault(id(self), []).append((self, args, out))
            return out

        monkeypatch.setattr(kind, "__call__", spy)
    runner = Runner(model, new_cache(model, 1, pages_for(NUM_TOKENS)))
    sequence = runner.cache.create()
    with torch.inference_mode():
        for start, token in enumerate(tokens.tolist()):
            fresh = runner.forward(chains([(0, start, [token])], 1, start, model.device))
            model.norm_head(fresh.hidden)
            runner.commit(fresh, runner.cache.append([sequence], [1]))
    monkeypatch.undo()
    return list(calls.values())


def check(model, monkeypatch):
    tokens = torch.randint(model.vocab_size, (NUM_TOKENS,))
    calls = recorded(model, tokens, monkeypatch)
    assert len(calls) > model.num_layers
    for steps in calls:
        assert len(steps) == NUM_TOKENS
        product = steps[0][0]
        columns = list(zip(*(args for _, args, _ in steps), strict=True))
        args = [torch.cat(c) if isinstance(c[0], torch.Tensor) else None for c in columns]
        with torch.inference_mode():
            at_once = product(*args)
        assert same_bits(at_once, torch.cat([out for _, _, out in steps]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_tiny(dtype, monkeypatch):
    check(lmx.load(tiny("llama"), dtype=dtype), monkeypatch)
    check(lmx.load(tiny("qwen3"), dtype=dtype), monkeypatch)


@pytest.mark.parametrize("options", [{"dtype": torch.bfloat16}, {"weights": "file"}], ids=str)
def test_smollm2(options, monkeypatch, smollm2_folder):
    check(lmx.load("smollm2", **options), monkeypatch)
