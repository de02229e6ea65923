import pytest
import torch
from helpers import run
from samples import samples_of

from lmx.vocab import reference


def test_mask_apply_(ops):
    for s in samples_of("vocab_mask_apply_"):
        written = run(ops, "vocab_mask_apply_", s)[0]
        want = s.fresh().args[0]
        reference.mask_apply_(want, *s.args[1:])
        assert torch.equal(written, want), s.name


def test_mask_apply_leaves_the_rest_of_a_strided_view_alone(ops):
    base = torch.randn(3, 200).half()
    before = base.clone()
    mask = torch.zeros(3, 3, dtype=torch.int32)
    ops("vocab_mask_apply_", base[:, 50:140], mask)
    assert (base[:, 50:140] == -torch.inf).all()
    assert torch.equal(base[:, :50], before[:, :50]) and torch.equal(base[:, 140:], before[:, 140:])


def test_mask_apply_keeps_nan_that_is_allowed(ops):
    x = torch.tensor([[float("nan"), 1.0, float("nan")]])
    ops("vocab_mask_apply_", x, torch.tensor([[0b011]], dtype=torch.int32))
    assert x[0, 0].isnan() and x[0, 1] == 1 and x[0, 2] == -torch.inf


def test_mask_from_bool(ops):
    for s in samples_of("vocab_mask_from_bool"):
        (words, _) = run(ops, "vocab_mask_from_bool", s)
        assert torch.equal(words, reference.mask_from_bool(*s.args)), s.name
    assert (
        ops("vocab_mask_from_bool", torch.ones(2, 33, dtype=torch.bool)).tolist() == [[-1, 1]] * 2
    )


def test_mask_to_bool(ops):
    for s in samples_of("vocab_mask_to_bool"):
        (allowed, _) = run(ops, "vocab_mask_to_bool", s)
        assert torch.equal(allowed, reference.mask_to_bool(*s.args)), s.name
        back = ops("vocab_mask_from_bool", allowed)
        assert torch.equal(ops("vocab_mask_to_bool", back, s.args[1]), allowed)


def test_mask_and_or(ops):
    for s in samples_of("vocab_mask_and_"):
        a, b = s.args
        assert torch.equal(run(ops, "vocab_mask_and_", s)[0], a & b), s.name
        assert torch.equal(run(ops, "vocab_mask_or_", s)[0], a | b), s.name


def test_mask_popcount(ops):
    for s in samples_of("vocab_mask_popcount"):
        (count, _) = run(ops, "vocab_mask_popcount", s)
        assert torch.equal(count, reference.mask_popcount(*s.args)), s.name
        assert torch.equal(
            ops("vocab_mask_popcount", s.args[0]), reference.mask_popcount(s.args[0])
        )
    assert ops("vocab_mask_popcount", torch.full((1, 2), -1, dtype=torch.int32), 33).item() == 33
    assert ops("vocab_mask_popcount", torch.full((1, 2), -1, dtype=torch.int32), 0).item() == 0


def test_rows_wider_than_a_piece_of_work(ops):
    vocab_size = 2 * 65_536 + 77  # a thread takes 65,536 tokens at a time
    allowed = torch.rand(2, vocab_size, generator=torch.Generator().manual_seed(0)) < 0.5
    words = ops("vocab_mask_from_bool", allowed)
    assert torch.equal(ops("vocab_mask_to_bool", words, vocab_size), allowed)
    logits = torch.zeros(2, vocab_size)
    ops("vocab_mask_apply_", logits, words)
    assert torch.equal(logits == 0, allowed)


def test_masks_that_overlap_by_a_word_are_refused():
    words = torch.zeros(9, dtype=torch.int32)
    for first, second in ((0, 1), (1, 0), (0, 3), (3, 0)):
        a, b = (words[i : i + 4].view(1, 4) for i in (first, second))
        with pytest.raises(RuntimeError, match="expected other to be token_bitmask or"):
            torch.ops.lmx.vocab_mask_and_(a, b)
    torch.ops.lmx.vocab_mask_or_(words[:4].view(1, 4), words[4:8].view(1, 4))
