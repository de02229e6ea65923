"""grammar_step and vocab_mask_gather: their references, and bad values, on every backend."""

import pytest
import torch
from samples import samples_of

from lmx import grammar
from lmx.vocab import reference as vocab_reference


def test_step_is_its_reference(ops):
    for sample in samples_of("grammar_step"):
        if len(sample.args) == 6:
            assert torch.equal(
                ops("grammar_step", *sample.args), grammar.reference.step(*sample.args)
            )


def test_gather_is_its_reference(ops):
    for sample in samples_of("vocab_mask_gather"):
        if len(sample.args) == 3:
            ours = ops("vocab_mask_gather", *sample.args)
            assert torch.equal(ours, vocab_reference.mask_gather(*sample.args))


def test_gathered_ones_end_with_the_vocabulary(ops):
    pool = torch.zeros(1, 3, dtype=torch.int32)
    ids = torch.tensor([-1, 0], dtype=torch.int32)
    assert ops("vocab_mask_gather", pool, ids, 66).tolist() == [[-1, -1, 3], [0, 0, 0]]
    assert ops("vocab_mask_gather", pool, ids).tolist()[0] == [-1, -1, -1]


def step_args(**changes):
    args = {
        "states": torch.tensor([0], dtype=torch.int32),
        "tokens": torch.tensor([0]),
        "transitions": torch.tensor([[1, -1], [-1, 1]], dtype=torch.int16),
        "classes": torch.zeros(258, dtype=torch.int16),
        "symbols": torch.tensor([97], dtype=torch.int16),
        "offsets": torch.tensor([0, 1], dtype=torch.int32),
    }
    return {**args, **changes}


BAD_VALUES = [
    ({"tokens": torch.tensor([1])}, 1 << 2, r"row 0: expected a token in \[0, 1\), got 1"),
    ({"states": torch.tensor([2], dtype=torch.int32)}, 1 << 6, r"expected states in \[-1, 2\)"),
    ({"offsets": torch.tensor([0, 2], dtype=torch.int32)}, 1 << 3, "expected offsets of token 0"),
    ({"offsets": torch.tensor([1, 0], dtype=torch.int32)}, 1 << 3, "expected offsets of token 0"),
    ({"symbols": torch.tensor([258], dtype=torch.int16)}, 1 << 6, "expected states in"),
    ({"classes": torch.full((258,), 2, dtype=torch.int16)}, 1 << 6, r"classes in \[0, 2\)"),
    ({"transitions": torch.tensor([[5, 0]], dtype=torch.int16)}, 1 << 6, "expected states in"),
]


@pytest.mark.parametrize(("changes", "bits", "message"), BAD_VALUES)
def test_bad_values_of_step(ops, changes, bits, message):
    status = torch.zeros(1, dtype=torch.int32)
    assert ops("grammar_step", **step_args(**changes), status=status).tolist() == [-1]
    assert status.tolist() == [bits]
    with pytest.raises(ValueError, match="lmx::grammar_step: .*" + message):
        torch.ops.lmx.grammar_step(**step_args(**changes))


BAD_SHAPES = [
    ({"states": torch.zeros(1)}, "expected states of dtype Int"),
    ({"tokens": torch.zeros(2, dtype=torch.int64)}, r"expected tokens of shape \(num_rows\)"),
    ({"classes": torch.zeros(3, dtype=torch.int16)}, r"expected classes of shape \(258\)"),
    ({"offsets": torch.zeros(0, dtype=torch.int32)}, "expected offsets of at least one entry"),
    ({"symbols": torch.zeros(4, dtype=torch.int16)[::2]}, "expected symbols contiguous"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_SHAPES)
def test_bad_shapes_of_step(ops, changes, message):
    with pytest.raises(RuntimeError, match="lmx::grammar_step: " + message):
        ops("grammar_step", **step_args(**changes))


def test_bad_values_of_gather(ops):
    pool = torch.ones(2, 1, dtype=torch.int32)
    ids = torch.tensor([1, 2, -2], dtype=torch.int32)
    status = torch.zeros(3, dtype=torch.int32)
    assert ops("vocab_mask_gather", pool, ids, -1, status).tolist() == [[1], [0], [0]]
    assert status.tolist() == [0, 1 << 5, 1 << 5]
    with pytest.raises(ValueError, match=r"expected mask_ids in \[-1, 2\), got 2"):
        torch.ops.lmx.vocab_mask_gather(pool, ids)
    with pytest.raises(RuntimeError, match=r"expected vocab_size in \[-1, 32\], got 33"):
        ops("vocab_mask_gather", pool, ids[:1], 33)
