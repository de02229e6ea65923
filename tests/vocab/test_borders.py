"""Places where one wrong comparison, constant or index would show: the mutants' survivors."""

import math

import pytest
import torch
from helpers import same_bits
from samples import make_bitmask, make_logits

import lmx
from lmx.vocab import reference

LIMITS = {
    "plain": {},
    "top-k": {"top_k": 2},
    "top-p": {"top_p": 0.9},
    "min-p": {"min_p": 0.5},
    "warm": {"temperature": 2.0},
    "greedy": {"temperature": 0.0},
}


def per_row(n: int, **limits) -> dict[str, torch.Tensor]:
    """One value per row of what a sampling op takes."""
    return {
        k: torch.full((n,), v, dtype=torch.int32 if k == "top_k" else torch.float32)
        for k, v in limits.items()
    }


@pytest.mark.parametrize("limits", LIMITS)
def test_nan_at_any_place(ops, limits):
    """First and last of lanes, vectors, mask words, blocks and parts."""
    places = [0, 1, 7, 8, 31, 32, 100, 255, 256, 511, 512, 599]
    kw = per_row(len(places), **LIMITS[limits])
    x = torch.randn(len(places), 600)
    x[range(len(places)), places] = math.nan
    assert ops("vocab_softmax", x, **kw).isnan().all()
    token, logprob = ops("vocab_sample", x, torch.full((len(places),), 0.5), **kw)
    assert (token == -1).all() and logprob.isnan().all()
    if limits == "plain":
        assert (ops("vocab_argmax", x) == -1).all()
        assert ops("vocab_lse", x)[0].isnan().all()
        assert ops("vocab_logprobs", x, torch.tensor(places) * 0 + 3).isnan().all()


@pytest.mark.parametrize("bits", ["one", "all but one"])
def test_every_bit_of_a_mask(ops, bits):
    """Row j allows token j alone, or every other."""
    size = 70
    x = torch.randn(size, size)
    only = torch.eye(size, dtype=torch.bool)
    allowed = only if bits == "one" else ~only
    mask = lmx.vocab.mask_from_bool(allowed)
    assert torch.equal(ops("vocab_mask_from_bool", allowed), mask)
    assert torch.equal(ops("vocab_mask_to_bool", mask, size), allowed)
    assert torch.equal(ops("vocab_mask_popcount", mask, size), allowed.sum(-1).int())
    want = x.masked_fill(~allowed, -math.inf)
    assert torch.equal(ops("vocab_argmax", x, mask), want.argmax(-1))
    assert torch.equal(ops("vocab_softmax", x, mask) > 0, allowed)
    torch.testing.assert_close(ops("vocab_lse", x, mask)[1], want.logsumexp(-1))
    if bits == "one":
        token, logprob = ops("vocab_sample", x, torch.rand(size), mask)
        assert token.tolist() == list(range(size)) and (logprob == 0).all()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        written = x.to(dtype)
        ops("vocab_mask_apply_", written, mask)
        assert torch.equal(written, x.to(dtype).masked_fill(~allowed, -math.inf))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width,first", [(257, 0), (256, 1), (256, 0), (257, 1), (264, 8)])
def test_rows_at_any_address(ops, dtype, width, first):
    """Pointer and stride, each on and off the borders of 16 bytes."""
    base = torch.randn(3, width).to(dtype)
    x = base[:, first : first + 200]
    mask = make_bitmask(3, 200)
    want = base.clone()
    reference.mask_apply_(want[:, first : first + 200], mask)
    assert torch.equal(ops("vocab_argmax", x, mask), reference.argmax(x, mask))
    ops("vocab_mask_apply_", x, mask)
    assert torch.equal(base, want)


def test_a_narrow_mask_forbids_what_it_does_not_reach(ops):
    x = torch.randn(2, 600)
    mask = torch.full((2, 2), -1, dtype=torch.int32)
    alone = x[:, :64].contiguous()
    assert torch.equal(ops("vocab_softmax", x, mask)[:, :64], ops("vocab_softmax", alone))
    assert ops("vocab_softmax", x, mask)[:, 64:].sum() == 0
    everything, masked = ops("vocab_lse", x, mask)
    assert torch.equal(masked, ops("vocab_lse", alone)[0])
    assert torch.equal(everything, ops("vocab_lse", x)[0])
    u = torch.tensor([0.0, 1 - 2**-24])
    for a, b in zip(ops("vocab_sample", x, u, mask), ops("vocab_sample", alone, u), strict=True):
        assert same_bits(a, b)


@pytest.mark.parametrize("size", [8191, 8192, 8193, 16384, 16385])
def test_argmax_across_parts(ops, size):
    """The last token, ties in two parts, a NaN in the last one."""
    x = torch.zeros(4, size)
    x[0, -1] = 1
    x[1, [5, size - 1]] = 2
    x[2, -1] = math.nan
    x[3, size // 2 :] = 3
    assert ops("vocab_argmax", x).tolist() == [size - 1, 5, -1, size // 2]


def test_draws_in_every_chunk(ops):
    """Of equal weights, whose sums are exact, u = (k + 1/2) / size draws token k."""
    size = 2 * 8192 + 300
    places = torch.tensor([0, 1, 255, 256, 8191, 8192, 8193, 16383, 16384, size - 1])
    x = torch.zeros(len(places), size)
    token, logprob = ops("vocab_sample", x, ((places + 0.5) / size).float())
    assert torch.equal(token, places)
    torch.testing.assert_close(logprob, torch.full_like(logprob, -math.log(size)))
    ends = torch.tensor([0.0, 1 - 2**-24])
    x = torch.full((2, size), -math.inf)
    x[:, [3, 9000, size - 5]] = 0
    assert ops("vocab_sample", x, ends)[0].tolist() == [3, size - 5]


def test_a_draw_on_a_border_is_the_next_token(ops):
    """The cumulative weight must exceed u * total; equal is not enough."""
    x = torch.zeros(5, 4)
    u = torch.tensor([0.0, 0.25, 0.5, 0.75, 0.75 - 2**-24])
    for kw in ({}, per_row(5, top_k=4), per_row(5, min_p=0.5)):
        assert ops("vocab_sample", x, u, **kw)[0].tolist() == [0, 1, 2, 3, 2]


def test_blocks_far_apart(ops):
    """A block of 256 that weighs 2^-1443 or 2^-7213 of another adds nothing to it."""
    for low in (-20.0, -80.0, -90.0, -800.0, -1000.0, -5000.0):
        x = torch.zeros(2, 512)
        x[0, 256:] = low
        x[1, :256] = low
        exact = reference.softmax(x)
        p = ops("vocab_softmax", x)
        torch.testing.assert_close(p.double(), exact, atol=2.0**-126, rtol=1e-6)
        torch.testing.assert_close(
            ops("vocab_lse", x)[0].double(), x.double().logsumexp(-1), rtol=1e-7, atol=0
        )
        token, logprob = ops("vocab_sample", x, torch.tensor([0.498, 0.498]))
        assert token.tolist() == [127, 383]
        torch.testing.assert_close(logprob.double(), exact.max(-1).values.log(), rtol=1e-6, atol=0)
        target = torch.tensor([511, 0])
        got = ops("vocab_logprobs", x, target).double()
        want = x.double().log_softmax(-1)[range(2), target]
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("limits", [{}, {"top_p": 0.99999994}, {"top_k": 200}], ids=str)
def test_weights_fade_out_within_a_block(ops, limits):
    """e^0, e^-1, ..., e^-255: right as long as floats are normal, then 0."""
    x = -torch.arange(256.0)[None]
    p, exact = ops("vocab_softmax", x, **per_row(1, **limits))[0], reference.softmax(x)[0]
    seen = p > 0
    assert (p[89:] == 0).all() and ("top_p" in limits or seen[:86].all())
    torch.testing.assert_close(p[seen].double(), exact[seen], rtol=3e-6, atol=0)


def test_the_least_temperature(ops):
    """1e-3 divides; anything below takes the argmax, and has no lse."""
    x = torch.tensor([[1.0, 1.0, 0.0]]).expand(2, 3).contiguous()
    least = torch.tensor(1e-3)
    t = torch.stack([least, torch.nextafter(least, torch.tensor(0.0))])
    p = ops("vocab_softmax", x, temperature=t)
    torch.testing.assert_close(p, torch.tensor([[0.5, 0.5, 0], [1, 0, 0]]))
    token, logprob = ops("vocab_sample", x, torch.tensor([0.75, 0.75]), temperature=t)
    assert token.tolist() == [1, 0] and logprob[0] < -0.693 and logprob[1] == 0
    status = torch.zeros(2, dtype=torch.int32)
    lse, _ = ops("vocab_lse", x, temperature=t, status=status)
    assert status.tolist() == [0, 64] and lse[0].item() == pytest.approx(1e3 + math.log(2))


@pytest.mark.parametrize("limits", LIMITS)
def test_logits_beyond_the_bound(ops, limits):
    """Where the fraction of a logit is lost, all count as equal, in every way to a draw."""
    x = torch.tensor(
        [[1e30, 1e30, -1e30], [math.inf, 0.0, math.inf], [-3e38, -math.inf, -3e38], [2e7, 1.0, 2e7]]
    )
    kw = per_row(4, **LIMITS[limits])
    greedy = limits == "greedy"
    p = ops("vocab_softmax", x, **kw)
    two = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0.5, 0, 0.5], [0.5, 0, 0.5]]
    assert p.tolist() == ([[1, 0, 0]] * 4 if greedy else two)
    token, _ = ops("vocab_sample", x, torch.full((4,), 0.75), **kw)
    assert token.tolist() == ([0] * 4 if greedy else [1, 2, 2, 2])


def test_status_keeps_the_bits_it_finds(ops):
    x = make_logits(2, 300)
    mask = make_bitmask(1, 300, 0.9)
    ids = torch.tensor([7, 0], dtype=torch.int32)
    u = torch.tensor([0.5, 0.5])
    calls = {
        "vocab_argmax": (x, mask, ids),
        "vocab_softmax": (x, mask, ids),
        "vocab_lse": (x, mask, ids),
        "vocab_sample": (x, u, mask, ids),
        "vocab_mask_apply_": (x.clone(), mask, ids),
    }
    for op, args in calls.items():
        status = torch.tensor([1, 2], dtype=torch.int32)
        ops(op, *args, status=status)
        assert status.tolist() == [33, 2], op
    status = torch.tensor([1, 2], dtype=torch.int32)
    ops("vocab_logprobs", x, torch.tensor([300, 299]), status=status)
    assert status.tolist() == [5, 2]


def test_values_just_outside_their_ranges(ops):
    """Each limit's first bad value sets the bit, its last good one does not."""
    x = make_logits(2, 40)
    up, down = torch.tensor([math.inf]), torch.tensor([-math.inf])
    one, zero = torch.tensor([1.0]), torch.tensor([0.0])
    pairs = {
        "temperature": (zero, torch.nextafter(zero, down)),
        "top_p": (one, torch.nextafter(one, up)),
        "min_p": (one, torch.nextafter(one, up)),
    }
    pairs_low = {
        "top_p": (torch.nextafter(zero, up), zero),
        "min_p": (zero, torch.nextafter(zero, down)),
        "temperature": (torch.tensor([3e38]), up),
    }
    for name, pair in [*pairs.items(), *pairs_low.items()]:
        status = torch.zeros(2, dtype=torch.int32)
        ops("vocab_softmax", x, **{name: torch.cat(pair)}, status=status)
        assert status.tolist() == [0, 64], name
    status = torch.zeros(2, dtype=torch.int32)
    u = torch.tensor([0.0, -1e-45])
    ops("vocab_sample", x, u, status=status)
    assert status.tolist() == [0, 64]
    mask = make_bitmask(3, 40)
    status.zero_()
    ops("vocab_argmax", x, mask, torch.tensor([2, 3], dtype=torch.int32), status=status)
    assert status.tolist() == [0, 32]


def test_rows_that_are_one_row(ops):
    """A stride of 0: the same logits for every row."""
    one = torch.randn(1, 300)
    rows = one.expand(3, -1)
    assert ops("vocab_argmax", rows).tolist() == [int(one.argmax())] * 3
    assert torch.equal(ops("vocab_softmax", rows), ops("vocab_softmax", rows.contiguous()))


def test_a_nan_is_seen_from_any_chunk(ops):
    """In the first of several rounds of a warp over a row's blocks, and in no other."""
    x = torch.zeros(1, 2 * 32 * 256 + 5)
    x[0, 17] = math.nan
    assert ops("vocab_lse", x)[0].isnan().all()
    assert ops("vocab_softmax", x).isnan().all()
    assert ops("vocab_argmax", x).item() == -1
