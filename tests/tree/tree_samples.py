"""Samples of the room's ops, and how their sequences are taken apart."""

from collections.abc import Iterator

import torch
from samples import Sample
from torch import Tensor

from lmx import tree

I32, I64 = torch.int32, torch.int64
SIZES = (5, 1, 0, 33, 2, 64, 81)  # with borders of the mask's words


class SequenceRows:
    """Which arguments and results have an entry per node, and which per sequence."""

    def __init__(
        self,
        indptr: int,
        per_node: tuple[int, ...],
        per_seq: tuple[int, ...] = (),
        node_results: tuple[int, ...] = (),
        seq_results: tuple[int, ...] = (),
        num_rows: int | None = None,
    ) -> None:
        self.indptr, self.per_node, self.per_seq = indptr, per_node, per_seq
        self.node_results, self.seq_results, self.num_rows = node_results, seq_results, num_rows
        self.count = 0

    def of(self, args: tuple) -> "SequenceRows | None":
        self.count = args[self.indptr].numel() - 1
        return self if self.count else None

    def picked(self, indptr: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        spans = [torch.arange(*indptr[i : i + 2].tolist()) for i in rows]
        sizes = [0, *(len(s) for s in spans)]
        return torch.cat(spans).long(), torch.tensor(sizes).cumsum(0).to(I32)

    def take(self, args: tuple, rows: list[int]) -> tuple:
        nodes, indptr = self.picked(args[self.indptr], rows)
        taken = list(args)
        taken[self.indptr] = indptr
        for which, index in ((self.per_node, nodes), (self.per_seq, rows)):
            for i in which:
                if i < len(args) and args[i] is not None:
                    taken[i] = args[i][index]
        if self.num_rows is not None:
            taken[self.num_rows] = len(nodes)
        return tuple(taken)

    def split(self, results: tuple, args: tuple, rows: list[int]) -> tuple:
        nodes, _ = self.picked(args[self.indptr], rows)
        if self.num_rows is not None:  # of a commit: [table_rows, num_rows]
            return tuple(r[:, nodes] for r in results)
        return tuple(r[rows if i in self.seq_results else nodes] for i, r in enumerate(results))


def random_parents(size: int, reach: int = 6) -> list[int]:
    return [-1, *(int(torch.randint(max(0, i - reach), i, ())) for i in range(1, size))][:size]


def packed(trees: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Parents and indptr."""
    bounds = torch.tensor([0, *map(len, trees)]).cumsum(0).to(I32)
    return torch.tensor([p for t in trees for p in t], dtype=I32), bounds


def batches() -> Iterator[tuple[str, Tensor, Tensor]]:
    yield "mixed", *packed([random_parents(n) for n in SIZES])
    yield "bushy", *packed([random_parents(n, 1000) for n in (40, 97)])
    yield "chain", *packed([list(range(-1, 99))])
    yield "star", *packed([[-1] + [0] * 39, [-1]])
    yield "plain", *packed([[-1]] * 3)
    parents, indptr = packed([random_parents(9), []])
    yield "slack", torch.cat((parents, parents.new_tensor([-1, 7, -9]))), indptr
    yield "nothing", *packed([])


def prepare_samples() -> Iterator[Sample]:
    rows = (1, (0, 3), (5,), (0, 1, 2, 3))
    for name, parents, indptr in batches():
        args = (parents, indptr, 100)
        yield Sample(name, args, (), rows=SequenceRows(*rows).of(args))
    args = (*packed([list(range(-1, 1023)), random_parents(300)]), 1024)
    yield Sample("largest", args, (), rows=SequenceRows(*rows).of(args))
    parents, indptr = packed([random_parents(n) for n in (6, 40, 9, 4, 5, 3)])
    tokens = torch.arange(len(parents))
    parents[1], parents[47], tokens[50] = 5, -1, -1
    status = torch.tensor([0, 0, 0, 0, 2, 0], dtype=I32)
    args = (parents, indptr, 32, tokens, len(tokens), status)
    yield Sample("bad", args, (), rows=SequenceRows(*rows).of(args))
    offsets = torch.tensor([0, 5, 3, 6, 9, 99, 9], dtype=I32)
    zeros = torch.zeros(6, dtype=I32)
    yield Sample("offsets", (packed([[-1] * 9])[0], offsets, 8, None, 0, zeros), None)


def linked(parents: Tensor, indptr: Tensor) -> tuple[Tensor, Tensor]:
    """first_child and next_sibling."""
    return tree.prepare(parents, indptr, 1024)[1:3]


def trees_to_walk() -> Iterator[tuple[str, Tensor, Tensor, Tensor, Tensor, Tensor]]:
    for name, parents, indptr in batches():
        used = int(indptr[-1])
        first, following = linked(parents[:used], indptr)
        pad = (0, len(parents) - used)
        first, following = (torch.nn.functional.pad(t, pad, value=99) for t in (first, following))
        yield name, torch.randint(5, parents.shape), indptr, first, following, parents


def greedy_samples() -> Iterator[Sample]:
    rows = (1, (0, 2, 3, 4), (6,), (), (0, 1, 2))
    for name, tokens, indptr, first, following, _ in trees_to_walk():
        for max_depth in (0, 2, 130):
            args = (tokens, indptr, first, following, torch.randint(5, tokens.shape), max_depth)
            yield Sample(f"{name}-{max_depth}", args, (), rows=SequenceRows(*rows).of(args))
    parents, indptr = packed([[-1, 0, 1, 1], [-1, 0, 0], [-1, 0], [-1, 0]])
    first, following = linked(parents, indptr)
    first[1], following[5] = 1, 5  # a node below itself, a circle of siblings
    tokens = torch.ones_like(parents).long()
    tokens[5] = 7
    target = torch.ones_like(tokens)
    target[8] = -1  # no token may follow
    status = torch.tensor([0, 0, 0, 1], dtype=I32)
    args = (tokens, indptr, first, following, target, 4, status)
    yield Sample("bad", args, (), rows=SequenceRows(*rows).of(args))


def make_probs(rows: int, vocab_size: int) -> Tensor:
    probs = torch.softmax(torch.randn(rows, vocab_size) * 2, -1)
    probs[:, :5] += torch.rand(rows, min(5, vocab_size)) * 2
    probs[torch.rand_like(probs) < 0.2] = 0.0
    return probs / probs.sum(-1, keepdim=True).clamp(min=1e-9)


def uniforms(count: int) -> Tensor:
    return (torch.rand(count, dtype=torch.float64) * 2**24).long().double().mul(2**-24).float()


def target_samples() -> Iterator[Sample]:
    rows = (1, (0, 2, 3, 4, 5), (6, 10), (), (0, 1, 2))
    sizes = (5, 6, 256, 257, 1000, 8192, 8193)
    for i, (name, tokens, indptr, first, following, _) in enumerate(trees_to_walk()):
        num_seqs = indptr.numel() - 1
        for max_depth, thresholds in ((0, (1.0, 1.0)), (99, (1.0, 1.0)), (9, (0.3, 0.7))):
            args = (tokens, indptr, first, following, make_probs(len(tokens), sizes[i]))
            args += (uniforms(len(tokens)), uniforms(num_seqs), max_depth, *thresholds)
            yield Sample(f"{name}-{max_depth}", args, (), rows=SequenceRows(*rows).of(args))
    yield from _odd_targets(rows)


def _odd_targets(rows: tuple) -> Iterator[Sample]:
    """Rows that sum to 0, hold NaN, inf or less than 0; mass on children alone; bad uniforms."""
    parents, indptr = packed([[-1, 0, 0, 0]] * 8)
    tokens = torch.tensor([9, 1, 1, 2] * 8)
    tokens[13] = 300  # of no vocabulary
    first, following = linked(parents, indptr)
    probs = make_probs(32, 300)
    probs[0] = 0.0
    probs[4, 299], probs[8, 7], probs[16, 5] = torch.nan, torch.inf, -1e-9
    probs[20], probs[24] = 0.0, 0.0
    probs[20, 1], probs[20, 2] = 0.5, 0.25
    probs[24, 1] = 1e-30
    u_node, u_final = uniforms(32), uniforms(8)
    u_node[20], u_node[24], u_final[7] = 1 - 2**-24, 1 - 2**-24, 1.0
    status = torch.zeros(8, dtype=I32)
    args = (tokens, indptr, first, following, probs, u_node, u_final, 3, 1.0, 1.0, status)
    yield Sample("odd", args, (), rows=SequenceRows(*rows).of(args))


def commit_samples() -> Iterator[Sample]:
    rows = (2, (), (0, 1, 3, 4, 8), (0,), (), 5)
    for table_rows, page_size in ((1, 16), (3, 8)):
        sizes = torch.tensor([7, 1, 0, 20, 9])
        indptr = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).to(I32)
        path = torch.tensor([[0, 2, 3, 6], [0, -1, -1, -1], [-1] * 4, [0, 1, 5, 19], [0, 4, 8, -1]])
        length = torch.tensor([3, 0, 0, 3, 1], dtype=I32)
        slots = torch.randint(0, 5 * page_size - 4, (5, table_rows), dtype=I32)
        table = torch.randperm(25 * table_rows).reshape(5, table_rows, 5).to(I32) + 1
        needed = (slots + length[:, None] + page_size) // page_size
        table[torch.arange(5) >= needed[..., None]] = 2_000_000_000
        num_pages = 25 * table_rows + 1
        args = (path.to(I32), length, indptr, table, slots, 37, page_size, num_pages, None)
        yield Sample(f"{table_rows}-rows", args, (), rows=SequenceRows(*rows).of(args))
        bad_path, bad_table, bad_slots = path.to(I32), table.clone(), slots.clone()
        bad_path[0, 2], bad_table[1, 0], bad_slots[3, 0] = 7, 0, 5 * page_size - 3
        bad_length = torch.tensor([3, 0, -1, 3, 4], dtype=I32)
        status = torch.zeros(5, dtype=I32)
        args = (
            bad_path,
            bad_length,
            indptr,
            bad_table,
            bad_slots,
            37,
            page_size,
            num_pages,
            status,
        )
        yield Sample(f"{table_rows}-rows-bad", args, (), rows=SequenceRows(*rows).of(args))


def make_matrix(count: int, vocab_size: int, k: int) -> Tensor:
    matrix = torch.randint(vocab_size, (count, vocab_size, k), dtype=I32)
    matrix[torch.rand(matrix.shape[:2]) < 0.1] = -1
    matrix[..., k - 1][torch.rand(matrix.shape[:2]) < 0.3] = -1
    return matrix


def expand_samples() -> Iterator[Sample]:
    published = tree.token_recycling()
    small, chain = tree.likeliest(7), tree.from_chain(32)
    for name, template, count in (("80", published, 1), ("7", small, 3), ("chain", chain, 3)):
        roots = torch.tensor([3, 49, 0])
        args = (make_matrix(count, 50, 8), roots, template.parents, template.ranks)
        yield Sample(name, args, None)
        sizes, ids = torch.tensor([0, 5, 7], dtype=I32), torch.tensor([0, 0, count - 1], dtype=I32)
        yield Sample(f"{name}-sizes", (*args, sizes, ids), None)
    yield Sample("nothing", (make_matrix(1, 5, 8), torch.zeros(0).long(), *args[2:]), None)
    matrix = make_matrix(1, 50, 8)
    matrix[0, 11] = 50
    roots = torch.tensor([3, 50, 11, 4, 5, 6])
    sizes = torch.tensor([7, 7, 7, 8, 7, 7], dtype=I32)
    ids = torch.tensor([0, 0, 0, 0, 1, 0], dtype=I32)
    status = torch.tensor([0, 0, 0, 0, 0, 4], dtype=I32)
    yield Sample("bad", (matrix, roots, small.parents, small.ranks, sizes, ids, status), None)
    deep = torch.arange(-1, 33, dtype=I32)
    for parents in (deep, torch.tensor([-1, 2, 0], dtype=I32)):
        ranks, status = torch.zeros_like(parents), torch.zeros(2, dtype=I32)
        args = (make_matrix(1, 50, 8), torch.tensor([1, 99]), parents, ranks, None, None, status)
        yield Sample(f"no-tree-{len(parents)}", args, None)


def update_samples() -> Iterator[Sample]:
    for name, count, k, vocab_size in (("one", 1, 8, 40), ("own", 3, 3, 700), ("many", 2, 16, 33)):
        _, indptr = packed([[-1] * n for n in (9, 1, 20)])
        tokens = torch.randint(12, (30,))
        logits = torch.randn(30, vocab_size)
        logits[::3] = logits[::3].round()  # ties
        logits[4], logits[5, ::2], logits[6, 3:] = -torch.inf, torch.nan, -torch.inf
        path = torch.tensor([[0, 3, 4], [0, -1, -1], [0, 1, 19]], dtype=I32)
        ids = torch.tensor([1, 0, 1], dtype=I32) if count == 2 else None
        matrix = make_matrix(count, vocab_size, k)
        yield Sample(name, (matrix, tokens, logits, indptr, None, ids), None)
        yield Sample(f"{name}-path", (matrix, tokens, logits, indptr, path, ids), None)
    tokens = tokens.clone()
    tokens[9] = -1
    ids, status = torch.tensor([1, 0, 2], dtype=I32), torch.zeros(3, dtype=I32)
    yield Sample("bad", (matrix, tokens, logits, indptr, path, ids, status), None)


SAMPLES = {
    "tree_prepare": prepare_samples,
    "tree_verify_greedy": greedy_samples,
    "tree_verify_target": target_samples,
    "tree_commit": commit_samples,
    "tree_recycle_expand": expand_samples,
    "tree_recycle_update": update_samples,
}
