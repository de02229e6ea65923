"""The index as a language model: mixing, tuning, and the two faces of the decode loop."""

import math

import pytest
import torch
from ngram.corpora import Corpus, random_docs

import lmx
from lmx import ngram, vocab
from lmx.decode import InfgramMix
from lmx.hf import InfgramLogitsProcessor
from lmx.ngram import reference as naive

ROWS = torch.tensor([0, 0, 1, 3, 5])  # crow
TOKENS = torch.tensor([7, 1, 4, -1, 3])
COUNTS = torch.tensor([2, 1, 3, 5, 5])


def mixed(lam_sparse, lam_dense, dtype=torch.float32, **others):
    logits = (torch.randn(4, 40) * 4).to(dtype)
    lse = vocab.lse(logits)[0]
    out = ngram.mix(logits, lse, ROWS, TOKENS, COUNTS, lam_sparse, lam_dense, **others)
    return logits, lse, out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_mix_against_float64(dtype):
    for lams in ((0.3, 0.1), (0.9, 0.0), (1e-6, 1 - 1e-6)):
        logits, _, out = mixed(*lams, dtype)
        exact = naive.mix(logits, ROWS, TOKENS, COUNTS, *lams)
        assert (out.double() - exact).abs().max() < 2e-6 * exact.abs().max()
        assert (out.exp().sum(-1) - 1).abs().max() < 1e-5


def test_mix_at_the_ends():
    logits, lse, out = mixed(0.0, 0.0)
    assert torch.equal(out, logits - lse[:, None])
    targets = torch.arange(4)
    assert torch.allclose(out[targets, targets], vocab.logprobs(logits, targets), atol=1e-6)
    _, _, out = mixed(1.0, 1.0)
    assert out[1, 7] == 0 and out[1].isneginf().sum() == 39
    assert torch.allclose(out[2, [1, 4]].exp(), torch.tensor([0.25, 0.75]))
    assert out[3, 3] == 0  # the end of a document is no token here: what remains is all there is


def test_short_suffixes_do_not_count():
    length = torch.tensor([9, 9, 1, 1], dtype=torch.int32)
    logits, lse, out = mixed(0.5, 0.5, suffix_len=length, min_suffix_len=2)
    plain = logits - lse[:, None]
    assert torch.equal(out[2:], plain[2:]) and not torch.equal(out[1], plain[1])


@pytest.mark.parametrize("lam", [-0.1, 1.1, math.nan])
def test_mix_refuses_weights(lam):
    with pytest.raises(RuntimeError, match=r"lmx::ngram_mix: expected lam_sparse in \[0, 1\]"):
        mixed(lam, 0.1)
    with pytest.raises(ValueError, match="lam_dense"):
        InfgramMix(index=Corpus("a", [[0]], 1).index(), lam_dense=lam)


def test_tune_lambda_finds_the_best():
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        p = torch.rand(400, generator=generator) * (torch.rand(400, generator=generator) < 0.6)
        q = torch.rand(400, generator=generator) * 0.5
        lam = ngram.tune_lambda(p, q)
        grid = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
        likelihood = (grid * p + (1 - grid) * q).log().mean(-1)
        mine = (lam * p.double() + (1 - lam) * q).log().mean()
        assert mine >= likelihood[likelihood.isfinite()].max() - 1e-5
    assert ngram.tune_lambda(torch.zeros(3), torch.rand(3)) == 0.0
    with pytest.raises(ValueError, match="two vectors"):
        ngram.tune_lambda(torch.zeros(3), torch.rand(4))
    with pytest.raises(ValueError, match="probabilities"):
        ngram.tune_lambda(torch.tensor([2.0]), torch.rand(1))
    assert ngram.relative_improvement(4.85, 15.71) == pytest.approx(73.8, abs=0.1)


def test_the_edit_is_the_mixture():
    corpus = Corpus("a", random_docs(20, [300, 50], 3), 20, eos_id=19)
    mix = InfgramMix(index=corpus.index(), lam_sparse=0.4, lam_dense=0.2)
    tokens = torch.tensor(corpus.docs[0][40:60])
    logits = torch.randn(24)  # a model with more tokens than the index
    out = mix(tokens, logits)
    exact = logits.double().softmax(-1)
    counts = mix.index.infgram_ntd([tokens.tolist()]).counts()
    lam = 0.4 if len(counts) == 1 else 0.2
    exact = exact * (1 - lam)
    for token, count in counts.items():
        exact[token] += lam * count / sum(counts.values())
    assert torch.allclose(out.double().exp(), exact, atol=1e-6)
    rows = mix.rows(torch.stack([tokens, tokens.flip(0)]), torch.stack([logits, logits]))
    assert torch.equal(rows[0], out)
    scores = torch.stack([logits, logits])
    processed = InfgramLogitsProcessor(mix)(torch.stack([tokens, tokens.flip(0)]), scores)
    assert torch.equal(processed, rows) and torch.equal(scores[0], logits)


def test_generation_follows_the_index():
    """With all weight on an index of one text, the loop recites it."""
    from decode.toys import table_model

    model = table_model(24, 16)
    text = [(5 * i + i // 5) % 24 for i in range(12)]
    index = Corpus("text", [text], model.vocab_size).index()
    mix = InfgramMix(index=index, lam_sparse=1.0, lam_dense=1.0)
    [answer] = lmx.generate(model, [text[:3]], max_new_tokens=5, processors=[mix])
    assert answer.error is None and answer.tokens == text[3:8]
