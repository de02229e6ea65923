"""Cases of the ops ``kv_*``. Pages and rows hold NaN here and there: only bits are moved."""

from collections.abc import Iterator

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
I32 = torch.int32
# Page size, heads, head_dim: odd ones, and those of models.
SHAPES = ((1, 1, 1), (8, 2, 8), (16, 3, 64), (32, 1, 40), (128, 2, 24))
POISON = 2_000_000_000  # in table entries that nobody may follow


def some_rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    rows = torch.randn(*shape).to(dtype)
    rows[torch.rand(shape) < 0.02] = torch.nan
    return rows


def some_slots(num_pages: int, page_size: int, *shape: int, holes: float = 0.2) -> Tensor:
    """Slots outside the null page, each at most once, some of them -1."""
    count = int(torch.tensor(shape).prod())
    slots = page_size + torch.randperm((num_pages - 1) * page_size)[:count]
    assert len(slots) == count, "the pool is too small"
    return torch.where(torch.rand(count) < holes, -1, slots).reshape(shape)


def pages_for(count: int, page_size: int) -> int:
    return -(-count // page_size) + 2


def appends() -> Iterator:
    from samples import Sample

    for i, (page_size, heads, dim) in enumerate(SHAPES):
        dtype = DTYPES[i % 3]
        for num_tokens in (1, 7, 33):
            num_pages = pages_for(num_tokens, page_size)
            key, value = (some_rows(num_tokens, heads, dim, dtype=dtype) for _ in range(2))
            pages = some_rows(num_pages, 2, heads, page_size, dim, dtype=dtype)
            slots = some_slots(num_pages, page_size, num_tokens)
            name = f"{page_size}-{heads}-{dim}-{num_tokens}"
            yield Sample(name, (key, value, slots, pages), None)
            pool = some_rows(num_pages, 3, 2, heads, page_size, dim, dtype=dtype)
            yield Sample(f"{name}-view", (key, value, slots, pool[:, 1]), None)
            keys, values = (some_rows(3, num_tokens, heads, dim, dtype=dtype) for _ in range(2))
            yield Sample(f"{name}-all", (keys, values, slots, pool), None)
    yield from _scopes()
    yield from _strides()
    yield from _meta()


def _scopes() -> Iterator:
    """Pages of a layer's own, or of a head's."""
    from samples import Sample

    page_size, heads, layers, tokens, dim = 8, 3, 2, 5, 16
    keys, values = (some_rows(layers, tokens, heads, dim) for _ in range(2))
    num_pages = pages_for(layers * tokens * heads, page_size)
    pool, ragged = (some_rows(num_pages, 2, g, page_size, dim) for g in (heads, 1))
    slots = some_slots(num_pages, page_size, layers, tokens)
    yield Sample("layers", (keys, values, slots, pool), None)
    slots = some_slots(num_pages, page_size, layers, tokens, heads)
    yield Sample("layers and heads", (keys, values, slots, ragged), None)
    yield Sample("heads", (keys[0], values[0], slots[0].clone(), ragged), None)


def _strides() -> Iterator:
    from samples import Sample

    for dtype, start in ((torch.float32, 1), (torch.bfloat16, 1), (torch.bfloat16, 8)):
        key = some_rows(3, 6, 16, dtype=dtype).transpose(0, 1)  # [6, 3, 16]
        value = some_rows(6, 3, 40, dtype=dtype)[:, :, start : start + 16]
        pages = some_rows(40 * 2 * 3 * 8 * 16 + start, dtype=dtype)[start:]
        pages = pages.view(40, 2, 3, 8, 16)[::5]  # pages lie apart
        yield Sample(f"strided-{start}-{str(dtype)[6:]}",
                     (key, value, some_slots(8, 8, 6), pages), None)  # fmt: skip
    empty = torch.empty(0, 2, 8)
    none = torch.empty(0, dtype=torch.int64)
    yield Sample("no tokens", (empty, empty, none, some_rows(2, 2, 2, 8, 8)), None)


def _meta() -> Iterator:
    from samples import Sample

    layers, tokens, heads, page_size = 2, 7, 3, 8
    keys, values = (some_rows(layers, tokens, heads, 8) for _ in range(2))
    pos = torch.randint(0, 1000, (tokens,), dtype=I32)
    meta_pos = torch.full((9, page_size), -1, dtype=I32)
    meta_score = some_rows(9, page_size)
    pool = some_rows(9, layers, 2, heads, page_size, 8)
    for shape in ((tokens,), (layers, tokens), (layers, tokens, heads)):
        pages = (pool, pool[:, 0].contiguous(), pool[:, 0, :, :1].contiguous())[len(shape) - 1]
        slots, meta = (some_slots(9, page_size, *shape) for _ in range(2))
        for with_pos, with_score in ((1, 0), (0, 1), (1, 1)):
            kwargs = {"meta_slots": meta}
            kwargs |= {"pos": pos, "meta_pos": meta_pos} if with_pos else {}
            kwargs |= {"score": some_rows(*shape), "meta_score": meta_score} if with_score else {}
            yield Sample(f"meta-{len(shape)}-{with_pos}{with_score}",
                         (keys, values, slots, pages), None, kwargs)  # fmt: skip
    slots = some_slots(9, page_size, tokens, holes=0)
    slots[1], slots[3], slots[4] = 0, 9 * page_size, -2  # the null page, behind the pool, nothing
    meta = some_slots(9, page_size, tokens, holes=0)
    meta[5] = page_size - 1
    kwargs = {"meta_slots": meta, "pos": pos, "meta_pos": meta_pos}
    kwargs["status"] = torch.zeros(tokens, dtype=I32)
    yield Sample("bad tokens", (keys[0], values[0], slots, pool[:, 0]),
                 None, kwargs)  # fmt: skip


# ---- pages ---------------------------------------------------------------------------------------


def _pools() -> Iterator[tuple[str, Tensor]]:
    for dtype in (torch.float32, torch.bfloat16, torch.int32, torch.uint8):
        yield str(dtype)[6:], torch.randint(0, 100, (9, 3, 2, 2, 8, 8)).to(dtype)
        yield f"{str(dtype)[6:]}-odd", torch.randint(0, 100, (9, 13)).to(dtype)
    yield "one number", torch.arange(9, dtype=torch.float32)
    yield "nothing", torch.empty(9, 0)
    yield "apart", torch.randn(9, 4, 40)[:, 1]
    yield "large", torch.randn(9, 20_000)


def copies() -> Iterator:
    from samples import Sample

    src = torch.tensor([5, 2, 5, 8], dtype=I32)
    dst = torch.tensor([1, 3, 4, 7], dtype=I32)
    for name, pages in _pools():
        yield Sample(name, (src, dst, pages), None)
    none = torch.empty(0, dtype=I32)
    yield Sample("none", (none, none, torch.randn(3, 4)), None)
    src = torch.tensor([0, 2, 9, 3, 5, 6], dtype=I32)
    dst = torch.tensor([1, 0, 4, -1, 9, 7], dtype=I32)
    status = torch.zeros(6, dtype=I32)
    yield Sample("bad", (src, dst, torch.randn(9, 5), status), None)


def swaps() -> Iterator:
    from samples import Sample

    ids = torch.tensor([5, 1, 8], dtype=I32)
    for i, (name, pages) in enumerate(_pools()):
        host = torch.randint(0, 100, (4, *pages.shape[1:])).to(pages.dtype)
        for direction in ("out", "in") if i % 2 else ("in", "out"):
            yield Sample(f"{name}-{direction}", (ids, pages, host, direction), None)
    bad = torch.tensor([0, 4, 9, -1], dtype=I32)
    for direction in ("out", "in"):
        args = (bad, torch.randn(9, 5), torch.randn(4, 5), direction, torch.zeros(4, dtype=I32))
        yield Sample(f"bad-{direction}", args, None)


# ---- slots ---------------------------------------------------------------------------------------


def tables(lengths: list[int], page_size: int, num_rows: int = 1) -> tuple[Tensor, Tensor, int]:
    """Tables of sequences in shuffled pages, poisoned behind their ends; the number of pages."""
    counts = [-(-n // page_size) for n in lengths]
    num_pages = 1 + num_rows * sum(counts)
    block_table = torch.full(
        (len(lengths), num_rows, max(counts, default=0) + 1), POISON, dtype=I32
    )
    free = (1 + torch.randperm(num_pages - 1)).tolist()
    for seq, count in enumerate(counts):
        for row in range(num_rows):
            block_table[seq, row, :count] = torch.tensor([free.pop() for _ in range(count)])
    num_slots = torch.tensor(lengths, dtype=I32)[:, None].repeat(1, num_rows)
    return block_table, num_slots, num_pages


def picked(num_slots: Tensor, count: int) -> Tensor:
    """Slots of each row, each at most once, -1 where there are too few."""
    slots = torch.full((*num_slots.shape, count), -1, dtype=I32)
    for seq, row in torch.cartesian_prod(*map(torch.arange, num_slots.shape)).tolist():
        chosen = torch.randperm(int(num_slots[seq, row]))[:count].int()
        slots[seq, row, : len(chosen)] = chosen
    return slots


class Seqs:
    """Rows are sequences, and results are tokens, `per_seq` of each."""

    def __init__(self, count: int, first: int, per_seq: int, axis: int) -> None:
        self.count, self.first, self.per_seq, self.axis = count, first, per_seq, axis

    def take(self, args: tuple, rows: list[int]) -> tuple:
        taken = range(self.first, self.first + 4)
        return tuple(
            a[rows] if i in taken and isinstance(a, Tensor) else a for i, a in enumerate(args)
        )

    def split(self, results: tuple, args: tuple, rows: list[int]) -> tuple:
        shape = (self.count, self.per_seq)
        return tuple(
            r.unflatten(self.axis, shape).index_select(self.axis, torch.tensor(rows))
            .flatten(self.axis, self.axis + 1)
            for r in results
        )  # fmt: skip


def _layouts() -> Iterator[tuple[str, Tensor, tuple[Tensor, Tensor, Tensor]]]:
    for i, (page_size, heads, dim) in enumerate(SHAPES):
        lengths = [0, 1, page_size, 2 * page_size + 1]
        for num_rows in {1, heads}:
            block_table, num_slots, num_pages = tables(lengths, page_size, num_rows)
            g = heads if num_rows == 1 else 1
            pool = some_rows(num_pages, 2, 2, g, page_size, dim, dtype=DTYPES[i % 3])
            slots = picked(num_slots, 5)
            name = f"{page_size}-{heads}-{dim}-{num_rows}"
            yield name, pool[:, 1], (block_table, num_slots, slots)
            yield f"{name}-all", pool, (block_table, num_slots, slots)


def _bad() -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    block_table, num_slots, num_pages = tables([20, 20, 20, 20, 20, 20], 8)
    block_table[0, 0, 1], block_table[1, 0, 2] = 0, num_pages  # no page is there
    block_table[5, 0, 2] = -3  # but no slot needs it
    slots = picked(num_slots, 20)
    slots[2, 0, 3], slots[3, 0, 19] = 20, -2
    slots[5] = slots[5].where(slots[5] < 16, -1)
    pool = some_rows(num_pages, 2, 2, 8, 8)
    return pool, (block_table, num_slots, slots), torch.zeros(6, dtype=I32)


def gathers() -> Iterator:
    from samples import Sample

    for name, pages, where in _layouts():
        pages[pages.isnan()] = torch.inf  # opcheck takes no NaN for another
        rows = Seqs(4, 1, 5, pages.dim() - 5)
        yield Sample(name, (pages, *where), (), rows=rows)
    pool, where, status = _bad()
    yield Sample("bad", (pool, *where, status), (), rows=Seqs(6, 1, 20, 0))
    args = (some_rows(3, 2, 2, 8, 8), *(t[:0] for t in where))
    yield Sample("no sequences", args, None)
    yield Sample("no slots", (pool, *where[:2], where[2][:, :, :0]), None)


def scatters() -> Iterator:
    from samples import Sample

    for name, pages, (block_table, num_slots, slots) in _layouts():
        heads = max(block_table.shape[1], pages.shape[-3])
        shape = (4 * 5, heads, pages.shape[-1])
        shape = (2, *shape) if pages.dim() == 6 else shape
        key, value = (some_rows(*shape, dtype=pages.dtype) for _ in range(2))
        yield Sample(name, (key, value, block_table, num_slots, slots, pages), None)
    pool, where, status = _bad()
    key, value = (some_rows(120, 2, 8) for _ in range(2))
    yield Sample("bad", (key, value, *where, pool, status), None)


SAMPLES = {
    "kv_append": appends,
    "kv_copy_pages": copies,
    "kv_swap_pages": swaps,
    "kv_gather_slots": gathers,
    "kv_scatter_slots": scatters,
}
