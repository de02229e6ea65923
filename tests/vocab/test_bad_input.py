# ruff: noqa: E501  (a table: one case a line)
"""Every wrong input gets a message with the op, the argument, what was expected and what came."""

import re

import pytest
import torch

import lmx

X = torch.zeros(3, 40)
ROWS = ("vocab_argmax", "vocab_softmax", "vocab_lse")
MASK = torch.zeros(3, 2, dtype=torch.int32)
I64, I32 = torch.int64, torch.int32


def per_row(dtype, n=3):
    return torch.ones(n, dtype=dtype)


WRONG = [
    # op, args, kwargs, message
    *((op, (torch.zeros(40),), {}, "expected logits of shape (-1, -1) = [-1, -1], got [40]") for op in ROWS),
    *((op, (X.double(),), {}, "expected logits of dtype Float, Half or BFloat16, got Double") for op in ROWS),
    *((op, (X.t(),), {}, "expected logits contiguous in the last dimension, got strides [1, 40]") for op in ROWS),
    *((op, (X, MASK[:2]), {}, "expected token_bitmask of shape (num_rows, mask_words) = [3, -1], got [2, 2]") for op in ROWS),
    *((op, (X, MASK[0]), {}, "expected token_bitmask of shape (num_rows, mask_words) = [3, -1], got [2]") for op in ROWS),
    *((op, (X, MASK.long()), {}, "expected token_bitmask of dtype Int, got Long") for op in ROWS),
    *((op, (X, torch.zeros(3, 3, dtype=I32)), {}, "expected token_bitmask with at most 2 words a row for 40 tokens, got 3") for op in ROWS),
    *((op, (X, torch.zeros(2, 3, dtype=I32).t()), {}, "expected token_bitmask contiguous, got sizes [3, 2] and strides [1, 3]") for op in ROWS),
    *((op, (X, None, per_row(I32)), {}, "expected token_bitmask where mask_ids is given, got None") for op in ROWS),
    *((op, (X, MASK, per_row(I64)), {}, "expected mask_ids of dtype Int, got Long") for op in ROWS),
    *((op, (X, MASK, per_row(I32, 4)), {}, "expected mask_ids of shape (num_rows) = [3], got [4]") for op in ROWS),
    *((op, (X,), {"status": per_row(I64)}, "expected status of dtype Int, got Long") for op in ROWS),
    *((op, (X,), {"status": per_row(I32, 2)}, "expected status of shape (num_rows) = [3], got [2]") for op in ROWS),
    ("vocab_argmax", (torch.zeros(1, 2**24 + 1, dtype=torch.float16),), {}, "expected logits with at most 16777216 tokens a row, got 16777217"),
    ("vocab_softmax", (X,), {"temperature": per_row(torch.float64)}, "expected temperature of dtype Float, got Double"),
    ("vocab_softmax", (X,), {"top_k": per_row(I64)}, "expected top_k of dtype Int, got Long"),
    ("vocab_softmax", (X,), {"top_p": torch.ones(6)[::2]}, "expected top_p contiguous, got sizes [3] and strides [2]"),
    ("vocab_softmax", (X,), {"min_p": torch.ones(3, 1)}, "expected min_p of shape (num_rows) = [3], got [3, 1]"),
    ("vocab_lse", (X,), {"temperature": torch.ones(1)}, "expected temperature of shape (num_rows) = [3], got [1]"),
    ("vocab_sample", (X, torch.zeros(2)), {}, "expected uniforms of shape (num_rows) = [3], got [2]"),
    ("vocab_sample", (X, torch.zeros(3).half()), {}, "expected uniforms of dtype Float, got Half"),
    ("vocab_logprobs", (X, per_row(I32)), {}, "expected targets of dtype Long, got Int"),
    ("vocab_logprobs", (X, per_row(I64, 4)), {}, "expected targets of shape (num_rows) = [3], got [4]"),
    ("vocab_uniform", (per_row(I32), per_row(I64), 1), {}, "expected seeds of dtype Long, got Int"),
    ("vocab_uniform", (per_row(I64)[None], per_row(I64), 1), {}, "expected seeds of shape (-1) = [-1], got [1, 3]"),
    ("vocab_uniform", (per_row(I64), per_row(I64, 4), 1), {}, "expected positions of shape (n) = [3], got [4]"),
    ("vocab_uniform", (per_row(I64), per_row(I64), 256), {}, "expected purpose in [0, 256), got 256"),
    ("vocab_uniform", (per_row(I64), per_row(I64), -1), {}, "expected purpose in [0, 256), got -1"),
    ("vocab_uniform", (per_row(I64), per_row(I64), 1, per_row(I32)), {}, "expected indices of dtype Long, got Int"),
    ("vocab_uniform", (per_row(I64), per_row(I64), 1, None, per_row(I64, 2)), {}, "expected hi of shape (n) = [3], got [2]"),
    ("vocab_mask_apply_", (X, MASK[:1]), {}, "expected token_bitmask of shape (num_rows, mask_words) = [3, -1], got [1, 2]"),
    ("vocab_mask_apply_", (torch.zeros(1, 40).expand(3, 40), MASK), {}, "expected logits whose rows do not overlap, got sizes [3, 40] and strides [0, 1]"),
    ("vocab_mask_apply_", (X.int(), MASK), {}, "expected logits of dtype Float, Half or BFloat16, got Int"),
    ("vocab_mask_from_bool", (MASK,), {}, "expected allowed of dtype Bool, got Int"),
    ("vocab_mask_from_bool", (torch.ones(3, dtype=torch.bool),), {}, "expected allowed of shape (-1, -1) = [-1, -1], got [3]"),
    ("vocab_mask_from_bool", (torch.ones(3, 8, dtype=torch.bool)[:, ::2],), {}, "expected allowed contiguous, got sizes [3, 4] and strides [8, 2]"),
    ("vocab_mask_to_bool", (MASK, 65), {}, "expected vocab_size in (32, 64] for 2 words a row, got 65"),
    ("vocab_mask_to_bool", (MASK, 32), {}, "expected vocab_size in (32, 64] for 2 words a row, got 32"),
    ("vocab_mask_to_bool", (MASK, -1), {}, "expected vocab_size in (32, 64] for 2 words a row, got -1"),
    ("vocab_mask_and_", (MASK, MASK[:, :1]), {}, "expected other of shape (token_bitmask.size(0), token_bitmask.size(1)) = [3, 2], got [3, 1]"),
    ("vocab_mask_or_", (MASK, MASK.long()), {}, "expected other of dtype Int, got Long"),
    ("vocab_mask_popcount", (MASK, 65), {}, "expected vocab_size in [-1, 64], got 65"),
    ("vocab_mask_popcount", (MASK.long(),), {}, "expected token_bitmask of dtype Int, got Long"),
]  # fmt: skip


@pytest.mark.parametrize(
    "op,args,kwargs,message", WRONG, ids=lambda v: v if isinstance(v, str) else ""
)
def test_shapes_and_types(ops, op, args, kwargs, message):
    with pytest.raises(RuntimeError, match=re.escape(f"lmx::{op}: {message}")):
        ops(op, *args, **kwargs)


def test_device():
    """No second device here but meta's, which the dispatcher refuses before us; ours is tested on a GPU."""
    if lmx.no_cuda:
        with pytest.raises(NotImplementedError, match="vocab_mask_and_"):
            torch.ops.lmx.vocab_mask_and_(MASK, MASK.to_sparse())
        return
    message = "expected token_bitmask on the device of logits = cuda:0, got cpu"
    with pytest.raises(RuntimeError, match=message):
        torch.ops.lmx.vocab_argmax(X.cuda(), MASK)


VALUES = [
    ("vocab_argmax", (X, MASK, torch.tensor([0, 3, 1], dtype=I32)), {}, "expected mask_ids[1] in [-1, 3), got 3"),
    ("vocab_mask_apply_", (X, MASK, torch.tensor([0, 0, -2], dtype=I32)), {}, "expected mask_ids[2] in [-1, 3), got -2"),
    ("vocab_softmax", (X,), {"temperature": torch.tensor([1, -0.5, 1])}, "expected temperature[1] in [0, inf), got -0.500000"),
    ("vocab_softmax", (X,), {"temperature": torch.tensor([1, 1, torch.nan])}, "expected temperature[2] in [0, inf), got nan"),
    ("vocab_softmax", (X,), {"temperature": torch.tensor([torch.inf, 1, 1])}, "expected temperature[0] in [0, inf), got inf"),
    ("vocab_softmax", (X,), {"top_k": torch.tensor([1, -1, 1], dtype=I32)}, "expected top_k[1] in [0, 2^31), got -1"),
    ("vocab_softmax", (X,), {"top_p": torch.tensor([1, 1, 0.0])}, "expected top_p[2] in (0, 1], got 0.000000"),
    ("vocab_softmax", (X,), {"top_p": torch.tensor([1, 1.5, 1])}, "expected top_p[1] in (0, 1], got 1.500000"),
    ("vocab_softmax", (X,), {"min_p": torch.tensor([0, 0, -0.25])}, "expected min_p[2] in [0, 1], got -0.250000"),
    ("vocab_sample", (X, torch.tensor([0, 1.0, 0])), {}, "expected uniforms[1] in [0, 1), got 1.000000"),
    ("vocab_sample", (X, torch.zeros(3)), {"min_p": torch.tensor([0, 2.0, 0])}, "expected min_p[1] in [0, 1], got 2.000000"),
    ("vocab_lse", (X,), {"temperature": torch.tensor([1.0, 0.0, 1.0])}, "expected temperature[1] of at least 0.001, got 0.000000"),
    ("vocab_uniform", (per_row(I64), torch.tensor([0, -1, 0]), 1), {}, "expected positions in [0, 2^56), indices and hi in [0, 2^32), got positions[1] = -1"),
    ("vocab_uniform", (per_row(I64), torch.tensor([0, 0, 2**56]), 1), {}, "expected positions in [0, 2^56), indices and hi in [0, 2^32), got positions[2] = 72057594037927936"),
    ("vocab_uniform", (per_row(I64), per_row(I64), 1, torch.tensor([0, 2**32, 0])), {}, "expected positions in [0, 2^56), indices and hi in [0, 2^32), got positions[1] = 1, indices 4294967296"),
    ("vocab_logprobs", (X, torch.tensor([0, 40, 1])), {}, "expected targets[1] in [-1, 40), got 40"),
    ("vocab_logprobs", (X, torch.tensor([0, -2, 1])), {}, "expected targets[1] in [-1, 40), got -2"),
]  # fmt: skip


@pytest.mark.parametrize(
    "op,args,kwargs,message", VALUES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_values(op, args, kwargs, message):
    """The CPU raises; a GPU does not look, and sets a bit where it is given a status tensor."""
    with pytest.raises(ValueError, match=re.escape(f"lmx::{op}: {message}")):
        getattr(torch.ops.lmx, op)(*args, **kwargs)


def test_faces():
    x = torch.randn(2, 8, requires_grad=True)
    with pytest.raises(
        ValueError, match=r"lmx.vocab.softmax has no backward.*torch.inference_mode"
    ):
        lmx.vocab.softmax(x)
    with torch.no_grad():
        lmx.vocab.softmax(x)
    x = x.detach()
    with pytest.raises(
        TypeError, match="lmx.vocab.softmax: expected temperature a number.*got 'hot'"
    ):
        lmx.vocab.softmax(x, temperature="hot")
    with pytest.raises(TypeError, match="lmx.vocab.softmax: expected top_k an integer.*got 2.5"):
        lmx.vocab.softmax(x, top_k=2.5)
    with pytest.raises(ValueError, match=r"expected top_k in \[0, 2\^31\), got 2147483648"):
        lmx.vocab.softmax(x, top_k=2**31)
    with pytest.raises(ValueError, match=r"expected index in \[0, 2\^32\), got -1"):
        lmx.vocab.uniform(torch.zeros(1).long(), torch.zeros(1).long(), 1, -1)
    number = lmx.vocab.sample(x, torch.tensor([0.3, 0.6]), temperature=0.7, top_k=3)
    tensor = lmx.vocab.sample(
        x,
        torch.tensor([0.3, 0.6]),
        temperature=torch.full((2,), 0.7),
        top_k=torch.full((2,), 3).int(),
    )
    assert torch.equal(number[0], tensor[0]) and torch.equal(number[1], tensor[1])


def test_words_that_overlap_in_part():
    words = torch.zeros(8, dtype=I32)
    message = "expected other to be token_bitmask or memory apart from it, got 8 bytes between them"
    with pytest.raises(RuntimeError, match=message):
        torch.ops.lmx.vocab_mask_and_(words[:6].view(3, 2), words[2:].view(3, 2))


def test_writing_is_told_to_autograd():
    """A backward that needs what a mask has overwritten must raise, as with torch's own ops."""
    x = torch.randn(2, 8, requires_grad=True)
    y = x.exp()
    with torch.no_grad():
        lmx.vocab.mask_apply_(y, torch.zeros(2, 1, dtype=I32))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
