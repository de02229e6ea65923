"""The room's ops on plain lists of documents: slow, clear. Tests compare with these.

A corpus is a list of shards, a shard a list of documents, a document a list of tokens; ``signs``
says which shards are subtracted. Counts are made by looking at every position.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

Docs = Sequence[Sequence[int]]
Corpus = Sequence[Docs]
SEP = -1  # in these lists; above every token in the order


def layout(docs: Docs) -> list[int]:
    """The text of a shard, with SEP for the separator."""
    text = [SEP]
    for doc in docs:
        text += [*doc, SEP]
    return text


def _suffix(text: list[int], start: int) -> list[int]:
    return text[start : text.index(SEP, start)]


def sa_build(docs: Docs) -> list[int]:
    """See ``lmx.ngram.sa_build``."""
    text = layout(docs)
    starts = (i for i, token in enumerate(text) if token != SEP)
    return sorted(starts, key=lambda i: ([*_suffix(text, i), float("inf")], i))


def occurrences(docs: Docs, query: Sequence[int]) -> list[int]:
    """The positions of a string in a shard's text."""
    text, n = layout(docs), len(query)
    return [i for i, t in enumerate(text) if t != SEP and text[i : i + n] == list(query)]


def _signs(corpus: Corpus, signs: Sequence[int] | None) -> Sequence[int]:
    return signs or [1] * len(corpus)


def find(corpus: Corpus, query: Sequence[int], signs: Sequence[int] | None = None) -> int:
    """The count of ``lmx.ngram.find``."""
    counts = (len(occurrences(docs, query)) for docs in corpus)
    return sum(s * c for s, c in zip(_signs(corpus, signs), counts, strict=True))


def longest_suffix(
    corpus: Corpus,
    context: Sequence[int],
    max_len: int = 0,
    min_count: int = 1,
    signs: Sequence[int] | None = None,
) -> int:
    """See ``lmx.ngram.longest_suffix``: the longest first."""
    for n in range(min(len(context), max_len or len(context)), 0, -1):
        if find(corpus, context[len(context) - n :], signs) >= min_count:
            return n
    return 0


def longest_prefix(corpus: Corpus, text: Sequence[int]) -> list[int]:
    """See ``lmx.ngram.longest_prefix``."""
    ends = [range(len(text), i, -1) for i in range(len(text))]
    return [next((r - i for r in ends[i] if find(corpus, text[i:r])), 0) for i in range(len(text))]


def ntd(
    corpus: Corpus, query: Sequence[int], eos_id: int = -1, signs: Sequence[int] | None = None
) -> dict[int, int]:
    """See ``lmx.ngram.ntd``."""
    counts: Counter[int] = Counter()
    for sign, docs in zip(_signs(corpus, signs), corpus, strict=True):
        text = layout(docs)
        for i in occurrences(docs, query):
            after = text[i + len(query)]
            counts[eos_id if after == SEP else after] += sign
    return {token: n for token, n in sorted(counts.items()) if n}


def next_prob(
    corpus: Corpus, query: Sequence[int], token: int, eos_id: int = -1
) -> tuple[int, int]:
    """See ``lmx.ngram.next_prob``."""
    return ntd(corpus, query, eos_id).get(token, 0), find(corpus, query)


def ntd_dense(
    corpus: Corpus, query: Sequence[int], vocab_size: int, eos_id: int = -1
) -> list[float]:
    """See ``lmx.ngram.ntd_dense``."""
    counts, total = ntd(corpus, query, eos_id), find(corpus, query)
    return [counts.get(y, 0) / total if total else 0.0 for y in range(vocab_size)]


def ntd_topk(
    corpus: Corpus, query: Sequence[int], k: int, eos_id: int = -1
) -> list[tuple[int, int]]:
    """See ``lmx.ngram.ntd_topk``."""
    counts = ntd(corpus, query, eos_id)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:k]


def score(
    corpus: Corpus, text: Sequence[int], eos_id: int = -1, max_len: int = 0, min_count: int = 1
) -> list[tuple[int, int, int, int]]:
    """See ``lmx.ngram.score``."""
    rows = []
    for t, token in enumerate(text):
        n = longest_suffix(corpus, text[:t], max_len, min_count)
        counts = ntd(corpus, text[t - n : t], eos_id)
        den = find(corpus, text[t - n : t])
        num = counts.get(token, 0) if token >= 0 else 0
        rows.append((n, den, num, min(2, len(counts))))
    return rows


def locate(corpus: Corpus, query: Sequence[int]) -> set[tuple[int, int, int, int]]:
    """All that ``lmx.ngram.locate`` may list."""
    found, docs_before = set(), 0
    for s, docs in enumerate(corpus):
        text = layout(docs)
        for i in occurrences(docs, query):
            doc = text[:i].count(SEP) - 1
            opened = max(j for j in range(i) if text[j] == SEP)
            found.add((s, i, docs_before + doc, i - opened - 1))
        docs_before += len(docs)
    return found


def mix(
    logits: Tensor, crow: Tensor, tok: Tensor, num: Tensor, lam_sparse: float, lam_dense: float
) -> Tensor:
    """See ``lmx.ngram.mix``; float64."""
    probs = torch.softmax(logits.double(), -1)
    for r in range(len(logits)):
        row = slice(int(crow[r]), int(crow[r + 1]))
        real = (tok[row] >= 0) & (tok[row] < logits.shape[1])
        counts = num[row][real].double()
        if counts.sum() > 0:
            lam = lam_sparse if row.stop - row.start == 1 else lam_dense
            mine = torch.zeros_like(probs[r]).index_put_((tok[row][real],), counts / counts.sum())
            probs[r] = lam * mine + (1 - lam) * probs[r]
    return probs.log()
