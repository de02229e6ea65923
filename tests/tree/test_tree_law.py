"""Sampling with drafts has the target's law: chi-square, and controls that must fail.

V = 5 and two levels: the joint law of the first two tokens that are emitted, 24 degrees of freedom.
The trees' random numbers are those of the decode loop.
"""

import pytest
import torch
from torch import Tensor

from lmx import tree, vocab
from lmx.tree import Template

V, TRIALS = 5, 30_000
ACCEPT = 51.2  # of 24 degrees of freedom, 99.9 %


def laws(seed: int) -> Tensor:
    """p(next | last token): the first row is the law after the pending token."""
    torch.manual_seed(seed)
    return torch.softmax(torch.randn(V + 1, V) * 1.5, -1)


def drafted(p: Tensor, template: Template, how: str) -> Tensor:
    """Tokens of the template's nodes for every trial: top-k of the law, or drawn at random."""
    tokens = torch.zeros(TRIALS, template.num_nodes, dtype=torch.int64)
    tokens[:, 0] = V  # the pending token, with a law of its own
    paths = template.paths
    for i, (parent, path) in enumerate(zip(template.parents.tolist(), paths, strict=True)):
        if parent < 0:
            continue
        above = p[(tokens[:, parent] + 1) % (V + 1)]
        if how == "top":
            tokens[:, i] = above.argsort(-1, descending=True)[:, path[-1]]
        elif how == "equal":
            tokens[:, i] = above.argmax(-1)
        else:
            tokens[:, i] = torch.randint(V, (TRIALS,))
    return tokens


def first_two(p: Tensor, template: Template, how: str, **options) -> Tensor:
    """The first two emitted tokens of every trial, as counts [V, V]."""
    tokens = drafted(p, template, how)
    size = template.num_nodes
    indptr = torch.arange(0, TRIALS * size + 1, size, dtype=torch.int32)
    parents = template.parents.repeat(TRIALS)
    _, first, following, _ = tree.prepare(parents, indptr, size)
    seeds = torch.arange(TRIALS).repeat_interleave(size)
    node = torch.arange(size).repeat(TRIALS)
    coins = vocab.uniform(seeds, torch.full_like(seeds, 7), 0, node)
    trials = torch.arange(TRIALS)
    final = vocab.uniform(trials, torch.full_like(trials, 7), 1)
    probs = p[(tokens.flatten() + 1) % (V + 1)]
    args = (tokens.flatten(), indptr, first, following, probs, coins, final, 2)
    _, length, out = tree.verify_target(*args, **options)
    more = vocab.uniform(trials, torch.full_like(trials, 8), 1)
    plain, _ = vocab.sample(p[out[:, 0] + 1].log(), more)
    second = torch.where(length > 0, out[:, 1], plain)
    return torch.bincount(out[:, 0] * V + second, minlength=V * V).view(V, V)


def chi_square(counts: Tensor, p: Tensor) -> float:
    expected = TRIALS * p[0][:, None].double() * p[1:].double()
    return float(((counts - expected) ** 2 / expected).sum())


TEMPLATES = {
    "chain": tree.from_chain(2),
    "two by two": tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]),
    "all": tree.from_paths([(i,) for i in range(V)] + [(i, j) for i in range(V) for j in range(V)]),
}


@pytest.mark.parametrize("how", ["top", "equal", "random"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_law_is_the_targets(name, how):
    """Whatever is drafted, equal siblings included."""
    p = laws(3)
    assert chi_square(first_two(p, TEMPLATES[name], how), p) < ACCEPT


def test_plain_sampling_is_the_tree_of_one_node():
    p = laws(4)
    plain = tree.from_paths([])
    assert chi_square(first_two(p, plain, "top"), p) < ACCEPT
    logits = torch.randn(500, 3000) * 3
    uniforms = torch.rand(500)
    indptr = torch.arange(501, dtype=torch.int32)
    links = torch.full((500,), -1, dtype=torch.int32)
    probs = vocab.softmax(logits, temperature=0.7)
    args = (torch.zeros(500).long(), indptr, links, links, probs, uniforms, uniforms, 0)
    _, _, out = tree.verify_target(*args)
    assert torch.equal(out[:, 0], vocab.sample(logits, uniforms, temperature=0.7)[0])


@pytest.mark.parametrize("options", [{"threshold_single": 0.3}, {"threshold_acc": 0.6}])
def test_lower_thresholds_change_the_law(options):
    """The test has power: what is known to be lossy fails by a wide margin."""
    p = laws(3)
    assert chi_square(first_two(p, TEMPLATES["two by two"], "top", **options), p) > 10 * ACCEPT


def test_counting_equal_siblings_twice_would_fail():
    """The control: a verifier that adds a token's mass once per sibling accepts it too often."""
    p = laws(3)
    tokens = drafted(p, TEMPLATES["two by two"], "equal")
    best = tokens[0, 1]
    coins = torch.rand(TRIALS)
    accepted = coins < 2 * p[0, best]
    rest = p[0].clone()
    rest[best] = 0.0
    first = torch.where(accepted, best, torch.multinomial(rest, TRIALS, replacement=True))
    second = torch.multinomial(p[first + 1], 1)[:, 0]
    counts = torch.bincount(first * V + second, minlength=V * V).view(V, V)
    assert chi_square(counts, p) > 10 * ACCEPT


def test_a_draft_that_sees_the_coins_would_fail():
    """Lossless only for trees chosen without the random numbers: here the draft knows the coin."""
    p = laws(3)
    size = 2
    indptr = torch.arange(0, TRIALS * size + 1, size, dtype=torch.int32)
    parents = torch.tensor([-1, 0], dtype=torch.int32).repeat(TRIALS)
    _, first, following, _ = tree.prepare(parents, indptr, size)
    trials = torch.arange(TRIALS)
    coins = vocab.uniform(trials, trials * 0, 0)
    likely = coins < p[0].max()  # only then draft the likeliest token, else the least likely
    tokens = torch.stack((trials * 0, torch.where(likely, p[0].argmax(), p[0].argmin())), 1)
    probs = p[[0]].expand(TRIALS * size, V).contiguous()
    args = (tokens.flatten(), indptr, first, following, probs, coins.repeat_interleave(size))
    _, _, out = tree.verify_target(*args, vocab.uniform(trials, trials * 0, 1), 1)
    counts = torch.bincount(out[:, 0], minlength=V).double()
    expected = TRIALS * p[0].double()
    assert float(((counts - expected) ** 2 / expected).sum()) > 500
