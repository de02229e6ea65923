"""Cases of the attention ops: batches over shuffled pages, with poison wherever nothing is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from samples import Sample
from torch import Tensor

FAR = 2_000_000_000  # in table entries that no kernel may follow


@dataclass(frozen=True)
class Seq:
    """One sequence of a batch: slots in pages, fresh keys, and which of them are queries."""

    slots: int
    fresh: int = 1
    rows: int | None = None  # query rows; None: all fresh rows

    @property
    def queries(self) -> int:
        return self.fresh if self.rows is None else self.rows


def offsets(counts: Sequence[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0).int()


def random_parents(n: int) -> list[int]:
    return [-1] + [int(torch.randint(i, ())) for i in range(1, n)]


def tree_bits(parents: Sequence[int], words: int) -> Tensor:
    """Int32 ``[n, words]``: the ancestors of each node, itself included."""
    sees = torch.zeros(len(parents), 32 * words, dtype=torch.bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            sees[i] = sees[parent]
        sees[i, i] = True
    return bits_of(sees)


def bits_of(sees: Tensor) -> Tensor:
    """Int32 words of bools ``[n, 32 * words]``."""
    packed = (sees.view(len(sees), -1, 32).long() << torch.arange(32)).sum(-1)
    return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).int()


def depths(parents: Sequence[int]) -> list[int]:
    found: list[int] = []
    for parent in parents:
        found.append(0 if parent < 0 else found[parent] + 1)
    return found


def make_pages(
    slots: Sequence[int], heads: int, dim: int, page_size: int, dtype: torch.dtype, spare: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer's pages, a table with shuffled ids, the counts. Unused slots are NaN."""
    each = [-(-n // page_size) for n in slots]
    num_pages = 1 + sum(each) + spare
    pool = torch.full((num_pages, 2, 2, heads, page_size, dim), torch.nan, dtype=dtype)
    pages = pool[:, 1]  # of two layers the second: a strided view
    table = torch.full((len(slots), 1, max(each, default=0) + 2), FAR, dtype=torch.int32)
    ids = (torch.randperm(num_pages - 1) + 1).int()
    for b, n in enumerate(slots):
        table[b, 0, : each[b]], ids = ids[: each[b]], ids[each[b] :]
        for i, page in enumerate(table[b, 0, : each[b]].tolist()):
            used = min(page_size, n - i * page_size)
            pages[page, :, :, :used] = torch.randn(2, heads, used, dim).to(dtype)
    return pages, table, torch.tensor([[n] for n in slots], dtype=torch.int32).view(-1, 1)


def make_batch(
    seqs: Sequence[Seq],
    heads: tuple[int, int] = (4, 2),
    dim: int = 64,
    page_size: int = 16,
    dtype: torch.dtype = torch.float32,
    tree: bool = False,
) -> tuple[tuple, dict]:
    """Arguments of one `attention_paged` call; with ``tree`` every fresh block is a random tree."""
    num_q, num_k = sum(s.queries for s in seqs), sum(s.fresh for s in seqs)
    rows = [torch.randn(n, h, dim).to(dtype) for n, h in zip((num_q, num_k), heads, strict=True)]
    value = torch.randn(num_k, heads[1], dim).to(dtype)
    pages, table, counts = make_pages([s.slots for s in seqs], heads[1], dim, page_size, dtype)
    words = max((s.fresh + 31) // 32 for s in seqs) + 1 if seqs else 1
    query_pos, key_pos, bits = [], [], []
    for s in seqs:
        parents = random_parents(s.fresh) if tree and s.fresh else list(range(-1, s.fresh - 1))
        pos = torch.tensor(depths(parents)).int() + s.slots
        picked = torch.randperm(s.fresh)[: s.queries].sort().values if tree else slice(None)
        key_pos.append(pos)
        query_pos.append(pos[picked] if tree else pos[s.fresh - s.queries :])
        bits.append(tree_bits(parents, words)[picked] if tree else torch.zeros(0, words).int())
    args = (
        *rows,
        value,
        offsets([s.queries for s in seqs]),
        offsets([s.fresh for s in seqs]),
        torch.cat(bits) if tree else None,
        pages,
        table,
        counts,
        torch.cat(query_pos).int() if seqs else torch.empty(0).int(),
        torch.cat(key_pos).int() if seqs else torch.empty(0).int(),
    )
    kwargs = {
        "softmax_scale": dim**-0.5,
        "max_q": max((s.queries for s in seqs), default=0),
        "max_slots": max((s.slots for s in seqs), default=0),
    }
    return args, kwargs


def make_positions(counts: Tensor, table: Tensor, page_size: int, dead: float) -> dict[str, Tensor]:
    """Positions by slot: shuffled, some dead; the first sequence has none of its own."""
    used = -(-counts[:, 0] // page_size)
    slot_pos = torch.full((1 + int(used[1:].sum()), page_size), -7, dtype=torch.int32)
    own = torch.full_like(table, FAR)
    own[0, 0, : used[0]] = 0
    page = 1
    for b in range(1, len(counts)):
        n = int(counts[b, 0])
        pos = torch.randperm(n + 5)[:n]
        pos[torch.rand(n) < dead] = -1
        for i in range(int(used[b])):
            part = pos[i * page_size : (i + 1) * page_size]
            slot_pos[page, : len(part)] = part.int()
            own[b, 0, i], page = page, page + 1
    return {"slot_pos": slot_pos, "slot_pos_table": own}


def poison_dead(args: tuple, kwargs: dict) -> None:
    """NaN and infinity in dead slots."""
    pages, table, counts = args[6:9]
    page_size = pages.shape[3]
    for b in range(len(counts)):
        for s in range(int(counts[b, 0])):
            own = int(kwargs["slot_pos_table"][b, 0, s // page_size])
            if own and kwargs["slot_pos"][own, s % page_size] < 0:
                bad = torch.nan if s % 2 else torch.inf
                pages[int(table[b, 0, s // page_size]), :, :, s % page_size] = bad


class Sequences:
    """Takes the sequences of a batch apart, for the promise tests."""

    def __init__(self, count: int) -> None:
        self.count = count

    def part(self, sample: Sample, rows: list[int]) -> Sample:
        """The call on these sequences alone."""
        args, kwargs = sample.args, dict(sample.kwargs)
        spans = [[slice(*args[i][b : b + 2].tolist()) for b in rows] for i in (3, 4)]

        def cut(t: Tensor, kind: int) -> Tensor:
            return torch.cat([t[s] for s in spans[kind]])

        lengths = [[s.stop - s.start for s in kind] for kind in spans]
        if kwargs.get("key_keep") is not None:
            kwargs["key_keep"] = cut(kwargs["key_keep"], 1)
        if kwargs.get("slot_pos_table") is not None:
            kwargs["slot_pos_table"] = kwargs["slot_pos_table"][rows]
        taken = (
            cut(args[0], 0),
            cut(args[1], 1),
            cut(args[2], 1),
            offsets(lengths[0]),
            offsets(lengths[1]),
            None if args[5] is None else cut(args[5], 0),
            args[6],
            args[7][rows],
            args[8][rows],
            cut(args[9], 0),
            cut(args[10], 1),
        )
        return replace(sample, args=taken, kwargs=kwargs, rows=None)

    def split(self, results: tuple, args: tuple, rows: list[int]) -> tuple:
        """The results of these sequences."""
        spans = [slice(*args[3][b : b + 2].tolist()) for b in rows]
        return tuple(torch.cat([t[s] for s in spans]) for t in results[:2])


SHAPES = {
    "decode": ([Seq(37), Seq(1), Seq(300), Seq(0), Seq(16)], {}),
    "long": ([Seq(1030), Seq(5)], {"heads": (3, 3), "dim": 80, "dtype": torch.bfloat16}),
    "prefill": ([Seq(0, 70), Seq(250, 20), Seq(9, 33, 12), Seq(40, 0)], {"dtype": torch.float16}),
    "tree": ([Seq(45, 40), Seq(230, 33, 7), Seq(0, 5)], {"tree": True, "heads": (6, 2)}),
    "tree-bf16": ([Seq(600, 65), Seq(3, 1)], {"tree": True, "dtype": torch.bfloat16}),
    "wide": ([Seq(20, 3), Seq(140, 2)], {"dim": 256, "page_size": 128, "heads": (7, 1)}),
    "odd": ([Seq(31, 4), Seq(8, 1)], {"dim": 72, "page_size": 8, "heads": (9, 3)}),
    "none": ([], {}),
}
OPTIONS: dict[str, list[dict]] = {
    "decode": [{}, {"window": 40, "num_sinks": 3}, {"softcap": 5.0}, {"part": "prefix"}],
    "prefill": [{}, {"window": 9}, {"causal": False}, {"part": "fresh", "softcap": 2.0}],
    "tree": [{}, {"window": 3, "num_sinks": 2}, {"part": "fresh"}],
}


def pageds() -> Iterator[Sample]:
    for name, (seqs, shape) in SHAPES.items():
        for i, options in enumerate(OPTIONS.get(name, [{}])):
            args, kwargs = make_batch(seqs, **shape)
            rows = Sequences(len(seqs)) if seqs else None
            yield Sample(f"{name}-{i}", args, (), kwargs | options, rows)
    for name in ("decode", "tree", "prefill"):
        seqs, shape = SHAPES[name]
        args, kwargs = make_batch(seqs, **shape)
        more = make_positions(args[8], args[7], args[6].shape[3], dead=0.3)
        poison_dead(args, more)
        if name != "decode":
            more["key_keep"] = torch.rand(len(args[1]), args[1].shape[1]) < 0.7
        more["alibi_slopes"] = torch.rand(args[0].shape[1])
        yield Sample(f"{name}-dead", args, (), kwargs | more, Sequences(len(seqs)))


def ropes() -> Iterator[Sample]:
    shapes = [(3, 64, 64, False), (4, 80, 32, True), (3, 40, 20, False), (3, 8, 0, True)]
    for i, (rows, dim, rotary, interleaved) in enumerate(shapes):
        dtype = (torch.float32, torch.bfloat16, torch.float16)[i % 3]
        query, key = (torch.randn(rows, h, dim).to(dtype) for h in (4, 2))
        angles = torch.arange(50)[:, None] * torch.rand(rotary // 2)
        positions = torch.tensor([0, 49, 7, 7][:rows], dtype=torch.int32)
        args = (query, key, angles.cos(), angles.sin(), positions, interleaved)
        yield Sample(f"{dim}-{rotary}", args, (0, 1, 4))
    both = torch.randn(3, 8, 64)
    angles = torch.rand(5, 32)
    positions = torch.tensor([4, 0, 2], dtype=torch.int32)
    args = (both[:, :6], both[:, 6:], angles.cos(), angles.sin(), positions)
    yield Sample("strided", args, (0, 1, 4))


def merges() -> Iterator[Sample]:
    for i, dim in enumerate((64, 8, 130)):
        dtype = (torch.bfloat16, torch.float32, torch.float16)[i]
        a, b = (torch.randn(4, 3, dim).to(dtype) for _ in range(2))
        lse_a, lse_b = torch.randn(2, 4, 3).mul(20).unbind()
        lse_a[1], lse_b[1:3], b[2] = -torch.inf, -torch.inf, torch.nan
        yield Sample(str(dim), (a, lse_a.contiguous(), b, lse_b.contiguous()), (0, 1, 2, 3))
