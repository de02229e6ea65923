"""argmax, softmax, lse, logprobs and sample against plain torch in float64."""

import itertools
import math

import pytest
import torch
from helpers import assert_close, run, some
from samples import make_bitmask, make_logits, samples_of

import lmx
from lmx.vocab import reference


def float32_twin(x: torch.Tensor, *options) -> torch.Tensor:
    """What torch makes of it in float32: the yardstick of the error."""
    allowed = reference.allowed_tokens(x, *options[:2])
    z = x.float().masked_fill(~allowed, -torch.inf)
    t = options[2] if len(options) > 2 else None
    return z if t is None else z / t.clamp(min=1e-3)[:, None]


def test_argmax(ops):
    for s in samples_of("vocab_argmax"):
        (token, *_) = run(ops, "vocab_argmax", s)
        assert torch.equal(token, reference.argmax(*s.args)), s.name


def test_lse(ops):
    for s in some(ops, samples_of("vocab_lse")):
        ours = run(ops, "vocab_lse", s)[:2]
        x, bitmask, ids, t = s.args
        twins = (float32_twin(x, None, None, t), float32_twin(x, bitmask, ids, t))
        for mine, exact, twin in zip(ours, reference.lse(*s.args), twins, strict=True):
            assert_close(mine, exact, twin.logsumexp(-1), s.name)


def test_logprobs(ops):
    for s in samples_of("vocab_logprobs"):
        (logprob, *_) = run(ops, "vocab_logprobs", s)
        x = s.args[0].float().log_softmax(-1).gather(1, s.args[1].clamp(min=0)[:, None])[:, 0]
        twin = torch.where(s.args[1] < 0, 0.0, x)
        assert_close(logprob, reference.logprobs(*s.args), twin, s.name)


def test_softmax(ops):
    for s in some(ops, samples_of("vocab_softmax")):
        (probs, *_) = run(ops, "vocab_softmax", s)
        exact = reference.softmax(*s.args)
        # The same tokens are kept, and what is kept adds up to one.
        assert torch.equal(probs > 0, exact > 2.0**-126), s.name
        live = (exact > 0).any(-1)
        ones = torch.where(live, 1.0, 0.0).double()
        torch.testing.assert_close(probs.double().sum(-1), ones, atol=1e-5, rtol=0)
        torch.testing.assert_close(probs.double(), exact, atol=1e-30, rtol=2e-5)
        if s.name.endswith("plain"):
            twin = float32_twin(*s.args[:3]).softmax(-1)
            assert_close(probs, exact, torch.where(live[:, None], twin, 0.0), s.name)


def test_sample(ops):
    for s in some(ops, samples_of("vocab_sample")):
        token, logprob, *_ = run(ops, "vocab_sample", s)
        x, uniforms, *options = s.args
        exact = reference.softmax(x, *options)
        want, _ = reference.sample(x, uniforms, *options)
        cumulative = exact.cumsum(-1)
        for row in range(len(x)):
            t = int(token[row])
            if t != want[row]:  # only where the uniform falls within rounding of a border
                assert exact[row, t] > 0, s.name
                low, high = sorted((t, int(want[row])))
                gap = exact[row, low + 1 : high].sum()
                border = cumulative[row, low] / cumulative[row, -1]
                assert gap < 1e-6 and abs(border - uniforms[row]) < 2e-6, s.name
            if t >= 0:
                assert abs(logprob[row].double() - exact[row, t].log()) < 2e-5, s.name
            else:
                assert logprob[row].isnan() and exact[row].sum() == 0


def test_sample_walks_the_softmax(ops):
    """A uniform just inside a token's interval draws it, for every token of a small row."""
    x = make_logits(1, 40)
    for kw in ({}, {"top_p": torch.tensor([0.8])}, {"top_k": torch.tensor([5], dtype=torch.int32)}):
        p = ops("vocab_softmax", x, **kw)[0].double()
        ends = p.cumsum(0) / p.sum()
        for token in p.nonzero()[:, 0].tolist():
            for u in (ends[token] - p[token] + 1e-6, ends[token] - 1e-6):
                u = u.clamp(0, 1 - 2**-24).float()[None]
                if p[token] > 4e-6:
                    assert ops("vocab_sample", x, u, **kw)[0].item() == token


def test_sample_follows_the_law(ops):
    """Chi-square over 20,000 draws; drawing from another temperature must fail it."""
    trials, size = (20_000, 8) if ops.name != "simt" else (2_000, 8)
    x = torch.randn(1, size).expand(trials, size)
    seeds = torch.full((trials,), 7)
    u = ops("vocab_uniform", seeds, torch.arange(trials), 1)

    def statistic(drawn_at: float) -> float:
        t = torch.full((trials,), drawn_at)
        token, _ = ops("vocab_sample", x.contiguous(), u, temperature=t)
        expected = reference.softmax(x[:1])[0] * trials
        return float(((token.bincount(minlength=size) - expected) ** 2 / expected).sum())

    assert statistic(1.0) < 24.3  # 7 degrees of freedom, 99.9 %
    assert statistic(1.5) > 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ties_break_by_id(ops, dtype):
    x = torch.zeros(4, 600, dtype=dtype)
    x[1, 300:] = 1
    x[2, [599, 5, 256]] = 3
    x[3, 0] = -0.0
    assert ops("vocab_argmax", x).tolist() == [0, 300, 5, 0]
    k = torch.tensor([3, 2, 2, 1], dtype=torch.int32)
    p = ops("vocab_softmax", x, top_k=k)
    kept = [row.nonzero()[:, 0].tolist() for row in p]
    assert kept == [[0, 1, 2], [300, 301], [5, 256], [0]]
    assert torch.equal(p[0, :3], torch.full((3,), 1 / 3))


def test_equal_logits_have_equal_probabilities(ops):
    """Wherever in the row they stand, and whatever stands beside them."""
    x = torch.randn(1, 9000) * 5
    x[0, [3, 300, 8999]] = 1.2345
    x[0, 310] = 40.0
    p = ops("vocab_softmax", x)[0]
    assert p[3] == p[300] == p[8999] > 0


def test_top_p_of_many_tokens(ops):
    """A flat row: more candidates than fit the kernels' buffers."""
    x = torch.randn(2, 6000) * 0.01
    x[1] = 0
    top_p = torch.tensor([0.9, 0.25])
    p = ops("vocab_softmax", x, top_p=top_p)
    assert (p[1] > 0).sum() == 1500 and bool((p[1, :1500] > 0).all())
    kept = (p[0] > 0).sum().item()
    exact = reference.softmax(x, None, None, None, None, top_p)
    assert abs(kept - int((exact[0] > 0).sum())) <= 1
    k = torch.tensor([5000, 1], dtype=torch.int32)
    both = ops("vocab_softmax", x, top_k=k, top_p=top_p)
    assert (both[1] > 0).sum() == 1 and (both[0] > 0).sum() < 5000 * 0.95


SPECIAL = {
    "nan": (float("nan"), 1.0, 2.0),
    "all -inf": (-math.inf,) * 3,
    "one inf": (1.0, math.inf, 2.0),
    "two inf": (math.inf, 0.0, math.inf),
    "least float": (torch.finfo(torch.float32).min,) * 3,
    "huge": (1e30, 1e30, -1e30),
    "far apart": (0.0, -200.0, 80.0),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(ops, name):
    x = torch.tensor([SPECIAL[name]])
    u = torch.tensor([0.6])
    token, logprob = ops("vocab_sample", x, u)
    p, best = ops("vocab_softmax", x)[0], ops("vocab_argmax", x).item()
    lse, _ = ops("vocab_lse", x)
    if name == "nan":
        assert p.isnan().all() and best == -1 and lse.isnan() and token.item() == -1
        assert ops("vocab_logprobs", x, torch.tensor([1])).isnan()
        for kw in ({"top_k": torch.tensor([1], dtype=torch.int32)}, {"top_p": torch.tensor([0.5])}):
            assert ops("vocab_softmax", x, **kw).isnan().all()
            assert ops("vocab_sample", x, u, **kw)[0].item() == -1
    elif name == "all -inf":
        assert p.tolist() == [0, 0, 0] and best == -1 and lse == -math.inf
        assert token.item() == -1 and logprob.isnan()
    elif name == "one inf":
        assert p.tolist() == [0, 1, 0] and best == 1 and token.item() == 1 and logprob == 0
    elif name == "two inf":
        assert p.tolist() == [0.5, 0, 0.5] and best == 0 and token.item() == 2
    elif name == "least float":  # what others mask with: finite, so a row of it is uniform
        torch.testing.assert_close(p, torch.full((3,), 1 / 3))
        assert best == 0 and token.item() == 1
        assert ops("vocab_logprobs", x, torch.tensor([1])).item() == pytest.approx(-math.log(3))
        limits = {"top_k": torch.tensor([2], dtype=torch.int32), "top_p": torch.tensor([0.9])}
        assert ops("vocab_softmax", x, **limits)[0].tolist() == [0.5, 0.5, 0]
    elif name == "huge":
        assert p.tolist() == [0.5, 0.5, 0] and best == 0 and token.item() == 1
    else:
        torch.testing.assert_close(p, x[0].softmax(-1))
        assert best == 2
        want = x.double().log_softmax(-1)
        for target in range(3):
            got = ops("vocab_logprobs", x, torch.tensor([target])).item()
            assert abs(got - want[0, target]) <= 2e-5


def test_nan_that_is_masked_does_not_matter(ops):
    x = torch.randn(1, 70)
    x[0, 40] = float("nan")
    allowed = torch.ones(1, 70, dtype=torch.bool)
    allowed[0, 40] = False
    mask = lmx.vocab.mask_from_bool(allowed)
    assert ops("vocab_argmax", x, mask).item() == x.nan_to_num(-99).argmax()
    assert not ops("vocab_softmax", x, mask).isnan().any()
    lse_all, lse_masked = ops("vocab_lse", x, mask)
    assert lse_all.isnan() and not lse_masked.isnan()


def test_a_mask_of_nothing_and_a_narrow_mask(ops):
    x = torch.randn(2, 100)
    nothing = torch.zeros(2, 4, dtype=torch.int32)
    assert ops("vocab_argmax", x, nothing).tolist() == [-1, -1]
    assert ops("vocab_softmax", x, nothing).sum() == 0
    narrow = torch.full((2, 2), -1, dtype=torch.int32)  # tokens from 64 on are not allowed
    assert torch.equal(ops("vocab_argmax", x, narrow), x[:, :64].argmax(-1))
    assert ops("vocab_argmax", x, torch.zeros(2, 0, dtype=torch.int32)).tolist() == [-1, -1]


@pytest.mark.parametrize("shape", [(0, 10), (3, 0), (0, 0)])
def test_empty(ops, shape):
    x, n = torch.zeros(shape), shape[0]
    assert ops("vocab_argmax", x).tolist() == [-1] * n
    assert ops("vocab_softmax", x).shape == shape
    assert ops("vocab_lse", x)[0].tolist() == [-math.inf] * n
    assert ops("vocab_logprobs", x, torch.full((n,), -1)).tolist() == [0.0] * n
    token, _ = ops("vocab_sample", x, torch.zeros(n), temperature=torch.ones(n))
    assert token.tolist() == [-1] * n
    nothing = torch.zeros(n, 0, dtype=torch.int32)
    assert ops("vocab_lse", x, nothing)[1].tolist() == [-math.inf] * n
    status = torch.zeros(n, dtype=torch.int32)
    ops("vocab_softmax", x, temperature=-torch.ones(n), status=status)
    assert status.tolist() == [64] * n
    status.zero_()
    no_masks, ids = torch.zeros(0, 0, dtype=torch.int32), torch.ones(n, dtype=torch.int32)
    ops("vocab_mask_apply_", x, no_masks, ids, status=status)
    assert status.tolist() == [32] * n


def test_status_isolates_bad_rows(ops):
    x = make_logits(4, 50)
    mask = make_bitmask(2, 50)
    ids = torch.tensor([0, 5, -1, -2], dtype=torch.int32)
    status = torch.tensor([0, 0, 8, 0], dtype=torch.int32)
    token = ops("vocab_argmax", x, mask, ids, status=status)
    assert status.tolist() == [0, 32, 8, 32] and token[1] == token[3] == -1
    good = ops("vocab_argmax", x[[0, 2]], mask, ids[[0, 2]])
    assert torch.equal(token[[0, 2]], good)

    t = torch.tensor([1.0, -1.0, math.nan, math.inf])
    status.zero_()
    p = ops("vocab_softmax", x, temperature=t, status=status)
    assert status.tolist() == [0, 64, 64, 64] and p[1:].sum() == 0 and p[0].sum() > 0.99
    status.zero_()
    token, _ = ops("vocab_sample", x, torch.tensor([0.5, 1.0, -0.1, math.nan]), status=status)
    assert status.tolist() == [0, 64, 64, 64] and token[1:].tolist() == [-1] * 3 and token[0] >= 0
    status.zero_()
    lse, _ = ops("vocab_lse", x, temperature=torch.tensor([1.0, 0.0, 1.0, 2.0]), status=status)
    assert status.tolist() == [0, 64, 0, 0] and lse[1] == -math.inf
    status.zero_()
    got = ops("vocab_logprobs", x, torch.tensor([50, -2, 49, -1]), status=status)
    assert status.tolist() == [4, 4, 0, 0] and got[:2].isnan().all() and got[3] == 0
    before = x.clone()
    status.zero_()
    ops("vocab_mask_apply_", x, mask, ids, status=status)
    assert status.tolist() == [0, 32, 0, 32] and torch.equal(x[1:], before[1:])


def test_values_at_the_limits_are_legal(ops):
    x = make_logits(1, 64)
    u = torch.tensor([1 - 2**-24])
    legal = {
        "temperature": (0.0, 1e-45, 1e-3, 1e30, 3e38),
        "top_p": (1e-30, 1.0),
        "min_p": (0.0, 1.0),
    }
    for name, values in legal.items():
        for value in values:
            token, logprob = ops("vocab_sample", x, u, **{name: torch.tensor([value])})
            assert token.item() >= 0 and logprob.item() <= 0, (name, value)
    for k in (0, 1, 64, 65, 2**31 - 1):
        top_k = torch.tensor([k], dtype=torch.int32)
        kept = (ops("vocab_softmax", x, top_k=top_k) > 0).sum()
        assert kept == min(k or 64, int((x > -math.inf).sum()))


def test_orders_of_truncation(ops):
    """top-k, then top-p among what it kept, then min-p: worked by hand."""
    p = torch.tensor([[0.4, 0.3, 0.2, 0.06, 0.04]])
    x = p.log()

    def kept(**kw) -> list[int]:
        dtypes = {"top_k": torch.int32}
        kw = {k: torch.tensor([v], dtype=dtypes.get(k, torch.float32)) for k, v in kw.items()}
        return ops("vocab_softmax", x, **kw)[0].nonzero()[:, 0].tolist()

    assert kept(top_p=0.69) == [0, 1]
    assert kept(top_p=0.71) == [0, 1, 2]
    assert kept(top_k=2, top_p=0.56) == [0]  # 0.4 of 0.7 is 0.571
    assert kept(top_k=2, top_p=0.58) == [0, 1]
    assert kept(min_p=0.51) == [0, 1]
    assert kept(min_p=0.49) == [0, 1, 2]
    assert kept(top_k=4, top_p=0.99, min_p=0.16) == [0, 1, 2]
    assert kept(temperature=0.5, min_p=0.26) == [0, 1]  # 0.2 / 0.4, squared, is 0.25
    assert kept(temperature=0.0, top_p=0.99) == [0]


def test_every_token_of_a_row_is_seen(ops):
    """A single large logit, at every place of a row longer than a chunk."""
    for place in itertools.chain(range(0, 300), range(8180, 8210)):
        x = torch.zeros(1, 8300)
        x[0, place] = 50.0
        assert ops("vocab_argmax", x).item() == place
        if ops.name != "simt" or place % 7 == 0:
            assert ops("vocab_sample", x, torch.tensor([0.5]))[0].item() == place
            assert ops("vocab_logprobs", x, torch.tensor([place])).item() == 0


def test_logits_so_large_that_their_rounding_shows(ops):
    """Weights may exceed 1 there; limits must still add up."""
    for scale in (750.0, 98_114.0, 3.1e6):
        x = torch.full((1, 4000), scale)
        x[0, 7] = scale * (1 + 1e-6)
        p = ops("vocab_softmax", x, top_p=torch.tensor([0.5]))
        assert abs(p.sum().item() - 1) < 1e-5 and p[0, 7] == p.max()
    at_least_temperature = ops(
        "vocab_softmax", torch.tensor([[-600.0, -601.0]]), temperature=torch.tensor([0.001])
    )
    assert at_least_temperature.tolist() == [[1, 0]]


@pytest.mark.long
def test_the_largest_vocabulary():
    """2^24 equal tokens: half of them hold half of the mass."""
    p = torch.ops.lmx.vocab_softmax(
        torch.zeros(1, 1 << 24), None, None, None, None, torch.tensor([0.5]), None
    )
    assert int((p > 0).sum()) == 1 << 23
