"""`attention_rope` and `attention_merge` against their references."""

import torch
from helpers import same_bits, some
from samples import samples_of

from lmx.attention import reference


def test_rope_is_the_reference_bit_for_bit(ops):
    for sample in some(ops, samples_of("attention_rope")):
        got = ops("attention_rope", *sample.args)
        for ours, theirs in zip(got, reference.rope(*sample.args), strict=True):
            assert same_bits(ours, theirs), sample.name


def test_merge_matches_the_reference(ops):
    for sample in some(ops, samples_of("attention_merge")):
        out, lse = ops("attention_merge", *sample.args)
        exact_out, exact_lse = reference.merge(*sample.args)
        eps = torch.finfo(out.dtype).eps
        torch.testing.assert_close(out.double(), exact_out, rtol=eps, atol=2**-20)
        torch.testing.assert_close(lse.double(), exact_lse, rtol=2**-23, atol=2**-23)
