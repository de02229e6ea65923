"""What the CUDA kernels choose by their bounds, tiles and splits, changes no bit of a row."""

import torch
from attention_samples import Seq, make_batch
from helpers import same_bits, some

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def attend(ops, args, kwargs):
    return ops("attention_paged", *args, **kwargs)[:2]


def test_bounds_change_no_bit(ops):
    """A bound so large that chunks get no block of their own: they are added in registers."""
    for dtype in DTYPES:
        args, kwargs = make_batch([Seq(530, 2), Seq(40, 3)], (4, 2), 64, 16, dtype)
        few = attend(ops, args, kwargs)
        table = torch.nn.functional.pad(args[7], (0, 260_000), value=2_000_000_000)
        wide = (*args[:7], table, *args[8:])
        many = attend(ops, wide, kwargs | {"max_slots": 4_160_000, "max_q": 1000})
        assert all(same_bits(a, b) for a, b in zip(few, many, strict=True))


def test_a_tile_of_many_rows_is_one_of_few(ops):
    """The last rows of a long chain, and alone: other tiles of rows and other warps."""
    for dtype, dim in zip(DTYPES, (64, 128, 256), strict=True):
        args, kwargs = make_batch([Seq(90, 40)], (3, 1), dim, 16, dtype)
        whole = attend(ops, args, kwargs)
        rows = (t[-2:] for t in (args[0], args[9]))
        query, pos = rows
        ends = torch.tensor([0, 2], dtype=torch.int32)
        last = (query, *args[1:3], ends, *args[4:9], pos, args[10])
        for a, b in zip(attend(ops, last, kwargs), whole, strict=True):
            assert same_bits(a, b[-2:])


def test_rows_at_odd_addresses(ops):
    """Rows that are no multiple of 16 bytes apart, or do not start at one."""
    for dtype in some(ops, list(DTYPES)):
        args, kwargs = make_batch([Seq(20, 3), Seq(4, 2)], (4, 2), 64, 16, dtype)
        even = attend(ops, args, kwargs)
        odd = [torch.nn.functional.pad(t, (1, 2))[..., 1:65] for t in args[:3]]
        assert all(t.stride(1) == 67 for t in odd)
        pool = torch.nn.functional.pad(args[6].flatten(1), (3, 2))
        pages = pool[:, 3:-2].unflatten(1, args[6].shape[1:])
        moved = attend(ops, (*odd, *args[3:6], pages, *args[7:]), kwargs)
        assert all(same_bits(a, b) for a, b in zip(even, moved, strict=True))
