"""Samples of the room's ops: name, arguments, and how their rows are taken apart."""

from collections.abc import Iterator

import torch
from ngram.corpora import Corpus, corpora, foreign, queries_of, random_docs, sharded
from torch import Tensor

from lmx.ngram import IndexTensors, ragged
from lmx.ngram import find as find_ranges

I64, I32 = torch.int64, torch.int32
Case = tuple[str, tuple, object]


class QueryRows:
    """Ragged rows at positions 5 and 6; `by_row` are other arguments with an entry per row."""

    def __init__(self, count: int, by_row: tuple[int, ...] = (), per_token: bool = False) -> None:
        self.count, self.by_row, self.per_token = count, by_row, per_token

    def take(self, args: tuple, rows: list[int]) -> tuple:
        pieces = torch.split(args[5], args[6].diff().tolist())
        picked = [pieces[i] for i in rows]
        taken = list(args)
        taken[5] = torch.cat(picked) if picked else args[5][:0]
        taken[6] = torch.tensor([0, *(len(p) for p in picked)]).cumsum(0)
        for i in self.by_row:
            taken[i] = args[i][rows]
        return tuple(taken)

    def split(self, results: tuple, args: tuple, rows: list[int]) -> tuple:
        if not self.per_token:
            return tuple(r[rows] for r in results)
        sizes = args[6].diff().tolist()
        return tuple(torch.cat([torch.split(r, sizes)[i] for i in rows]) for r in results)


class RangeRows:
    """Rows of ranges: the arguments `by_row` have one entry per row."""

    def __init__(self, count: int, by_row: tuple[int, ...], compressed: bool = False) -> None:
        self.count, self.by_row, self.compressed = count, by_row, compressed

    def take(self, args: tuple, rows: list[int]) -> tuple:
        return tuple(a[rows] if i in self.by_row else a for i, a in enumerate(args))

    def split(self, results: tuple, args: tuple, rows: list[int]) -> tuple:
        if not self.compressed:
            return tuple(r[rows] for r in results)
        crow, tok, num, *rest = results
        spans = [slice(*crow[i : i + 2].tolist()) for i in rows]
        sizes = torch.tensor([0, *(s.stop - s.start for s in spans)]).cumsum(0)
        filled = []
        for entries, empty in ((tok, -1), (num, 0)):
            row = torch.full_like(entries, empty)
            row[: int(sizes[-1])] = torch.cat([entries[s] for s in spans])
            filled.append(row)
        return (sizes, *filled, *(r[rows] for r in rest))


class MixRows:
    """Rows of logits beside compressed rows at positions 2, 3, 4."""

    def __init__(self, count: int) -> None:
        self.count = count

    def take(self, args: tuple, rows: list[int]) -> tuple:
        logits, lse, crow, tok, num, *rest = args
        spans = [slice(*crow[i : i + 2].tolist()) for i in rows]
        sizes = torch.tensor([0, *(s.stop - s.start for s in spans)]).cumsum(0)
        entries = (torch.cat([t[s] for s in spans]) for t in (tok, num))
        if len(rest) > 2 and rest[2] is not None:
            rest[2] = rest[2][rows]
        return (logits[rows], lse[rows], sizes, *entries, *rest)

    def split(self, results: tuple, args: tuple, rows: list[int]) -> tuple:
        return tuple(r[rows] for r in results)


class OneRow:
    """One result for all; there is nothing to take apart."""

    count = 1

    def take(self, args: tuple, rows: list[int]) -> tuple:
        return args

    def split(self, results: tuple, args: tuple, rows: list[int]) -> tuple:
        return results


def indexes() -> Iterator[tuple[Corpus, IndexTensors]]:
    """Corpora in one shard and in several, one with a subtracted shard, some in foreign order."""
    for corpus in corpora():
        yield corpus, corpus.index().tensors
    for corpus in corpora()[1:7:2]:
        several = sharded(corpus)
        yield several, several.index().tensors
    for corpus in corpora()[1:8:2]:
        yield corpus, foreign(corpus, 3 + len(corpus.name) % 3)


def _args(t: IndexTensors) -> tuple[Tensor, ...]:
    return t.main


def sa_build_cases() -> Iterator[Case]:
    for corpus in corpora():
        t = corpus.index().tensors
        yield corpus.name, (t.text, corpus.vocab_size, t.sa.numel()), OneRow()
    long = Corpus("long", random_docs(3, [1200, 500, 0, 2], 9), 3)
    t = long.index().tensors
    yield "long", (t.text, 3, t.sa.numel()), OneRow()


def find_cases() -> Iterator[Case]:
    for corpus, t in indexes():
        queries = queries_of(corpus, 30)
        qtok, qoff = ragged([*queries, [corpus.vocab_size], [0, -1], [0, 2**40]])
        yield (
            corpus.name,
            (*_args(t), qtok, qoff, t.vocab_size, t.ptr_bytes),
            QueryRows(len(qoff) - 1),
        )
    corpus = corpora()[3]
    t = corpus.index().tensors
    many = [q for q in queries_of(corpus, 64) if q] * 66
    qtok, qoff = ragged(many)  # enough for the throughput form
    yield "many", (*_args(t), qtok, qoff, t.vocab_size, 0), QueryRows(len(many))
    longer = [[*q, q[0]] for q in many[:40]]
    rng, _ = find_ranges(t, *ragged([q[:-1] for q in longer]))
    depth = torch.tensor([len(q) - 1 for q in longer])[:, None, None].expand(-1, 1, 1)
    args = (*_args(t), *ragged(longer), t.vocab_size, 0, torch.cat([rng, depth], -1))
    yield "hint", args, QueryRows(40, (9,))


def longest_suffix_cases() -> Iterator[Case]:
    for i, (corpus, t) in enumerate(indexes()):
        queries = [*queries_of(corpus, 24, 1), [corpus.vocab_size, 0], [0, corpus.vocab_size]]
        qtok, qoff = ragged(queries)
        bound, least = ((0, 1), (3, 1), (0, 2))[i % 3]
        args = (*_args(t), qtok, qoff, t.vocab_size, t.ptr_bytes, bound, least)
        yield corpus.name, args, QueryRows(len(queries))
    corpus = corpora()[3]
    t = corpus.index().tensors
    queries = [doc[:k] for doc in corpus.docs for k in (1, 5, 33) if len(doc) >= k]
    before = torch.ops.lmx.ngram_longest_suffix(
        *_args(t), *ragged([q[:-1] for q in queries]), t.vocab_size, 0
    )[0]
    args = (*_args(t), *ragged(queries), t.vocab_size, 0, 0, 1, before)
    yield "streaming", args, QueryRows(len(queries), (11,))


def text_cases() -> Iterator[tuple[Corpus, IndexTensors, Tensor, Tensor]]:
    for corpus, t in indexes():
        texts = [*queries_of(corpus, 9, 2), [0, corpus.vocab_size, 0, 0]]
        yield corpus, t, *ragged(texts)


def longest_prefix_cases() -> Iterator[Case]:
    for corpus, t, qtok, qoff in text_cases():
        args = (*_args(t), qtok, qoff, t.vocab_size, t.ptr_bytes)
        yield corpus.name, args, QueryRows(len(qoff) - 1, (), per_token=True)


def score_cases() -> Iterator[Case]:
    for i, (corpus, t, qtok, qoff) in enumerate(text_cases()):
        bound, least = ((0, 1), (3, 1), (0, 2))[i % 3]
        args = (*_args(t), qtok, qoff, t.vocab_size, t.eos_id, t.ptr_bytes, bound, least)
        yield corpus.name, args, QueryRows(len(qoff) - 1, (), per_token=True)


def _ranges(corpus: Corpus, t: IndexTensors) -> tuple[Tensor, Tensor]:
    qtok, qoff = ragged(queries_of(corpus, 14, 3))
    return find_ranges(t, qtok, qoff)[0], qoff.diff().int()


def next_prob_cases() -> Iterator[Case]:
    for corpus, t in indexes():
        rng, depth = _ranges(corpus, t)
        tok = torch.arange(len(depth)) % (corpus.vocab_size + 1) - 1
        tok[-1] = t.eos_id
        args = (*_args(t), rng, depth, tok, t.vocab_size, t.eos_id, t.ptr_bytes)
        yield corpus.name, args, RangeRows(len(depth), (5, 6, 7))


def ntd_cases() -> Iterator[Case]:
    for i, (corpus, t) in enumerate(indexes()):
        rng, depth = _ranges(corpus, t)
        support = (0, 0, 5)[i % 3]
        args = (*_args(t), rng, depth, t.vocab_size, 900, t.eos_id, t.ptr_bytes, support)
        yield corpus.name, args, RangeRows(len(depth), (5, 6), compressed=True)


def ntd_dense_cases() -> Iterator[Case]:
    for i, (corpus, t) in enumerate(indexes()):
        if corpus.vocab_size > 1000:
            continue
        rng, depth = _ranges(corpus, t)
        args = (*_args(t), rng, depth, t.vocab_size, t.eos_id, t.ptr_bytes, (0, 5)[i % 2])
        yield corpus.name, args, RangeRows(len(depth), (5, 6))


def ntd_topk_cases() -> Iterator[Case]:
    for i, (corpus, t) in enumerate(indexes()):
        rng, depth = _ranges(corpus, t)
        args = (*_args(t), rng, depth, t.vocab_size, (1, 3, 9)[i % 3], t.eos_id, t.ptr_bytes)
        yield corpus.name, args, RangeRows(len(depth), (5, 6))


def locate_cases() -> Iterator[Case]:
    for i, (corpus, t) in enumerate(indexes()):
        rng, _ = _ranges(corpus, t)
        args = (*_args(t), t.docs, rng, t.vocab_size, (2, 40)[i % 2], 7 + i, t.ptr_bytes)
        yield corpus.name, args, RangeRows(len(rng), (6,))


def mix_cases() -> Iterator[Case]:
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    for i, vocab in enumerate((1, 7, 300, 1031)):
        sizes = torch.tensor([0, 1, min(3, vocab), 2, min(40, vocab)])
        crow = torch.tensor([0, *sizes.tolist()]).cumsum(0)
        rows = [torch.randperm(vocab)[:n].sort().values for n in sizes.tolist()]
        rows[3] = torch.tensor([-1, 0])  # the end of a document without a token of its own
        tok = torch.cat(rows)
        num = torch.randint(1, 90, tok.shape)
        logits = (torch.randn(5, vocab) * 3).to(dtypes[i % 3])
        lse = torch.logsumexp(logits.float(), -1)
        length = torch.tensor([3, 4, 1, 9, 2], dtype=I32)
        for lams in ((0.3, 0.1), (0.0, 0.0), (1.0, 1.0)):
            args = (logits, lse, crow, tok, num, *lams)
            yield f"{vocab}-{lams[0]}", args, MixRows(5)
        yield f"{vocab}-short", (logits, lse, crow, tok, num, 0.5, 0.2, length, 3), MixRows(5)


CASES = {
    "ngram_sa_build": sa_build_cases,
    "ngram_find": find_cases,
    "ngram_longest_suffix": longest_suffix_cases,
    "ngram_longest_prefix": longest_prefix_cases,
    "ngram_next_prob": next_prob_cases,
    "ngram_ntd": ntd_cases,
    "ngram_ntd_dense": ntd_dense_cases,
    "ngram_ntd_topk": ntd_topk_cases,
    "ngram_score": score_cases,
    "ngram_locate": locate_cases,
    "ngram_mix": mix_cases,
}
