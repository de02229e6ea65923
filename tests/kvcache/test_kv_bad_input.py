"""Every wrong input has a message with op, argument, expected and got; nothing is written."""

import pytest
import torch
from helpers import Backend

KEY = torch.ones(3, 2, 8)
ALL = torch.ones(2, 3, 2, 8)
SLOTS = torch.tensor([8, -1, 17])
POOL = torch.zeros(4, 2, 2, 8, 8)
WHOLE = torch.zeros(4, 2, 2, 2, 8, 8)
META = dict(meta_slots=SLOTS, pos=torch.ones(3).int(), meta_pos=torch.zeros(4, 8).int())
SHAPE = r"of shape \(num_tokens\)"

APPEND = [
    (dict(key=KEY[0]), r"expected key of shape \(num_tokens, num_heads, head_dim\), or .* "),
    (dict(value=KEY[:2]), r"expected value of the shape of key, \[3, 2, 8\], got \[2, 2, 8\]"),
    (dict(key=KEY.half()), "expected key of the dtype of kv_pages, Float, got Half"),
    (dict(value=KEY.double()), "expected value of the dtype of kv_pages, Float, got Double"),
    (dict(kv_pages=POOL.double()), "expected kv_pages of dtype Float, Half or BFloat16, got Doub"),
    (dict(kv_pages=POOL.char()), "expected kv_pages of dtype Float, Half or BFloat16, got Char"),
    (dict(key=KEY.transpose(1, 2).contiguous().transpose(1, 2)), "contiguous in the last dimensio"),
    (dict(key=KEY[:, :, :4], value=KEY[:, :, :4]), "key with head_dim 8, that of kv_pages, got 4"),
    (dict(key=KEY[:, :1], value=KEY[:, :1]), "expected kv_pages with 1 heads per page, got 2"),
    (dict(kv_pages=POOL[0]), r"expected kv_pages of shape \(num_pages, 2, heads_per_page, page_si"),
    (dict(kv_pages=POOL.transpose(0, 1)), r"expected kv_pages of shape .* got \[2, 4, 2, 8, 8\]"),
    (dict(kv_pages=POOL.transpose(2, 3)), "expected kv_pages contiguous within a page of a layer"),
    (dict(kv_pages=POOL[:, :, :, :0]), "expected page_size at least 1, got 0"),
    (dict(slot_mapping=SLOTS[:2]), SHAPE + r" or \(num_tokens, num_heads\) .* got \[2\]"),
    (dict(slot_mapping=SLOTS[None]), SHAPE + r" or \(num_tokens, num_heads\) .* got \[1, 3\]"),
    (dict(slot_mapping=SLOTS.int()), "expected slot_mapping of dtype Long, got Int"),
    (dict(slot_mapping=SLOTS.repeat(2, 1).T.contiguous().T[0]), "expected slot_mapping contiguous"),
    (dict(slot_mapping=SLOTS[:, None].repeat(1, 2)), "kv_pages with 1 heads per page, got 2"),
    (dict(key=ALL, value=ALL), r"slot_mapping with an axis num_layers where kv_pages has none"),
    (dict(key=ALL, value=ALL, kv_pages=WHOLE, slot_mapping=SLOTS.repeat(2, 1)),
     r"expected slot_mapping with an axis num_layers where kv_pages has none, and without"),
    (dict(key=ALL[:1], value=ALL[:1], kv_pages=WHOLE), "key of 2 layers, those of kv_pages, got 1"),
    (dict(kv_pages=WHOLE), "expected key of 2 layers, those of kv_pages, got 1"),
    (dict(key=ALL, value=ALL, slot_mapping=SLOTS.repeat(3, 1)), SHAPE + r", \(num_layers, .*3, 3"),
    (dict(scale=torch.ones(4, 2, 2, 8)), "scale to be None: pools with quantised pages are not bu"),
    (dict(pos=META["pos"]), "expected pos with meta_pos, and score with meta_score"),
    (dict(META, meta_slots=None), "expected meta_slots with pos or score, and not without them"),
    (dict(meta_slots=SLOTS), "expected meta_slots with pos or score, and not without them"),
    (dict(META, meta_slots=SLOTS[:2]), r"meta_slots of the shape of slot_mapping, \[3\], got "),
    (dict(META, pos=META["pos"][:2]), r"expected pos of shape \(num_tokens\) = \[3\], got \[2\]"),
    (dict(META, pos=SLOTS), "expected pos of dtype Int, got Long"),
    (dict(META, meta_pos=META["meta_pos"].long()), "expected meta_pos of dtype Int, got Long"),
    (dict(META, meta_pos=META["meta_pos"][0]), r"expected meta_pos of shape \(num_meta_pages, pag"),
    (dict(META, score=KEY[:2, 0, 0], meta_score=torch.zeros(4, 8)), "score of the shape of slot_m"),
    (dict(META, score=KEY[:, 0, 0].contiguous(), meta_score=torch.zeros(5, 8)), r"= \[4, 8\], got"),
    (dict(status=torch.zeros(2).int()), r"expected status of shape \(num_tokens\) = \[3\], got "),
    (dict(status=SLOTS), "expected status of dtype Int, got Long"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), APPEND)
def test_append(ops, change, message):
    names = dict(key=KEY, value=KEY, slot_mapping=SLOTS, kv_pages=POOL.clone()) | change
    with pytest.raises(RuntimeError, match=message):
        ops.ops.kv_append(**names)
    assert not names["kv_pages"].any()


def test_rows_of_the_pool_itself(ops):
    pool = POOL.clone()
    with pytest.raises(RuntimeError, match="expected key and value without memory of kv_pages"):
        ops.ops.kv_append(pool[:3, 0, :, 0], KEY, SLOTS, pool)
    with pytest.raises(RuntimeError, match="expected key and value without memory of kv_pages"):
        ops.ops.kv_scatter_slots(KEY, pool[:3, 0, :, 0], TABLE[:1], LENGTHS[:1], CHOSEN[:1], pool)


@pytest.mark.parametrize("slot", [0, 7, 32, 2**40, -2, -(2**40)])
def test_slots_out_of_range_raise_on_a_cpu(slot):
    pool, slots = POOL.clone(), SLOTS.clone()
    slots[2] = slot
    message = rf"kv_append: token 2 has slot_mapping {slot}, where -1 and \[8, 32\) are slots"
    with pytest.raises(ValueError, match=message):
        torch.ops.lmx.kv_append(KEY, KEY, slots, pool)
    assert not pool.any(), "the good tokens before it were stored"
    meta = dict(META, meta_slots=slots, meta_pos=META["meta_pos"].clone())
    with pytest.raises(ValueError, match=rf"token 2 has meta_slots {slot}, where"):
        torch.ops.lmx.kv_append(KEY, KEY, SLOTS, pool, **meta)
    assert not pool.any() and not meta["meta_pos"].any()


IDS = torch.tensor([1, 3], dtype=torch.int32)
PAGES = torch.arange(20.0).view(5, 4)
COPY = [
    (dict(src=IDS.long()), "expected src of dtype Int, got Long"),
    (dict(dst=IDS[:1]), r"expected dst of shape \(n\) = \[2\], got \[1\]"),
    (dict(kv_pages=PAGES[0, 0]), "expected kv_pages with at least one dimension"),
    (
        dict(kv_pages=PAGES.view(5, 2, 2).transpose(1, 2)),
        "expected kv_pages contiguous within a pa",
    ),
    (dict(status=torch.zeros(3).int()), r"expected status of shape \(n\) = \[2\], got \[3\]"),
]
SWAP = [
    (dict(page_ids=IDS.long()), "expected page_ids of dtype Int, got Long"),
    (dict(direction="back"), "expected direction to be one of out, in, got back"),
    (
        dict(host_pages=PAGES[:1].clone()),
        r"expected host_pages of at least 2 pages .* got \[1, 4\]",
    ),
    (
        dict(host_pages=torch.ones(2, 3)),
        r"of the shape and dtype of those of kv_pages, \[5, 4\] Flo",
    ),
    (dict(host_pages=torch.ones(2, 4).half()), r"got \[2, 4\] Half"),
    (dict(host_pages=torch.ones(4, 2).T), "expected host_pages contiguous within a page"),
    (dict(host_pages=PAGES[1:]), "expected host_pages without memory of kv_pages"),
]


@pytest.mark.parametrize(("change", "message"), COPY)
def test_copy_pages(ops, change, message):
    names = dict(src=IDS, dst=IDS + 1, kv_pages=PAGES) | change
    with pytest.raises(RuntimeError, match=message):
        ops.ops.kv_copy_pages(**names)


@pytest.mark.parametrize(("change", "message"), SWAP)
def test_swap_pages(ops, change, message):
    host = torch.ones(2, 4)
    names = dict(page_ids=IDS, kv_pages=PAGES, host_pages=host, direction="in") | change
    with pytest.raises(RuntimeError, match=message):
        ops.ops.kv_swap_pages(**names)
    assert torch.equal(PAGES.flatten(), torch.arange(20.0))


@pytest.mark.parametrize("page", [0, -1, 5])
def test_pages_out_of_range_raise_on_a_cpu(page):
    pages, host = PAGES.clone(), torch.ones(2, 4)
    bad = torch.tensor([2, page], dtype=torch.int32)
    message = rf"expected page ids in \[1, 5\), got {page} at 1"
    for src, dst in ((bad, IDS), (IDS, bad)):
        with pytest.raises(ValueError, match=f"lmx::kv_copy_pages: {message}"):
            torch.ops.lmx.kv_copy_pages(src, dst, pages)
    for direction in ("out", "in"):
        with pytest.raises(ValueError, match=f"lmx::kv_swap_pages: {message}"):
            torch.ops.lmx.kv_swap_pages(bad, pages, host, direction)
    assert torch.equal(pages, PAGES) and torch.equal(host, torch.ones(2, 4))


TABLE = torch.tensor([[[1, 2]], [[3, 2]]], dtype=torch.int32)
LENGTHS = torch.tensor([[9], [16]], dtype=torch.int32)
CHOSEN = torch.tensor([[[0, 8, -1]], [[15, 3, 4]]], dtype=torch.int32)
GATHER = [
    (dict(kv_pages=POOL[0]), "expected kv_pages of shape"),
    (dict(block_table=TABLE[0]), r"expected block_table of shape \(num_seqs, num_rows, max_pages"),
    (dict(block_table=TABLE.long()), "expected block_table of dtype Int, got Long"),
    (dict(block_table=TABLE.transpose(0, 2).contiguous().transpose(0, 2)), "block_table contiguou"),
    (dict(num_slots=LENGTHS[:1]), r"expected num_slots of shape .* = \[2, 1\], got \[1, 1\]"),
    (dict(slots=CHOSEN[:, 0]), r"expected slots of shape \(num_seqs, num_rows, n\)"),
    (dict(slots=CHOSEN.long()), "expected slots of dtype Int, got Long"),
    (dict(block_table=TABLE[:, :0], num_slots=LENGTHS[:, :0], slots=CHOSEN[:, :0]),
     "expected block_table with at least one row, got 0"),
    (dict(block_table=TABLE.repeat(1, 3, 1), num_slots=LENGTHS.repeat(1, 3),
          slots=CHOSEN.repeat(1, 3, 1)), "expected kv_pages with 1 heads per page, got 2"),
    (dict(status=torch.zeros(3).int()), r"expected status of shape \(num_seqs\) = \[2\], got "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), GATHER)
def test_gather_slots(ops, change, message):
    names = dict(kv_pages=POOL, block_table=TABLE, num_slots=LENGTHS, slots=CHOSEN) | change
    with pytest.raises(RuntimeError, match=message):
        ops.ops.kv_gather_slots(**names)


SCATTER = [
    (dict(key=torch.ones(5, 2, 8), value=torch.ones(5, 2, 8)), "key of 6 tokens, one for each slo"),
    (dict(value=torch.ones(6, 1, 8)), "expected value of the shape of key"),
    (dict(key=torch.ones(6, 1, 8), value=torch.ones(6, 1, 8)), "kv_pages with 1 heads per page"),
    (dict(kv_pages=WHOLE), "expected key of 2 layers, those of kv_pages, got 1"),
    (dict(block_table=TABLE.repeat(1, 3, 1), num_slots=LENGTHS.repeat(1, 3),
          slots=CHOSEN.repeat(1, 3, 1)), "with 1 row a sequence, or one for each of 2 heads, got "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), SCATTER)
def test_scatter_slots(ops, change, message):
    key = torch.ones(6, 2, 8)
    names = dict(key=key, value=key, block_table=TABLE, num_slots=LENGTHS, slots=CHOSEN)
    names |= dict(kv_pages=POOL.clone()) | change
    with pytest.raises(RuntimeError, match=message):
        ops.ops.kv_scatter_slots(**names)
    assert not names["kv_pages"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(slots=CHOSEN + 1), r"sequence 0 has slot 9, where -1 and \[0, 9\) are slots"),
        (dict(slots=CHOSEN - 1), r"sequence 0 has slot -2, where -1 and \[0, 9\)"),
        (
            dict(num_slots=LENGTHS + 9, slots=CHOSEN + 1),
            r"sequence 1 has slot 16, .* \[0, 25\) .* has 2 pages",
        ),
        (dict(block_table=TABLE * 0), r"sequence 0 has slot 0 in page 0, where pages are \[1, 4\)"),
        (dict(block_table=TABLE + 2), r"sequence 0 has slot 8 in page 4, where pages are \[1, 4\)"),
    ],
)
def test_slots_and_tables_raise_on_a_cpu(change, message):
    names = dict(block_table=TABLE, num_slots=LENGTHS, slots=CHOSEN) | change
    with pytest.raises(ValueError, match=f"kv_gather_slots: {message}"):
        torch.ops.lmx.kv_gather_slots(POOL, **names)
    pool, key = POOL.clone(), torch.ones(6, 2, 8)
    with pytest.raises(ValueError, match=f"kv_scatter_slots: {message}"):
        torch.ops.lmx.kv_scatter_slots(key, key, kv_pages=pool, **names)
    assert not pool.any()


def test_the_harness_leaves_out_what_is_bad_without_a_word():
    """As CUDA does, where nobody waits for an answer."""
    simt = Backend("simt")
    if not hasattr(simt.ops, "kv_append"):
        pytest.skip("the SIMT harness was not built: no CUDA headers")
    pool = POOL.clone()
    simt("kv_append", KEY, KEY, torch.tensor([0, 9, 32]), pool)
    assert pool.sum() == 2 * 2 * 8 and pool[1, :, :, 1].all()
