"""How far a result of `attention_paged` may be from the reference in float64."""

import math

import torch
from torch import Tensor

from lmx.attention import reference

ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def _score_error(args: tuple, kwargs: dict) -> float:
    """Bound of the error of a score: that of a dot product, and of what follows."""
    query, key, stored = args[0].double(), args[1].double(), args[6][:, 0].double()
    dim, products = query.shape[2], 0.0
    if query.numel():  # at least the largest sum of |query_d key_d|
        keys = torch.cat((key.flatten(0, 1), stored.nan_to_num(0, 0, 0).flatten(0, 2)))
        products = float(query.norm(dim=-1).max() * keys.norm(dim=-1).max())
    delta = (dim + 8) * 2**-24 * kwargs["softmax_scale"] * products
    delta += kwargs.get("softcap", 0.0) * 2**-22
    if kwargs.get("alibi_slopes") is not None and query.numel():
        reach = int(args[9].max()) + int(kwargs["max_slots"]) + 1
        delta += 2**-23 * float(kwargs["alibi_slopes"].abs().max()) * reach
    return delta


def assert_close_to_reference(args: tuple, kwargs: dict, results: tuple) -> None:
    """|out - ref| <= (u + 2 delta + 2^-18) A + u |ref| and |lse - ref| <= delta + 2^-18.

    A is the weighted mean of |value|, u the rounding of weights and of results, delta the error of
    a score. A thousandth of `u` more is for results below the normal numbers of float16.
    """
    out, lse = reference.paged(*args, **kwargs)
    pages = torch.stack((args[6][:, 0], args[6][:, 1].abs()), 1)
    sizes = (*args[:2], args[2].abs(), *args[3:6], pages, *args[7:])
    mean, _ = reference.paged(*sizes, **kwargs)
    u, delta = ROUNDING[args[0].dtype], _score_error(args, kwargs)
    assert [t.dtype for t in results[:2]] == [args[0].dtype, torch.float32]
    error = (results[0].double() - out).abs()
    bound = (u + 2 * delta + 2**-18) * mean + u * out.abs() + u * 2**-14
    assert (error <= bound).all(), f"error {error.max():.3g}, up to {(error / bound).max():.3g}x"
    empty = lse == -math.inf
    assert torch.equal(results[1] == -math.inf, empty)
    assert (results[0][empty] == 0).all()
    assert ((results[1].double() - lse).abs()[~empty] <= delta + 2**-18).all()
    assert all(t.numel() == 0 for t in results[2:])


def in_pages(args: tuple, page_size: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Pages, table and counts that hold the fresh keys and values of each sequence."""
    key, value, offsets = args[1], args[2], args[4].tolist()
    heads, dim = key.shape[1:]
    each = [-(-(b - a) // page_size) for a, b in zip(offsets, offsets[1:], strict=False)]
    pages = torch.full((1 + sum(each), 2, heads, page_size, dim), torch.nan, dtype=key.dtype)
    table = torch.full((len(each), 1, max(each, default=0) + 1), 2_000_000_000).int()
    ids = iter((torch.randperm(sum(each)) + 1).tolist())
    for b, (start, count) in enumerate(zip(offsets, each, strict=False)):
        for i in range(count):
            table[b, 0, i] = page = next(ids)
            rows = slice(start + i * page_size, min(start + (i + 1) * page_size, offsets[b + 1]))
            for kind, source in enumerate((key, value)):
                pages[page, kind, :, : rows.stop - rows.start] = source[rows].transpose(0, 1)
    counts = torch.tensor(offsets).diff()[:, None].int()
    return pages, table, counts
