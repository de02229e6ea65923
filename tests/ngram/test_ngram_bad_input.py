# ruff: noqa: E501  (a table: one case a line)
"""Every wrong argument of an op gets a message with the op, the argument, expected and got."""

import re

import pytest
import torch
from ngram.corpora import corpora

from lmx import ngram
from lmx.ngram import ragged

I64, I32 = torch.int64, torch.int32
INDEX = corpora()[3].index().tensors
MAIN = INDEX.main
V = INDEX.vocab_size
TOK, OFF = ragged([[1, 2], [3]])
RNG, DEPTH = ngram.find(INDEX, TOK, OFF)[0], torch.tensor([2, 1], dtype=I32)


def at(position, value):
    return (*MAIN[:position], value, *MAIN[position + 1 :])


WRONG = [
    ("ngram_find", (*at(0, MAIN[0].float()), TOK, OFF, V), "expected text of dtype Byte, Short, UInt16, Int or UInt32, got Float"),
    ("ngram_find", (*at(0, MAIN[0][None]), TOK, OFF, V), "expected text of shape (-1) = [-1], got [1, "),
    ("ngram_find", (*at(1, MAIN[1].long()), TOK, OFF, V), "expected sa of dtype Int or UInt32, got Long"),
    ("ngram_find", (*at(2, MAIN[2][:, 1:]), TOK, OFF, V), "expected lut of shape (shards.size(0), vocab_size + 2) = [1, 52], got [1, 51]"),
    ("ngram_find", (*at(3, MAIN[3].int()), TOK, OFF, V), "expected skey of dtype Long, got Int"),
    ("ngram_find", (*at(4, MAIN[4][:, :7]), TOK, OFF, V), "expected shards of shape (-1, kShardColumns) = [-1, 8], got [1, 7]"),
    ("ngram_find", (*MAIN, TOK.int(), OFF, V), "expected qtok of dtype Long, got Int"),
    ("ngram_find", (*MAIN, TOK, OFF[:0], V), "expected qoff of at least one entry, got none"),
    ("ngram_find", (*MAIN, TOK[::2], OFF, V), "expected qtok contiguous, got sizes [2] and strides [2]"),
    ("ngram_find", (*MAIN, TOK, OFF, -1), "expected vocab_size in [0, 2147483648], got -1"),
    ("ngram_find", (*MAIN, TOK, OFF, V, 9), "expected ptr_bytes in [0, 8], got 9"),
    ("ngram_find", (*MAIN, TOK, OFF, V, 0, RNG), "expected hint of shape (num_queries, num_shards, 3) = [2, 1, 3], got [2, 1, 2]"),
    ("ngram_find", (*MAIN, TOK, OFF, V, 0, None, torch.zeros(3, dtype=I32)), "expected status of shape (num_rows) = [2], got [3]"),
    ("ngram_longest_suffix", (*MAIN, TOK, OFF, V, 0, -1), "expected max_len in [0, 2147483647], got -1"),
    ("ngram_longest_suffix", (*MAIN, TOK, OFF, V, 0, 0, 0), "expected min_count in [1, 9223372036854775807], got 0"),
    ("ngram_longest_suffix", (*MAIN, TOK, OFF, V, 0, 0, 1, DEPTH.long()), "expected prev_len of dtype Int, got Long"),
    ("ngram_next_prob", (*MAIN, RNG[..., :1], DEPTH, TOK[:2], V), "expected rng of shape (num_queries, num_shards, 2) = [-1, 1, 2], got [2, 1, 1]"),
    ("ngram_next_prob", (*MAIN, RNG, DEPTH[:1], TOK[:2], V), "expected depth of shape (num_queries) = [2], got [1]"),
    ("ngram_next_prob", (*MAIN, RNG, DEPTH, TOK, V), "expected tok of shape (num_queries) = [2], got [3]"),
    ("ngram_next_prob", (*MAIN, RNG, DEPTH, TOK[:2], V, V), "expected eos_id in [-1, 49], got 50"),
    ("ngram_ntd", (*MAIN, RNG, DEPTH, V, -1), "expected capacity in [0, "),
    ("ngram_ntd", (*MAIN, RNG, DEPTH, V, 9, -1, 0, -1), "expected max_support in [0, 2147483647], got -1"),
    ("ngram_ntd_topk", (*MAIN, RNG, DEPTH, V, -1), "expected k in [0, 2147483647], got -1"),
    ("ngram_locate", (*MAIN, INDEX.docs.int(), RNG, V, 1), "expected docs of dtype Long, got Int"),
    ("ngram_sa_build", (MAIN[0], V, 10**9), "expected num_suffixes in [0, "),
    ("ngram_mix", (torch.zeros(2, 5), torch.zeros(3), OFF, TOK, TOK, 0.1, 0.1), "expected lse of shape (num_rows) = [2], got [3]"),
    ("ngram_mix", (torch.zeros(2, 5), torch.zeros(2), OFF, TOK, TOK[:2], 0.1, 0.1), "expected num of shape (num_entries) = [3], got [2]"),
    ("ngram_mix", (torch.zeros(2, 5), torch.zeros(2), OFF, TOK, TOK, 0.1, 1.5), "expected lam_dense in [0, 1], got 1.5"),
]  # fmt: skip


@pytest.mark.parametrize("op,args,message", WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_shapes_types_and_parameters(ops, op, args, message):
    with pytest.raises(RuntimeError, match=re.escape(f"lmx::{op}: {message}")):
        ops(op, *args)


BAD_OFFSETS = torch.tensor([0, 3, 2])
OFFSET_OPS = ("ngram_find", "ngram_longest_suffix", "ngram_longest_prefix", "ngram_score")


@pytest.mark.parametrize("op", OFFSET_OPS)
def test_bad_offsets(ops, op):
    """A row with wrong offsets holds nothing; the others are as they are."""
    status = torch.zeros(2, dtype=I32)
    ops(op, *MAIN, TOK, BAD_OFFSETS, V, status=status)
    assert status.tolist() == [0, 8]
    if ops.name == "cpu":
        with pytest.raises(ValueError, match=f"lmx::{op}: expected offsets .* got others at row 1"):
            ops(op, *MAIN, TOK, BAD_OFFSETS, V)


def test_ranges_of_another_index(ops):
    status = torch.zeros(2, dtype=I32)
    wrong = RNG.clone()
    wrong[1, 0, 1] = 10**6
    num, den = ops("ngram_next_prob", *MAIN, wrong, DEPTH, TOK[:2], V, status=status)
    assert status.tolist() == [0, 64] and (int(num[1]), int(den[1])) == (0, 0)


@pytest.mark.parametrize("column,value", [(0, 10**9), (1, -1), (2, 2**62), (3, 10**7), (7, 3)])
def test_tables_that_lead_outside(ops, column, value):
    shards = MAIN[4].clone()
    shards[0, column] = value
    status = torch.zeros(2, dtype=I32)
    _, cnt = ops("ngram_find", *at(4, shards), TOK, OFF, V, status=status)
    assert (status & 256).all() and not cnt.any()


def test_pointers_that_lead_outside(ops):
    sa = torch.full_like(MAIN[1], -1)
    status = torch.zeros(2, dtype=I32)
    ops("ngram_find", *at(1, sa), TOK, OFF, V, status=status)
    assert (status & 256).any()


def test_texts_that_no_builder_makes():
    text = MAIN[0].clone()
    size = MAIN[1].numel()
    with pytest.raises(ValueError, match="text that begins and ends with a separator"):
        ngram.sa_build(text[2:].contiguous(), V, size)
    with pytest.raises(ValueError, match=f"num_suffixes {size}, the tokens that are no separator"):
        ngram.sa_build(text, V, size - 1)
    text[2] = V
    with pytest.raises(ValueError, match=f"tokens below {V}, got {V} at 2"):
        ngram.sa_build(text, V, size)
