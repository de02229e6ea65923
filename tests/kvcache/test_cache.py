"""PagedKVCache, by hand: what each method does, what it costs in pages, what it refuses."""

import time

import pytest
import torch

import lmx
from lmx import kvcache
from lmx.kvcache import PagedKVCache

PAGE = 8


def make(num_pages: int = 17, max_seqs: int = 4, max_tokens: int = 64, **changes) -> PagedKVCache:
    arguments = dict(
        num_layers=2,
        num_kv_heads=2,
        head_dim=8,
        num_pages=num_pages,
        max_seqs=max_seqs,
        max_tokens=max_tokens,
        page_size=PAGE,
        dtype=torch.float32,
    )
    return PagedKVCache(**(arguments | changes))


def fill(cache: PagedKVCache, handle: int, count: int) -> torch.Tensor:
    """Append random tokens; return their keys ``[2, count, 2, 8]``."""
    key = torch.randn(2, count, 2, 8)
    slots = cache.append([handle], [count])
    kvcache.append(key, -key, slots, cache.kv_pages)
    cache.check_invariants()
    return key


def read(cache: PagedKVCache, handle: int) -> torch.Tensor:
    row = cache.rows([handle])[0]
    slots = torch.arange(cache.length(handle), dtype=torch.int32)[None, None]
    where = (cache.block_table[row][None], cache.num_slots[row][None], slots)
    key, value = kvcache.gather_slots(cache.kv_pages, *where)
    assert torch.equal(key, -value)
    return key


def test_tokens_come_back_in_order():
    cache = make()
    seq = cache.create()
    first, second = fill(cache, seq, 5), fill(cache, seq, 12)
    assert cache.length(seq) == 17
    assert torch.equal(read(cache, seq), torch.cat((first, second), 1))
    assert cache.num_free_pages == 16 - 3
    cache.free(seq)
    assert cache.num_free_pages == 16
    assert not cache.block_table.any() and not cache.num_slots.any()


def test_a_chain_of_each_of_several_sequences():
    cache = make()
    a, b, c = cache.create(), cache.create(), cache.create()
    key = torch.randn(2, 6, 2, 8)
    slots = cache.append([c, a, b], [3, 0, 3])
    kvcache.append(key, -key, slots, cache.kv_pages)
    assert [cache.length(h) for h in (a, b, c)] == [0, 3, 3]
    assert torch.equal(read(cache, c), key[:, :3])
    assert torch.equal(read(cache, b), key[:, 3:])


def test_forks_share_pages_until_one_writes():
    cache = make()
    seq = cache.create()
    prompt = fill(cache, seq, 12)
    one, two = cache.fork(seq, 2)
    assert cache.num_free_pages == 14
    assert cache.stats().shared_bytes_saved == 2 * 2 * cache.kv_pages[0].nbytes
    before = [read(cache, h).clone() for h in (seq, two)]
    more = fill(cache, one, 3)
    assert cache.num_free_pages == 13
    assert torch.equal(read(cache, one), torch.cat((prompt, more), 1))
    assert all(torch.equal(read(cache, h), b) for h, b in zip((seq, two), before, strict=True))
    cache.free([seq, one])
    cache.check_invariants()
    assert torch.equal(read(cache, two), prompt)
    fill(cache, two, 2)  # nobody else holds the page now
    assert cache.num_free_pages == 14


def test_forks_in_one_batch_copy_a_page_once_each_but_the_last():
    cache = make()
    seq = cache.create()
    prompt = fill(cache, seq, 4)
    forks = cache.fork(seq, 3)
    key = torch.randn(2, 4, 2, 8)
    slots = cache.append([seq, *forks], [1, 1, 1, 1])
    kvcache.append(key, -key, slots, cache.kv_pages)
    cache.check_invariants()
    assert cache.num_free_pages == 16 - 4
    for i, handle in enumerate([seq, *forks]):
        assert torch.equal(read(cache, handle), torch.cat((prompt, key[:, i : i + 1]), 1))


def test_a_step_that_is_given_up_leaves_no_trace():
    cache = make()
    seq = cache.create()
    fill(cache, seq, 7)
    free = cache.num_free_pages
    first = cache.reserve([seq], [20])
    assert cache.length(seq) == 7 and cache.num_slots[0] == 7
    assert cache.num_free_pages == free - 3
    again = cache.reserve([seq], [20])
    assert torch.equal(first, again) and cache.num_free_pages == free - 3
    cache.commit([seq], [2])
    assert cache.length(seq) == 9
    with pytest.raises(ValueError, match="at most 23 tokens of sequence"):
        cache.commit([seq], [24])
    cache.abandon([seq])
    assert cache.num_free_pages == free - 1
    cache.check_invariants()


def test_truncate_then_append_is_as_if_never_appended():
    cache = make()
    seq = cache.create()
    kept = fill(cache, seq, 11)
    fill(cache, seq, 20)
    cache.truncate(seq, 11)
    assert cache.num_free_pages == 14 and cache.length(seq) == 11
    more = fill(cache, seq, 6)
    assert torch.equal(read(cache, seq), torch.cat((kept, more), 1))
    cache.truncate(seq, 0)
    assert cache.num_free_pages == 16


def test_truncating_a_fork_leaves_the_other_as_it_is():
    cache = make()
    seq = cache.create()
    fill(cache, seq, 20)
    before = read(cache, seq)
    [fork] = cache.fork(seq)
    cache.truncate(fork, 3)
    fill(cache, fork, 9)
    assert torch.equal(read(cache, seq), before)


def test_share_prefix_takes_full_pages():
    cache = make()
    seq = cache.create()
    prompt = fill(cache, seq, 30)
    child = cache.share_prefix(seq, 23)
    assert cache.length(child) == 16 and cache.num_free_pages == 12
    assert torch.equal(read(cache, child), prompt[:, :16])
    fill(cache, child, 1)  # on a page of its own: nothing is copied
    assert cache.num_free_pages == 11
    assert cache.length(cache.share_prefix(seq, 7)) == 0


def test_swapping():
    cache = make()
    seq = cache.create()
    fill(cache, seq, 19)
    [fork] = cache.fork(seq)
    before = read(cache, seq)
    cache.swap_out(seq)
    cache.check_invariants()
    assert cache.length(seq) == 19 and cache.num_slots[cache.rows([seq])[0]] == 0
    assert cache.num_free_pages == 13  # the fork holds the pages
    cache.free(fork)
    other = cache.create()
    fill(cache, other, 64)
    cache.swap_in(seq)
    cache.check_invariants()
    assert torch.equal(read(cache, seq), before)
    cache.swap_out(seq)
    cache.free(seq)
    assert cache.num_free_pages == 8 and not cache._swapped


def test_a_swapped_sequence_takes_only_free_length_and_swap_in():
    cache = make()
    seq = cache.create()
    fill(cache, seq, 3)
    with pytest.raises(ValueError, match=r"swap_in: sequence \d+ is not swapped out"):
        cache.swap_in(seq)
    cache.swap_out(seq)
    for call in (
        lambda: cache.append([seq], [1]),
        lambda: cache.commit([seq], [0]),
        lambda: cache.fork(seq),
        lambda: cache.truncate(seq, 1),
        lambda: cache.share_prefix(seq, 1),
        lambda: cache.swap_out(seq),
        lambda: cache.index_prefix(seq, [1], b""),
    ):
        with pytest.raises(ValueError, match=f"sequence {seq} is swapped out"):
            call()
    assert cache.length(seq) == 3


def test_out_of_pages_says_how_many_and_changes_nothing():
    cache = make(num_pages=6)
    a, b = cache.create(), cache.create()
    fill(cache, a, 20)
    table = cache.block_table.clone()
    with pytest.raises(lmx.OutOfPages, match="4 pages are needed, and 2 are free") as caught:
        cache.append([a, b], [13, 12])  # 2 + 2
    assert (caught.value.needed, caught.value.free) == (4, 2)
    cache.check_invariants()
    assert torch.equal(cache.block_table, table) and cache.length(a) == 20
    [fork] = cache.fork(a)
    fill(cache, b, 16)
    with pytest.raises(lmx.OutOfPages, match="1 pages are needed, and 0 are free"):
        cache.append([fork], [1])  # a page to copy to
    cache.swap_out(b)
    fill(cache, fork, 1)
    with pytest.raises(lmx.OutOfPages):
        cache.swap_in(b)
    assert cache.length(b) == 16
    cache.free(fork)
    cache.swap_in(b)
    cache.check_invariants()


def test_rows_run_out():
    cache = make(max_seqs=2)
    seq = cache.create()
    with pytest.raises(lmx.errors.OutOfRows, match="2 forks need as many rows .* 1 are free"):
        cache.fork(seq, 2)
    cache.create()
    assert cache.num_free_rows == 0
    for call in (cache.create, lambda: cache.share_prefix(seq, 0)):
        with pytest.raises(lmx.errors.OutOfRows, match="all 2 rows of the tables are in use"):
            call()


def test_stale_and_foreign_handles():
    cache, other = make(), make()
    seq, foreign = cache.create(), other.create()
    cache.free(seq)
    calls = (
        cache.length,
        cache.free,
        cache.fork,
        cache.swap_out,
        cache.swap_in,
        lambda h: cache.truncate(h, 0),
        lambda h: cache.share_prefix(h, 0),
        lambda h: cache.append([h], [1]),
        lambda h: cache.commit([h], [0]),
        lambda h: cache.abandon([h]),
        lambda h: cache.index_prefix(h, [], b""),
    )
    reused = cache.create()
    assert cache.rows([reused]) == cache.rows([seq])
    for handle in (seq, foreign, 0, -1, 7 << 32):
        for call in calls:
            with pytest.raises(lmx.StaleHandle, match=f"handle {handle} is of no sequence"):
                call(handle)
    with pytest.raises(lmx.StaleHandle, match="is freed twice in one call"):
        cache.free([reused, reused])
    assert cache.length(reused) == 0


BAD_CALLS = [
    (lambda c, h: c.truncate(h, 6), r"expected a length in \[0, 5\], got 6"),
    (lambda c, h: c.truncate(h, -1), r"expected a length in \[0, 5\], got -1"),
    (lambda c, h: c.share_prefix(h, 6), r"expected num_tokens in \[0, 5\], got 6"),
    (lambda c, h: c.share_prefix(h, -1), r"expected num_tokens in \[0, 5\], got -1"),
    (lambda c, h: c.fork(h, -1), "expected n at least 0, got -1"),
    (lambda c, h: c.append([h], [60]), "at most 59 more tokens of sequence .* has 5, got 60"),
    (lambda c, h: c.append([h], [-1]), "expected counts of at least 0, got -1 at 0"),
    (lambda c, h: c.append([h, h], [1, 1]), "handle .* occurs twice"),
    (lambda c, h: c.append([h], [1, 1]), "expected one count for each of 1 handles, got 2"),
    (lambda c, h: c.commit([h], [4]), "expected at most 3 tokens of sequence"),
    (lambda c, h: c.index_prefix(h, [1] * 6, b""), "expected at most 5 tokens, .* got 6"),
    (lambda c, h: c.match_prefix([1], b"", multiple=12), "multiple to be one of the page size, 8"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_bad_calls(call, message):
    cache = make()
    seq = cache.create()
    key = fill(cache, seq, 5)
    with pytest.raises(ValueError, match=message):
        call(cache, seq)
    cache.check_invariants()
    assert torch.equal(read(cache, seq), key) and cache.num_free_pages == 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(scope="head"), "expected scope 'seq', the one there is, got 'head'"),
        (dict(page_size=12), r"expected page_size in \(8, 16, 32, 64, 128\), got 12"),
        (dict(dtype=torch.int8), "expected dtype float32, float16 or bfloat16, got torch.int8"),
        (dict(head_dim=12), r"expected head_dim a multiple of 8 in \[8, 256\], got 12"),
        (dict(head_dim=264), r"expected head_dim a multiple of 8 in \[8, 256\], got 264"),
        (dict(num_pages=1), "expected num_pages at least 2, got 1"),
        (dict(max_seqs=0), "expected max_seqs at least 1, got 0"),
        (dict(max_tokens=0), "expected max_tokens at least 1, got 0"),
        (dict(num_layers=0), "expected num_layers at least 1, got 0"),
    ],
)
def test_bad_constructors(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_stats():
    cache = make()
    assert cache.stats().fragmentation == 0
    seq = cache.create()
    fill(cache, seq, 12)
    [fork] = cache.fork(seq)
    cache.truncate(fork, 3)
    s = cache.stats()
    page_bytes = 2 * 2 * PAGE * 8 * 4
    assert (s.pages_total, s.pages_free, s.pages_used) == (32, 28, 4)
    assert (s.slots_live, s.slots_dead, s.meta_bytes) == (24, 0, 0)
    assert s.bytes_used == 4 * page_bytes and s.shared_bytes_saved == 2 * page_bytes
    assert s.fragmentation == pytest.approx(1 - 24 / 32)


def test_a_batch_of_nothing():
    cache = make()
    assert cache.append([], []).shape == (0,)
    seq = cache.create()
    assert cache.append([seq], [0]).shape == (0,)
    cache.swap_out(seq)
    cache.swap_in(seq)
    assert cache.fork(seq, 0) == [] and cache.num_free_pages == 16


def test_the_null_page_is_zeros():
    cache = make()
    seq = cache.create()
    fill(cache, seq, 64)
    assert not cache.kv_pages[0].any() and (cache.block_table[0] > 0).all()


@pytest.mark.long
def test_what_books_cost():
    """Gates: a fork of 32k tokens in 2 ms, a truncation in 0.1 ms."""
    cache = make(num_pages=3 * 4096, max_tokens=32_768 + PAGE)
    seq = cache.create()
    cache.append([seq], [32_768])
    seconds: dict[str, list[float]] = {"fork": [], "truncate": []}
    for _ in range(20):
        start = time.perf_counter()
        [fork] = cache.fork(seq)
        seconds["fork"].append(time.perf_counter() - start)
        start = time.perf_counter()
        cache.truncate(fork, 1000)
        seconds["truncate"].append(time.perf_counter() - start)
        cache.free(fork)
    print({name: f"{1e3 * sorted(s)[10]:.4f} ms" for name, s in seconds.items()})
    assert sorted(seconds["fork"])[10] < 2e-3
    assert sorted(seconds["truncate"])[10] < 1e-4
