import math
import re
from collections import Counter

import pytest
import torch
from decode.toys import table_model
from helpers import ROOT

import lmx
from lmx.decode import Sampling, branches
from lmx.decode.checks import STATUS_FAULTS, status_fault
from lmx.decode.sampling import draw, edit_logits, fetch


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", -0.1, "temperature: expected a number in [0, 1e+06], got -0.1"),
        ("temperature", math.nan, "temperature: expected a number in [0, 1e+06], got nan"),
        ("temperature", "hot", "temperature: expected a number in [0, 1e+06], got 'hot'"),
        ("top_k", -1, "top_k: expected an integer in [0, 2147483647], got -1"),
        ("top_k", 2.0, "top_k: expected an integer in [0, 2147483647], got 2.0"),
        ("top_p", 0.0, "top_p: expected a number above 0 in float32, got 0.0"),
        ("top_p", 1e-50, "top_p: expected a number above 0 in float32, got 1e-50"),
        ("top_p", 1.1, "top_p: expected a number in [0, 1], got 1.1"),
        ("min_p", 1.5, "min_p: expected a number in [0, 1], got 1.5"),
        ("seed", -1, "seed: expected an integer in [0, 9223372036854775807], got -1"),
        ("repetition_penalty", 0.0, "repetition_penalty: expected a number in [1e-06, 1e+06], got"),
        ("presence_penalty", math.inf, "presence_penalty: expected a number in [-1e+06, 1e+06]"),
        ("frequency_penalty", math.nan, "frequency_penalty: expected a number in [-1e+06, 1e+06]"),
        ("logit_bias", {-1: 0.0}, "logit_bias: token: expected an integer of at least 0, got -1"),
        ("logit_bias", {1: math.nan}, "logit_bias: expected a number in [-1e+06, 1e+06], got nan"),
        ("logprobs", -1, "logprobs: expected an integer of at least 0, got -1"),
        ("n", 0, "n: expected an integer of at least 1, got 0"),
        ("n", 2, "n: expected 1 at temperature 0"),
    ],
)
def test_bad_settings(field, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Sampling(**{field: value})


def test_a_temperature_that_is_0_in_float32_is_0():
    assert Sampling(temperature=1e-50).n == 1
    with pytest.raises(ValueError, match="n: expected 1 at temperature 0"):
        Sampling(temperature=1e-50, n=2)


def test_the_bits_of_status_are_those_of_the_header():
    bits = re.findall(r"kStatus(\w+) = 1 << (\d+)", (ROOT / "csrc/common/status.h").read_text())
    assert [1 << int(bit) for _, bit in bits] == list(STATUS_FAULTS)
    assert bits[6][0] == "BadValue" and "parameter" in status_fault(1 << 6)
    assert status_fault(0) == "" and status_fault(3).count(", ") == 1


def test_a_bad_row_of_a_draw_has_a_status_and_no_token(monkeypatch):
    monkeypatch.setattr(Sampling, "__post_init__", lambda self: None)
    good, bad = Sampling(temperature=1.0), Sampling(temperature=1.0, top_p=1e-50)
    tokens, status = fetch(*draw(torch.zeros(2, 5), None, [good, bad], [3, 3]))
    [alone], _ = fetch(*draw(torch.zeros(1, 5), None, [good], [3]))
    assert tokens == [alone, -1] and status == [0, 1 << 6]
    greedy = fetch(*draw(torch.zeros(2, 5), None, [Sampling()] * 2, [3, 3]))
    assert greedy == [[0, 0], [0, 0]]


def test_bias_and_penalties_by_hand():
    row = torch.tensor([2.0, -2.0, 1.0, 0.5, 4.0])
    sampling = Sampling(
        logit_bias={3: 1.5, 4: -math.inf},
        repetition_penalty=2.0,
        presence_penalty=0.25,
        frequency_penalty=0.5,
    )
    edited = edit_logits(row, sampling, {0, 1}, Counter([1, 1]))
    # Token 0: 2 / 2. Token 1: -2 * 2, then - 0.25 - 2 * 0.5. Token 2 is new. Token 3 has its bias.
    assert edited.tolist() == [1.0, -5.25, 1.0, 2.0, -math.inf]
    assert row.tolist() == [2.0, -2.0, 1.0, 0.5, 4.0]


def test_branches_have_seeds_of_their_own_and_the_first_keeps_its():
    seeds = [s.seed for s in branches(Sampling(temperature=1.0, seed=7, n=100))]
    assert seeds[0] == 7 and len(set(seeds)) == 100 and max(seeds) > 2**61
    assert seeds[:5] == [s.seed for s in branches(Sampling(temperature=1.0, seed=7, n=5))]


def chi_square(counts, probs):
    """Return the statistic and its value at which p is 1e-4 (Wilson and Hilferty 1931)."""
    expected = probs * counts.sum()
    df = int((expected > 0).sum()) - 1
    statistic = ((counts - expected) ** 2 / expected)[expected > 0].sum().item()
    return statistic, df * (1 - 2 / (9 * df) + 3.719 * math.sqrt(2 / (9 * df))) ** 3


def test_law_of_two_tokens_is_the_softmax():
    model, vocab_size, count, temperature = table_model(6), 6, 3000, 0.8
    samplings = [Sampling(temperature=temperature, seed=seed) for seed in range(count)]
    answers = lmx.generate(model, [[2]] * count, max_new_tokens=2, sampling=samplings)
    pairs = torch.tensor([answer.tokens for answer in answers])
    counts = (pairs[:, 0] * vocab_size + pairs[:, 1]).bincount(minlength=vocab_size**2)

    def law(temperature):
        after = [model.norm_head(torch.tensor([[0.0, 2.0]]))]
        after += [model.norm_head(torch.tensor([[1.0, float(t)] for t in range(vocab_size)]))]
        first, second = ((logits.double() / temperature).softmax(-1) for logits in after)
        return (first[0][:, None] * second).flatten()

    statistic, limit = chi_square(counts, law(temperature))
    assert statistic < limit
    statistic, limit = chi_square(counts, law(temperature * 1.2))  # what must be noticed
    assert statistic > limit


def test_cuts_leave_the_renormalised_rest():
    model, count = table_model(6), 2000
    samplings = [Sampling(temperature=1.0, top_k=3, seed=seed) for seed in range(count)]
    answers = lmx.generate(model, [[1]] * count, max_new_tokens=1, sampling=samplings)
    counts = torch.tensor([answer.tokens[0] for answer in answers]).bincount(minlength=6)
    logits = model.norm_head(torch.tensor([[0.0, 1.0]]))[0].double()
    kept = logits.masked_fill(logits < logits.topk(3).values[-1], -torch.inf)
    statistic, limit = chi_square(counts, kept.softmax(-1))
    assert statistic < limit and not counts[kept.isneginf()].any()
    statistic, limit = chi_square(counts, logits.softmax(-1))  # what must be noticed
    assert statistic > limit
