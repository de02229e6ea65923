"""`attention_paged` against the reference in float64."""

import torch
from helpers import some
from samples import samples_of

from lmx.attention import reference


def test_samples_match_the_reference(ops):
    for sample in some(ops, samples_of("attention_paged")):
        fresh = sample.fresh()
        out, lse, *_ = ops("attention_paged", *fresh.args, **fresh.kwargs)
        exact, exact_lse = reference.paged(*sample.args, **sample.kwargs)
        eps = torch.finfo(out.dtype).eps
        torch.testing.assert_close(out.double(), exact, rtol=2 * eps, atol=2 * eps + 1e-5)
        torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-5, atol=1e-5)
