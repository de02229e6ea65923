import torch
from helpers import run
from samples import samples_of

from lmx.vocab import reference

# Known answers of Philox4x32-10 (Random123, kat_vectors), as the 24 upper bits a uniform keeps.
KNOWN = [
    (0, 0, 0, 0, 0, ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]),
    (-1, 2**56 - 1, 0xFF, 2**32 - 4, 2**32 - 1, None),
]


def test_known_answers(ops):
    for seed, position, purpose, index, hi, words in KNOWN:
        indices = torch.arange(4) + index
        n = torch.ones(4, dtype=torch.int64)
        got = ops("vocab_uniform", n * seed, n * position, purpose, indices, n * hi)
        if words:
            assert [int(u * 2**24) for u in got] == [int(w, 16) >> 8 for w in words]
        want = reference.uniform(n * seed, n * position, purpose, indices, n * hi)
        assert torch.equal(got.double(), want)


def test_every_part_of_the_counter_counts(ops):
    """One bit of each word of counter and key changes the number."""
    n = torch.ones(1, dtype=torch.int64)

    def draw(seed=0, position=0, purpose=0, index=0, hi=0) -> float:
        return ops("vocab_uniform", n * seed, n * position, purpose, n * index, n * hi).item()

    numbers = [draw(), draw(1), draw(1 << 32), draw(position=1), draw(position=1 << 32)]
    numbers += [draw(purpose=1), draw(index=1), draw(index=4), draw(hi=1), draw(hi=1 << 31)]
    assert len(set(numbers)) == len(numbers)


def test_uniform(ops):
    for s in samples_of("vocab_uniform"):
        (u, *_) = run(ops, "vocab_uniform", s)
        assert torch.equal(u.double(), reference.uniform(*s.args)), s.name


def test_streams_do_not_meet(ops):
    """Seed, position, purpose, index and hi each make another number; the mean is right."""
    n = 4096 if ops.name != "simt" else 512
    zero = torch.zeros(n, dtype=torch.int64)
    count = torch.arange(n)
    streams = [
        ops("vocab_uniform", count, zero, 1),
        ops("vocab_uniform", zero, count + 1, 1),
        ops("vocab_uniform", zero, zero, 2, count + 1),
        ops("vocab_uniform", zero, zero, 3, zero, count + 1),
        ops("vocab_uniform", zero, count << 32, 0),
    ]
    everything = torch.cat(streams)
    assert everything.unique().numel() > 0.999 * everything.numel()
    for u in streams:
        assert abs(u.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5 and 0 <= u.min() and u.max() < 1
