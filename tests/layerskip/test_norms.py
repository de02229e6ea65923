"""Norms against float64, activations by their own claim."""

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, same_bits
from layerskip_samples import normal
from samples import samples_of

from lmx.layerskip import reference


def test_rmsnorm(ops):
    for s in samples_of("skip_rmsnorm"):
        ours, exact = ops("skip_rmsnorm", *s.args), reference.rmsnorm(*s.args)
        twin = reference.rmsnorm(*s.args).to(s.args[0].dtype)  # one rounding
        assert_close(ours, exact, twin, s.name)
        x = s.args[0]
        if len(s.args) > 2 and s.args[2] is not None:
            skipped = s.args[2] < 0
            assert same_bits(ours[skipped], x[skipped])


def test_layernorm(ops):
    for s in samples_of("skip_layernorm"):
        ours, exact = ops("skip_layernorm", *s.args), reference.layernorm(*s.args)
        x, gamma, beta, group = s.args
        twin = exact.to(x.dtype)
        if x.dtype == torch.float32 and group is None:
            twin = F.layer_norm(x, x.shape[1:]) * gamma[0] + (0 if beta is None else beta[0])
        assert_close(ours, exact, twin, s.name)


def test_norms_of_odd_rows(ops):
    x = torch.tensor(
        [[0.0, 0.0, 0.0], [torch.inf, 1.0, 2.0], [torch.nan, 1.0, 2.0], [1.0, 1.0, 1.0]]
    )
    gamma = torch.tensor([[1.0, 2.0, 3.0]])
    out = ops("skip_rmsnorm", x, gamma, None, 1e-6)
    assert torch.equal(out[0], torch.zeros(3)) and out[1, 0].isnan() and out[2].isnan().all()
    assert torch.equal(out[1, 1:], torch.zeros(2))
    assert not ops("skip_rmsnorm", x[:1], gamma, None, 0.0).isfinite().any()  # 0 / 0
    out = ops("skip_layernorm", x, gamma, gamma)
    assert torch.equal(out[3], gamma[0]) and out[1:3].isnan().all()
    empty = ops("skip_rmsnorm", x[:, :0], gamma[:, :0])
    assert empty.shape == (4, 0) and ops("skip_rmsnorm", x[:0], gamma).shape == (0, 3)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("relu", torch.relu),
        ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
        ("gelu_erf", F.gelu),
        ("silu", F.silu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_activations(ops, name, exact):
    """Within 2^-21 max(|x|, 1) everywhere; the bias is all there is."""
    count = 2000 if ops.name == "simt" else 200_000
    x = torch.cat((torch.linspace(-20, 20, count), torch.tensor([-1e30, -90.0, -88.0, 88.5, 1e30])))
    w = torch.zeros(1, len(x), 1)
    out = ops("skip_gemm", torch.zeros(1, 1), w, None, bias=x[None], activation=name)[0]
    want = exact(x.double())
    assert ((out - want).abs() <= 2.0**-21 * x.abs().clamp(min=1)).all()
    nan = ops("skip_gemm", torch.zeros(1, 1), w[:, :1], None, bias=torch.full((1, 1), torch.nan),
              activation=name)  # fmt: skip
    assert nan.isnan().all()


def test_norms_are_rounded_once(ops):
    """16-bit results are the float32 results of the same inputs, rounded."""
    for dtype in (torch.bfloat16, torch.float16):
        x, gamma = normal(3, 100, dtype=dtype), normal(1, 100, dtype=dtype)
        wide = ops("skip_rmsnorm", x.float(), gamma.float())
        assert same_bits(ops("skip_rmsnorm", x, gamma), wide.to(dtype))
