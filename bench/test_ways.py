"""The torch ways compute what lmx computes: comparing with anything else would mean nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lmx import vocab

from . import vocab_torch as ways
from .inputs import Case, Inputs

ROWS = 4


def logits(dtype: str) -> Tensor:
    return Inputs(Case("cpu", dtype, ROWS), smoke=True).logits[:ROWS]


@pytest.mark.parametrize("dtype", ("f32", "bf16"))
def test_sums(dtype: str) -> None:
    x = logits(dtype)
    targets = torch.arange(ROWS)
    for way in ways.LSE.values():
        torch.testing.assert_close(way(x).float(), vocab.lse(x)[0], rtol=1e-5, atol=1e-5)
    for way in ways.LOGPROBS.values():
        ours = vocab.logprobs(x, targets)
        torch.testing.assert_close(way(x, targets).flatten().float(), ours, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ways.softmax(x, 0.8), vocab.softmax(x, temperature=0.8))


def test_argmax() -> None:
    x = logits("f32")
    for way in ways.ARGMAX.values():
        assert torch.equal(way(x), vocab.argmax(x))


TRUNCATIONS = ({"top_k": 50}, {"top_p": 0.9}, {"top_k": 50, "top_p": 0.9}, {"min_p": 0.05})


@pytest.mark.parametrize("arguments", TRUNCATIONS, ids=str)
def test_draws(arguments: dict[str, Any]) -> None:
    """Ways by id draw our tokens; ways by rank draw from the same set, the likeliest first."""
    x = logits("f32")
    probs = vocab.softmax(x, **arguments)
    for u in torch.linspace(0.01, 0.99, 25):
        uniforms = u.expand(ROWS).contiguous()
        token, _ = vocab.sample(x, uniforms, **arguments)
        for name, way in ways.truncated(**arguments).items():
            drawn = way(x, uniforms)
            assert (probs.gather(1, drawn[:, None]) > 0).all()
            if "rank" not in name:
                assert torch.equal(drawn, token)
    by_rank = ways.truncated(**arguments)["sort (ids by rank)"]
    assert torch.equal(by_rank(x, torch.zeros(ROWS)), vocab.argmax(x))


def test_dense_draws() -> None:
    x = logits("f32")
    uniforms = torch.linspace(0.1, 0.9, ROWS)
    for name, way in ways.dense(0.8).items():
        drawn = way(x, uniforms).flatten()
        assert drawn.shape == (ROWS,)
        if "own draw" not in name:
            assert torch.equal(drawn, vocab.sample(x, uniforms, temperature=0.8)[0])


def test_masks() -> None:
    inputs = Inputs(Case("cpu", "f32", ROWS), smoke=True)
    allowed = inputs.bools(0.5, ROWS)
    mask = vocab.mask_from_bool(allowed)
    assert torch.equal(ways.pack(allowed), mask)
    assert torch.equal(ways.unpack(mask, inputs.vocab_size), allowed)
    table = ways.popcount(torch.arange(1 << 16, dtype=torch.int32)[:, None])
    for counted in (ways.popcount(mask), ways.popcount_by_table(mask, table)):
        assert torch.equal(counted, vocab.mask_popcount(mask))
