"""The prefix index: what it finds, whom it forgets first, and that keys never mix."""

import pytest
import torch
from kvcache.test_cache import PAGE, fill, make, read

import lmx

TOKENS = list(range(100, 140))


def indexed(cache, tokens, key=b"model"):
    seq = cache.create()
    rows = fill(cache, seq, len(tokens))
    cache.index_prefix(seq, tokens, key)
    cache.check_invariants()
    return seq, rows


def test_a_prefix_is_found_after_its_sequence_is_gone():
    cache = make()
    seq, rows = indexed(cache, TOKENS)
    cache.free(seq)
    assert cache.num_free_pages == 11  # the index holds five
    child, count = cache.match_prefix(TOKENS[:37], b"model")
    assert count == 32 == cache.length(child)
    assert torch.equal(read(cache, child), rows[:, :32])
    longer, count = cache.match_prefix([*TOKENS, 1, 2, 3], b"model")
    assert count == 40 and cache.num_free_pages == 11
    fill(cache, longer, 3)
    assert torch.equal(read(cache, longer)[:, :40], rows)


def test_rounded_down_to_a_multiple():
    cache = make()
    indexed(cache, TOKENS)
    for count, multiple, expected in ((40, 16, 32), (40, 40, 40), (39, 40, 0), (15, 8, 8)):
        handle, found = cache.match_prefix(TOKENS[:count], b"model", multiple=multiple)
        assert found == expected
        cache.free(handle)


def test_other_tokens_and_other_keys_find_nothing():
    cache = make(max_seqs=8)
    indexed(cache, TOKENS)
    for tokens, key in (
        (TOKENS, b"model2"),
        (TOKENS, b""),
        (TOKENS, b"mode"),
        ([1, *TOKENS[1:]], b"model"),
        (TOKENS[PAGE:], b"model"),
    ):
        handle, count = cache.match_prefix(tokens, key)
        assert count == 0 and cache.length(handle) == 0
        cache.free(handle)
    changed = [*TOKENS[:20], 7, *TOKENS[21:]]
    assert cache.match_prefix(changed, b"model")[1] == 16


def test_the_same_tokens_under_two_keys_are_two_prefixes():
    cache = make(num_pages=33, max_seqs=8)
    (a, rows_a), (b, rows_b) = (indexed(cache, TOKENS, key) for key in (b"float32", b"rope:1e6"))
    cache.free([a, b])
    for key, rows in ((b"float32", rows_a), (b"rope:1e6", rows_b)):
        child, count = cache.match_prefix(torch.tensor(TOKENS), key)
        assert count == 40 and torch.equal(read(cache, child), rows)


def test_keys_may_hold_any_bytes():
    cache = make(max_seqs=8)
    seq, _ = indexed(cache, TOKENS, b"\x00\xff\x80")
    assert cache.match_prefix(TOKENS, b"\x00\xff\x80")[1] == 40
    assert cache.match_prefix(TOKENS, b"\x00\xff")[1] == 0
    assert cache.length(seq) == 40


def test_entering_twice_keeps_the_first_pages():
    cache = make(max_seqs=8)
    seq, rows = indexed(cache, TOKENS)
    [fork] = cache.fork(seq)
    cache.index_prefix(fork, TOKENS, b"model")
    other, _ = indexed(cache, TOKENS[:16])
    assert cache.pool.index_size() == 5
    cache.free([seq, fork, other])
    child, _ = cache.match_prefix(TOKENS, b"model")
    assert torch.equal(read(cache, child), rows)


def test_the_pool_takes_back_what_was_used_longest_ago():
    cache = make(num_pages=11, max_seqs=8)  # ten pages
    old, _ = indexed(cache, TOKENS[:24])  # three
    new, rows = indexed(cache, [1] * 24)
    cache.free([old, new])
    cache.free(cache.match_prefix(TOKENS[:24], b"model")[0])  # now `new` is the older one
    assert (cache.num_free_pages, cache.num_available_pages) == (4, 10)
    fill(cache, cache.create(), 6 * PAGE)  # two of its three pages must go, the last ones first
    cache.check_invariants()
    assert cache.match_prefix([1] * 24, b"model")[1] == PAGE
    child, count = cache.match_prefix(TOKENS[:24], b"model")
    assert count == 24 and cache.length(child) == 24


def test_pages_in_use_are_not_taken():
    cache = make(num_pages=8, max_seqs=8)  # seven pages
    seq, rows = indexed(cache, TOKENS[:24])
    other = cache.create()
    assert cache.num_available_pages == 4
    with pytest.raises(lmx.OutOfPages) as caught:
        cache.append([other], [5 * PAGE])
    assert (caught.value.needed, caught.value.free) == (5, 4)
    assert cache.pool.index_size() == 3, "a failed call takes nothing from the index"
    cache.truncate(seq, 10)  # the third page is the index's alone
    fill(cache, other, 5 * PAGE)
    assert cache.pool.index_size() == 2
    assert torch.equal(read(cache, seq), rows[:, :10])
    cache.check_invariants()


def test_a_page_is_not_taken_while_one_behind_it_is_in_use():
    """Two sequences computed the same first page; the index holds one of them."""
    cache = make(num_pages=8, max_seqs=8)
    first, _ = indexed(cache, TOKENS[:8])
    second, rows = indexed(cache, TOKENS[:16])  # its first page is its own
    cache.free(first)
    assert cache.num_free_pages == 4 and cache.num_available_pages == 4
    with pytest.raises(lmx.OutOfPages):
        cache.append([cache.create()], [5 * PAGE])
    cache.check_invariants()
    cache.free(second)
    fill(cache, cache.create(), 7 * PAGE)
    assert cache.pool.index_size() == 0


def test_writing_into_an_indexed_page_copies_it():
    cache = make()
    seq, rows = indexed(cache, TOKENS)
    cache.truncate(seq, 12)
    more = fill(cache, seq, 4)
    assert torch.equal(read(cache, seq), torch.cat((rows[:, :12], more), 1))
    child, count = cache.match_prefix(TOKENS, b"model")
    assert count == 40 and torch.equal(read(cache, child), rows)


def test_clearing():
    cache = make()
    seq, _ = indexed(cache, TOKENS)
    cache.clear_index()
    cache.check_invariants()
    assert cache.match_prefix(TOKENS, b"model")[1] == 0
    cache.free(seq)
    assert cache.num_free_pages == 16
