"""Every query against plain Python over lists, on every corpus and shard count."""

import random
from collections import Counter

import pytest
import torch
from ngram.corpora import Corpus, corpora, foreign, queries_of, random_docs, sharded

from lmx import ngram
from lmx.errors import CorruptIndexError
from lmx.ngram import Index
from lmx.ngram import reference as naive

ALL = [*corpora(), *map(sharded, corpora())]
each_corpus = pytest.mark.parametrize("corpus", ALL, ids=lambda c: c.name)


def eos(corpus: Corpus) -> int:
    return -1 if corpus.eos_id is None else corpus.eos_id


@each_corpus
def test_suffix_array(corpus):
    tensors = corpus.index().tensors
    assert len(corpus.shards) == len(tensors.shards)
    for row, docs in zip(tensors.shards.tolist(), corpus.shards, strict=True):
        assert tensors.sa[row[2] : row[2] + row[3]].tolist() == naive.sa_build(docs)


@each_corpus
def test_find(corpus):
    index, queries = corpus.index(), queries_of(corpus, 60)
    rng, cnt = index.find(queries)
    assert cnt.tolist() == [naive.find(corpus.shards, q) for q in queries]
    assert [index.count(q) for q in queries] == cnt.tolist()
    for query in queries[:20]:
        found = [p.tolist() for p in index.positions(query)]
        assert found == [naive.occurrences(docs, query) for docs in corpus.shards]


def test_all_short_strings_of_a_text():
    """Every string of up to 6 tokens, and ten thousand that do not occur."""
    [doc] = random_docs(3, [300], 5)
    corpus = Corpus("text", [doc], 4)
    index = corpus.index()
    strings = {tuple(doc[i : i + n]) for n in range(1, 7) for i in range(len(doc) - n + 1)}
    ordered = [list(s) for s in sorted(strings)]
    expected = [sum(doc[i : i + len(s)] == s for i in range(300)) for s in ordered]
    assert index.count(ordered).tolist() == expected
    draw = random.Random(1)
    absent = [[draw.randrange(4) for _ in range(9)] for _ in range(12_000)]
    absent = [a for a in absent if 3 in a][:10_000]
    assert len(absent) == 10_000 and not index.count(absent).any()


@each_corpus
@pytest.mark.parametrize("bound,least", [(0, 1), (3, 1), (0, 2), (0, 5)])
def test_longest_suffix(corpus, bound, least):
    index, contexts = corpus.index(), queries_of(corpus, 40, 1)
    length, _, cnt = index.longest_suffix(contexts, max_len=bound, min_count=least)
    assert length.tolist() == [
        naive.longest_suffix(corpus.shards, c, bound, least) for c in contexts
    ]
    tails = [c[len(c) - n :] for c, n in zip(contexts, length.tolist(), strict=True)]
    assert torch.equal(cnt, index.find(tails)[1])


@each_corpus
def test_streaming(corpus):
    """One token at a time, with the last result as the hint, equals starting anew."""
    index = corpus.index()
    text = next((doc for doc in corpus.docs if len(doc) > 3), [0, 0])[:60]
    last = torch.tensor([0], dtype=torch.int32)
    for t in range(1, len(text)):
        fresh = index.longest_suffix([text[:t]])[0]
        streamed = index.longest_suffix([text[:t]], prev_len=last)[0]
        assert torch.equal(fresh, streamed) and int(fresh) <= int(last) + 1
        last = fresh


@each_corpus
def test_distribution(corpus):
    """Exact counts, tokens ascending, all of the mass, also behind the last tokens of documents."""
    index, contexts = corpus.index(), queries_of(corpus, 50, 2)
    contexts += [doc[-k:] for doc in corpus.docs[-3:] for k in (1, 3) if doc]
    found = index.ntd(contexts)
    for i, context in enumerate(contexts):
        expected = naive.ntd(corpus.shards, context, eos(corpus))
        assert found.counts(i) == expected and list(found.counts(i)) == sorted(expected)
        assert sum(expected.values()) == int(found.den[i])
        if expected:
            assert abs(sum(found.probs(i).values()) - 1) < 1e-12


@pytest.mark.parametrize("in_order", [True, False], ids=["native", "foreign"])
def test_distribution_of_large_ranges(in_order):
    """Behind frequent strings, shorter and longer than a key, some of which end documents."""
    draw = random.Random(7)
    docs = [[int(draw.paretovariate(0.6)) % 500 for _ in range(n)] for n in (9000, 0, 20_000, 1)]
    docs += [[1, 1, 1, 1, 1, 1, t] for t in range(400)] + [[1] * 6] * 90
    corpus = Corpus("large", docs, 500, eos_id=499)
    index = corpus.index() if in_order else Index(foreign(corpus))
    contexts = [[1], [2], [1, 1], [1, 1, 1], [1] * 4, [1] * 5, [1] * 6]
    found = index.ntd([*contexts, []])
    for i, context in enumerate(contexts):
        size, expected = len(context), Counter()
        for doc in docs:
            for at in range(len(doc) - size + 1):
                if doc[at : at + size] == context:
                    expected[doc[at + size] if at + size < len(doc) else 499] += 1
        assert found.counts(i) == expected and int(found.den[i]) == expected.total() > 90
    if in_order:
        assert found.counts(len(contexts)) == Counter(t for doc in docs for t in doc)
    else:
        assert sum(found.counts(len(contexts)).values()) == sum(map(len, docs)) + len(docs)


@pytest.mark.parametrize("docs", [[], [[], [], []]], ids=["no-documents", "empty-documents"])
def test_nothing_at_all(docs):
    index = Corpus("nothing", docs, 5, eos_id=1).index()
    assert index.count([]) == 0 == index.count([3]) and index.num_docs == len(docs)
    assert index.count([[], [1, 2]]).tolist() == [0, 0]
    assert index.infgram_prob([1, 2], 3).prob == -1.0 == index.prob([], 0).prob
    for found in (index.ntd([[], [1]]), index.infgram_ntd([[], [1]])):
        assert found.crow.tolist() == [0, 0, 0] and found.den.tolist() == [0, 0]
    assert index.score([1, 2]).prob.tolist() == [-1.0, -1.0]
    assert index.creativity([1, 2]) == [0, 1] and not index.sample_docs([1])


@each_corpus
def test_prob_agrees_with_the_distribution(corpus):
    index = corpus.index()
    for context in queries_of(corpus, 12, 3):
        counts = index.ntd([context]).counts()
        for token in [*counts, 0, corpus.vocab_size - 1]:
            if token >= 0:
                found = index.prob(context, token)
                assert (found.num, found.den) == (counts.get(token, 0), index.count(context))
                assert found.prob == (found.num / found.den if found.den else -1.0)


@each_corpus
def test_score(corpus):
    index = corpus.index()
    texts = [q for q in queries_of(corpus, 40, 4) if len(q) > 2][:6] + [[], [0]]
    for bound, least in ((0, 1), (2, 1), (0, 3)):
        scores = index.score(texts, max_len=bound, min_count=least)
        rows = zip(
            scores.suffix_len.tolist(),
            scores.den.tolist(),
            scores.num.tolist(),
            scores.distinct.tolist(),
            strict=True,
        )
        assert list(rows) == [
            r for t in texts for r in naive.score(corpus.shards, t, eos(corpus), bound, least)
        ]


def test_score_of_a_long_text_equals_single_queries():
    """Longer than the pieces in which a text is searched."""
    corpus = Corpus("long", random_docs(6, [4000, 300], 7), 6, eos_id=5)
    index = corpus.index()
    text = random_docs(6, [700], 9)[0]
    scores = index.score(text)
    for t in range(0, 700, 7):
        found = index.infgram_prob(text[:t], text[t])
        assert (found.suffix_len, found.den, found.num) == tuple(
            int(x[t]) for x in (scores.suffix_len, scores.den, scores.num)
        )
        assert bool(scores.sparse[t]) == (len(index.infgram_ntd([text[:t]]).counts()) == 1)


@each_corpus
def test_longest_prefix(corpus):
    index = corpus.index()
    for text in queries_of(corpus, 12, 5):
        ends = index.creativity(text)
        assert [end - start for start, end in enumerate(ends)] == naive.longest_prefix(
            corpus.shards, text
        )


@each_corpus
def test_documents(corpus):
    index = corpus.index()
    assert index.num_docs == len(corpus.docs)
    assert [index.get_doc(i) for i in range(len(corpus.docs))] == corpus.docs
    for query in queries_of(corpus, 10, 6):
        expected = naive.locate(corpus.shards, query)
        rows = index.locate([query], 2000)[0].tolist()
        assert {tuple(r) for r in rows if r[0] >= 0} == expected
        few = [tuple(r) for r in index.locate([query], 3, seed=5)[0].tolist() if r[0] >= 0]
        assert len(set(few)) == len(few) == min(3, len(expected)) and set(few) <= expected
        if query:
            holds = [i for i, doc in enumerate(corpus.docs) if naive.find([[doc]], query)]
            assert index.docs([[query]]) == holds
            for snippet in index.sample_docs(query, 2, context=4):
                at = snippet.offset
                assert snippet.tokens[at : at + len(query)] == query


def test_samples_are_spread_evenly():
    """Each of 100 occurrences is chosen about as often: chi-square, 99 degrees of freedom."""
    index = Corpus("ones", [[0] * 100], 1).index()
    rng, _ = index.find([[0]])
    hits = torch.zeros(100)
    for seed in range(400):
        hits[ngram.locate(index.tensors, rng, 10, seed=seed)[0, :, 3]] += 1
    chi2 = ((hits - 40) ** 2 / 40 * (100 / 90)).sum()
    assert 60 < chi2 < 150


def test_conjunctions():
    docs = [[1, 2, 9, 9, 3, 4], [1, 2] + [9] * 50 + [3, 4], [3, 4, 9, 1, 2], [1, 2]]
    far = [8] * 100  # a window that reaches into another document is dropped
    docs = [far + doc + far for doc in docs]
    index = Corpus("cnf", docs, 10).index()
    assert index.count_cnf([[[1, 2]], [[3, 4]]], max_diff_tokens=10) == (2, False)
    assert index.count_cnf([[[1, 2]], [[3, 4]]], max_diff_tokens=60) == (3, False)
    assert index.count_cnf([[[1, 2]], [[3, 4], [9, 9]]], max_diff_tokens=2)[0] == 2
    assert index.docs([[[1, 2]], [[3, 4]]]) == [0, 1, 2]
    assert index.docs([[[1, 2], [3]]]) == [0, 1, 2, 3]
    _, approx = index.count_cnf([[[9]], [[1, 2]]], max_clause_freq=5)
    assert approx


# ---- indexes of indexes --------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", [c for c in corpora() if c.docs], ids=lambda c: c.name)
def test_shards_add_up(corpus):
    one, several = corpus.index(), sharded(corpus).index()
    contexts = queries_of(corpus, 40, 8)
    assert torch.equal(one.find(contexts)[1], several.find(contexts)[1])
    assert torch.equal(one.longest_suffix(contexts)[0], several.longest_suffix(contexts)[0])
    a, b = one.ntd(contexts), several.ntd(contexts)
    for x, y in ((a.crow, b.crow), (a.tok, b.tok), (a.num, b.num), (a.den, b.den)):
        assert torch.equal(x, y)


def subtracted(corpus: Corpus, tmp_path) -> tuple[Index, Corpus]:
    """The corpus minus every other document, and a corpus of what is left."""
    left, off = corpus.docs[::2], corpus.docs[1::2]
    ngram.build(corpus.docs, tmp_path / "all.lmxn", corpus.options())
    ngram.build(off, tmp_path / "off.lmxn", corpus.options())
    index = ngram.open(tmp_path / "all.lmxn", subtract=tmp_path / "off.lmxn")
    return index, Corpus(corpus.name, left, corpus.vocab_size, corpus.eos_id)


@pytest.mark.parametrize("corpus", [c for c in corpora() if c.docs], ids=lambda c: c.name)
def test_subtraction(corpus, tmp_path):
    index, left = subtracted(corpus, tmp_path)
    same = left.index()
    contexts = queries_of(corpus, 40, 9)
    assert torch.equal(index.find(contexts)[1], same.find(contexts)[1])
    assert torch.equal(index.longest_suffix(contexts)[0], same.longest_suffix(contexts)[0])
    a, b = index.infgram_ntd(contexts), same.infgram_ntd(contexts)
    for x, y in ((a.crow, b.crow), (a.tok, b.tok), (a.num, b.num), (a.den, b.den)):
        assert torch.equal(x, y)
    x, y = index.score(contexts), same.score(contexts)
    for name in ("suffix_len", "den", "num", "distinct"):
        assert torch.equal(getattr(x, name), getattr(y, name)), name
    for ask in (
        lambda: index.creativity([0]),
        lambda: index.locate([[0]], 1),
        lambda: index.docs([[[0]]]),
    ):
        with pytest.raises(ValueError, match="subtracted"):
            ask()


def test_subtracting_what_is_not_there_is_noticed(tmp_path):
    corpus = Corpus("a", [[1, 2]], 4)
    ngram.build([[1, 2]], tmp_path / "a.lmxn", corpus.options())
    ngram.build([[3, 3]], tmp_path / "b.lmxn", corpus.options())
    index = ngram.open(tmp_path / "a.lmxn", subtract=[tmp_path / "b.lmxn"])
    with pytest.raises(CorruptIndexError):
        index.count([3])
    with pytest.raises(CorruptIndexError):
        index.count([[3], [1]])


# ---- the foreign order ---------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", [c for c in corpora() if c.docs], ids=lambda c: c.name)
@pytest.mark.parametrize("ptr_bytes", [3, 8])
def test_foreign_order_gives_the_same_answers(corpus, ptr_bytes):
    index, native = Index(foreign(corpus, ptr_bytes)), corpus.index()
    contexts = [q for q in queries_of(corpus, 40, 10) if q] or [[0]]
    assert torch.equal(index.find(contexts)[1], native.find(contexts)[1])
    assert torch.equal(index.longest_suffix(contexts)[0], native.longest_suffix(contexts)[0])
    for context in contexts:
        assert index.ntd([context]).counts() == native.ntd([context]).counts()
        assert index.creativity(context) == native.creativity(context)
    total = sum(len(doc) + 1 for doc in corpus.docs)
    assert index.count([]) == total  # separators too, as infini-gram counts
    assert [index.get_doc(i) for i in range(index.num_docs)] == corpus.docs


# ---- approximation -------------------------------------------------------------------------------


@each_corpus
@pytest.mark.parametrize("support", [1, 3, 10, 1000])
def test_max_support(corpus, support):
    """Exact where there are few enough; else the counts still sum to the total."""
    index, contexts = corpus.index(), queries_of(corpus, 30, 11)
    found, exact = index.ntd(contexts, max_support=support), index.ntd(contexts)
    for i in range(len(contexts)):
        total = int(exact.den[i])
        assert bool(found.approx[i]) == (total > support)
        assert sum(found.counts(i).values()) == total == int(found.den[i])
        assert set(found.counts(i)) <= set(exact.counts(i))
        if total <= support:
            assert found.counts(i) == exact.counts(i)


def test_dense_and_top_k_agree_with_the_rows():
    corpus = corpora()[3]
    index, contexts = corpus.index(), queries_of(corpus, 20, 12)
    rng, _ = index.find(contexts)
    depth = torch.tensor([len(c) for c in contexts], dtype=torch.int32)
    dense = ngram.ntd_dense(index.tensors, rng, depth)
    tok, num = ngram.ntd_topk(index.tensors, rng, depth, 4)
    for i, context in enumerate(contexts):
        exact = naive.ntd_dense(corpus.shards, context, corpus.vocab_size, eos(corpus))
        assert torch.equal(dense[i], torch.tensor(exact, dtype=torch.float64).float())
        best = naive.ntd_topk(corpus.shards, context, 4, eos(corpus))
        pairs = list(zip(tok[i].tolist(), num[i].tolist(), strict=True))
        assert pairs == best + [(-1, 0)] * (4 - len(best))


def test_rows_that_do_not_fit_are_left_out():
    corpus = corpora()[2]
    index = corpus.index()
    rng, _ = index.find([[0], [1], [2]])
    depth = torch.ones(3, dtype=torch.int32)
    full = ngram.ntd(index.tensors, rng, depth, 100)
    status = torch.zeros(3, dtype=torch.int32)
    capacity = int(full[0][2])
    crow, tok, num, _, _ = ngram.ntd(index.tensors, rng, depth, capacity, status=status)
    assert torch.equal(crow, full[0]) and status.tolist() == [0, 0, 2]
    assert torch.equal(tok, full[1][:capacity]) and torch.equal(num, full[2][:capacity])
    with pytest.raises(ValueError, match="a capacity that holds all results"):
        ngram.ntd(index.tensors, rng, depth, 1)
