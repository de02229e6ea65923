"""What the attention ops refuse, with the message, and what they isolate by status."""

import re
from collections.abc import Callable

import pytest
import torch
from attention_samples import Seq, make_batch, make_positions
from helpers import same_bits

import lmx

NAMES = (
    "query key value cu_seqlens_q cu_seqlens_k ancestors kv_pages block_table num_slots "
    "query_pos key_pos"
).split()
BAD_OFFSETS, TOO_MANY, BAD_PAGE, BAD_VALUE = 1 << 3, 1 << 1, 1 << 4, 1 << 6


def good() -> dict:
    """Three sequences: two decode, the one in the middle is a chunk of a prompt."""
    args, kwargs = make_batch([Seq(20), Seq(17, 5), Seq(40)], (4, 2), 64)
    return dict(zip(NAMES, args, strict=True)) | kwargs


def call(ops, named: dict):
    return ops("attention_paged", *(named[n] for n in NAMES), **rest(named))


def rest(named: dict) -> dict:
    return {k: v for k, v in named.items() if k not in NAMES}


def wrong(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], None]:
    def apply(named: dict) -> None:
        named[name] = change(named[name])

    return apply


def given(**values: object) -> Callable[[dict], None]:
    return lambda named: named.update(values)


SHAPES = {
    "query of 2 dimensions": (wrong("query", lambda t: t[0]), r"query of shape \(-1, -1, -1\)"),
    "head_dim": (
        lambda n: n.update({k: n[k][..., :60] for k in ("query", "key", "value")}),
        "head_dim a multiple of 8, at most 256, got 60",
    ),
    "float64": (wrong("query", torch.Tensor.double), "query of dtype Float, Half or BFloat16"),
    "mixed dtypes": (
        wrong("key", torch.Tensor.half),
        "key of the dtype of query = Float, got Half",
    ),
    "pages' dtype": (wrong("kv_pages", torch.Tensor.half), "kv_pages of the dtype of query"),
    "heads": (
        lambda n: n.update(query=n["query"][:, :3]),
        "query heads a multiple of key heads, got 3 and 2",
    ),
    "value": (
        wrong("value", lambda t: t[:-1]),
        r"value of shape \(num_k, num_kv_heads, head_dim\)",
    ),
    "strides": (wrong("query", lambda t: t.mT.contiguous().mT), "query contiguous in the last"),
    "pages of all layers": (wrong("kv_pages", lambda t: t[:, None]), "kv_pages of one layer"),
    "page size": (
        wrong("kv_pages", lambda t: t[..., :12, :]),
        "kv_pages with 8, 16, 32, 64 or 128 slots",
    ),
    "heads of pages": (wrong("kv_pages", lambda t: t[:, :, :1]), "kv_pages of shape"),
    "layout of pages": (
        wrong("kv_pages", lambda t: t.transpose(3, 4).contiguous().transpose(3, 4)),
        "kv_pages contiguous in the last two dimensions",
    ),
    "scopes": (
        wrong("block_table", lambda t: t.expand(-1, 2, -1)),
        "block_table with one row a sequence .*layer and head are not built",
    ),
    "table's dtype": (
        wrong("block_table", torch.Tensor.long),
        "block_table of dtype Int, got Long",
    ),
    "table's batch": (wrong("block_table", lambda t: t[:2]), "block_table of shape"),
    "counts": (wrong("num_slots", lambda t: t[:, 0]), r"num_slots of shape \(p.num_seqs, 1\)"),
    "offsets": (wrong("cu_seqlens_q", torch.Tensor.long), "cu_seqlens_q of dtype Int, got Long"),
    "no offsets": (
        wrong("cu_seqlens_q", lambda t: t[:0]),
        r"cu_seqlens_q of shape \(num_seqs \+ 1\)",
    ),
    "other offsets": (wrong("cu_seqlens_k", lambda t: t[:-1]), "cu_seqlens_k of shape"),
    "positions": (wrong("query_pos", lambda t: t[:-1]), "query_pos of shape"),
    "ancestors": (
        given(ancestors=torch.zeros(3, 1, dtype=torch.int32)),
        r"ancestors of shape \(num_q, ancestor_words\)",
    ),
    "key_keep": (given(key_keep=torch.ones(7, 1, dtype=torch.bool)), "key_keep of shape"),
    "key_keep's dtype": (given(key_keep=torch.ones(7, 2)), "key_keep of dtype Bool"),
    "slopes": (given(alibi_slopes=torch.ones(2)), "alibi_slopes of shape"),
    "slot_pos alone": (
        given(slot_pos=torch.zeros(1, 16, dtype=torch.int32)),
        "slot_pos and slot_pos_table together, got slot_pos alone",
    ),
    "status": (given(status=torch.zeros(2, dtype=torch.int32)), "status of shape"),
    "scale": (given(softmax_scale=float("nan")), "a finite softmax_scale"),
    "softcap": (given(softcap=-1.0), "softcap of at least 0, got -1"),
    "sinks": (given(num_sinks=-1), "num_sinks of at least 0, got -1"),
    "bounds": (given(max_q=-1), "max_q and max_slots of at least 0, got -1"),
    "part": (given(part="suffix"), "part to be one of all, prefix, fresh, got suffix"),
}
LATER = {
    "kv_scale": (torch.ones(1), "kv_scale to be None, for quantised pages are not built"),
    "key_store": ("pre_rope", "key_store to be post_rope, got pre_rope"),
    "positions": ("rank", "positions to be orig, got rank"),
    "clamp": (5, "clamp = 0, got 5"),
    "cos": (torch.ones(1), "cos to be None"),
    "sin": (torch.ones(1), "sin to be None"),
    "slot_rank": (torch.ones(1), "slot_rank to be None"),
    "query_rank": (torch.ones(1), "query_rank to be None"),
    "transform": ("lssa", "transform to be softmax, got lssa"),
    "transform_power": (3, "transform_power = 15, got 3"),
    "transform_n": (torch.ones(1), "transform_n to be None"),
    "row_weight": (torch.ones(7), "row_weight to be None, for column sums"),
    "lse_in": (torch.ones(7, 4), "lse_in to be None, for column sums"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_and_kinds(ops, case):
    change, message = SHAPES[case]
    named = good()
    change(named)
    with pytest.raises(RuntimeError, match="lmx::attention_paged: expected " + message):
        call(ops, named)


@pytest.mark.parametrize("name", LATER)
def test_what_is_not_built_yet_says_so(ops, name):
    value, message = LATER[name]
    with pytest.raises(RuntimeError, match=re.escape("expected " + message)):
        call(ops, good() | {name: value})


def set_entry(name: str, at: tuple, value: int) -> Callable[[dict], None]:
    return lambda named: named[name].__setitem__(at, value)


def few_bits(named: dict) -> None:
    named["ancestors"] = torch.ones(7, 0, dtype=torch.int32)


def bad_positions_page(named: dict) -> None:
    if "slot_pos" not in named:
        named.update(make_positions(named["num_slots"], named["block_table"], 16, 0.2))
    named["slot_pos_table"][1, 0, 1] = 99


# What is changed; the message; the bit; the sequences it is set for.
VALUES = {
    "page 0": (
        set_entry("block_table", (1, 0, 1), 0),
        r"block_table\[1, 0, 1\] in \[1, \d+\), got 0",
        BAD_PAGE,
        [1],
    ),
    "page outside": (
        set_entry("block_table", (1, 0, 0), 77),
        r"block_table\[1, 0, 0\] in \[1, \d+\), got 77",
        BAD_PAGE,
        [1],
    ),
    "negative page": (set_entry("block_table", (1, 0, 0), -1), "got -1", BAD_PAGE, [1]),
    "page of positions": (
        bad_positions_page,
        r"slot_pos_table\[1, 0, 1\] in \[0, \d+\), got 99",
        BAD_PAGE,
        [1],
    ),
    "negative count": (
        set_entry("num_slots", (1, 0), -3),
        r"num_slots of at least 0, got num_slots\[1\] = -3",
        TOO_MANY,
        [1],
    ),
    "more slots than the table": (
        set_entry("num_slots", (1, 0), 5000),
        r"num_slots of at most the table's 80, got num_slots\[1\] = 5000",
        TOO_MANY,
        [1],
    ),
    "more slots than max_slots": (
        given(max_slots=39),
        r"num_slots of at most max_slots = 39, got num_slots\[2\] = 40",
        TOO_MANY,
        [2],
    ),
    "more rows than max_q": (
        given(max_q=4),
        "at most max_q = 4 query rows in sequence 1, got 5",
        TOO_MANY,
        [1],
    ),
    "ancestors too narrow": (
        few_bits,
        "at most the bits of ancestors = 0 fresh keys in sequence 0, got 1",
        TOO_MANY,
        [0, 1, 2],
    ),
    "rows that decrease": (
        set_entry("cu_seqlens_q", (3,), 5),
        r"cu_seqlens_q to ascend from 0 to at most 7, got cu_seqlens_q\[2\] = 6 and .*\[3\] = 5",
        BAD_OFFSETS,
        [2],
    ),
    "rows outside": (
        set_entry("cu_seqlens_q", (3,), 8),
        "cu_seqlens_q to ascend from 0 to at most 7",
        BAD_OFFSETS,
        [2],
    ),
    "keys outside": (
        set_entry("cu_seqlens_k", (3,), 2**31 - 1),
        "cu_seqlens_k to ascend from 0 to at most 7",
        BAD_OFFSETS,
        [2],
    ),
    "a first offset": (
        set_entry("cu_seqlens_k", (0,), 1),
        "cu_seqlens_k to ascend from 0",
        BAD_OFFSETS,
        [0],
    ),
    "fewer keys than rows": (
        lambda n: n.update(cu_seqlens_k=torch.tensor([0, 1, 5, 7]).int()),
        "a fresh key for each query row without ancestors, got 4 keys and 5 rows in sequence 1",
        BAD_OFFSETS,
        [1],
    ),
}


@pytest.mark.parametrize("case", VALUES)
def test_bad_values_raise_or_are_isolated(ops, case):
    """With a status a bad sequence gets its bit and empty rows; the others keep their bits."""
    change, message, bit, bad = VALUES[case]
    named = good()
    before = call(ops, named)
    if case == "page of positions":
        change(named)
        named["slot_pos_table"][1, 0, 1] = named["slot_pos_table"][1, 0, 0]
        before = call(ops, named)
    change(named)
    if ops.name == "cpu":
        with pytest.raises(ValueError, match="lmx::attention_paged: expected .*" + message):
            call(ops, named)
    named["status"] = status = torch.tensor([256, 0, 0], dtype=torch.int32)
    out, lse, *_ = call(ops, named)
    assert status.tolist() == [(256 if b == 0 else 0) | (bit if b in bad else 0) for b in range(3)]
    rows = [slice(0, 1), slice(1, 6), slice(6, 7)]
    for b, span in enumerate(rows):
        if b not in bad:
            same = case != "fewer keys than rows" or b == 0  # sequence 2 has other keys there
            assert not same or same_bits(out[span], before[0][span])
        elif "rows" not in case or "more" in case or "fewer" in case:  # else none can be named
            assert (out[span] == 0).all() and (lse[span] == -torch.inf).all()


def test_too_many_fresh_keys(ops):
    args, kwargs = make_batch([Seq(0, 2049, 1)], (1, 1), 8)
    status = torch.zeros(1, dtype=torch.int32)
    out, lse, *_ = ops("attention_paged", *args, **kwargs, status=status)
    assert status.item() == TOO_MANY and lse.item() == -torch.inf
    if ops.name == "cpu":
        with pytest.raises(ValueError, match="at most the limit = 2048 fresh keys in sequence 0"):
            ops("attention_paged", *args, **kwargs)


def test_inputs_that_require_grad():
    named = good()
    named["query"].requires_grad_()
    with pytest.raises(ValueError, match="lmx.attention.paged has no backward"):
        lmx.attention.paged(*(named[n] for n in NAMES), **rest(named))
    with torch.no_grad():
        lmx.attention.paged(*(named[n] for n in NAMES), **rest(named))


def rope_arguments() -> dict:
    return {
        "query": torch.randn(3, 4, 16),
        "key": torch.randn(3, 2, 16),
        "cos": torch.ones(9, 8),
        "sin": torch.zeros(9, 8),
        "positions": torch.tensor([0, 8, 3], dtype=torch.int32),
    }


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("key", lambda t: t[:2], r"key of shape \(num_rows, -1, head_dim\)"),
        ("key", torch.Tensor.half, "key of the dtype of query"),
        ("cos", lambda t: t.repeat(1, 2), "cos of at most head_dim / 2 = 8 columns, got 16"),
        ("sin", lambda t: t[:, 1:], r"sin of shape \(num_positions, half\)"),
        ("cos", torch.Tensor.double, "cos of dtype Float"),
        ("positions", torch.Tensor.long, "positions of dtype Int"),
        ("positions", lambda t: t[:2], "positions of shape"),
    ],
)
def test_rope_refuses(ops, name, change, message):
    named = rope_arguments()
    named[name] = change(named[name])
    with pytest.raises(RuntimeError, match="lmx::attention_rope: expected " + message):
        ops("attention_rope", *named.values())


@pytest.mark.parametrize("position", (-1, 9, 2**31 - 1))
def test_rope_positions_outside_the_tables(ops, position):
    named = rope_arguments()
    named["positions"][1] = position
    status = torch.zeros(3, dtype=torch.int32)
    query, key = ops("attention_rope", *named.values(), status=status)
    assert status.tolist() == [0, BAD_VALUE, 0]
    assert (query[1] == 0).all() and (key[1] == 0).all() and (query[0] != 0).all()
    if ops.name == "cpu":
        with pytest.raises(ValueError, match=rf"positions\[1\] in \[0, 9\), got {position}"):
            ops("attention_rope", *named.values())


@pytest.mark.parametrize(
    ("at", "change", "message"),
    [
        (0, lambda t: t[0], r"out_a of shape \(-1, -1, -1\)"),
        (2, lambda t: t[:1], "out_b of shape"),
        (2, torch.Tensor.half, "out_b of the dtype of out_a"),
        (0, lambda t: t.mT.contiguous().mT, "out_a contiguous"),
        (1, lambda t: t[:, :1], r"lse_a of shape \(num_tokens, num_heads\)"),
        (3, torch.Tensor.double, "lse_b of dtype Float"),
    ],
)
def test_merge_refuses(ops, at, change, message):
    args = [torch.randn(2, 3, 8), torch.randn(2, 3), torch.randn(2, 3, 8), torch.randn(2, 3)]
    args[at] = change(args[at])
    with pytest.raises(RuntimeError, match="lmx::attention_merge: expected " + message):
        ops("attention_merge", *args)
