"""Directories of infini-gram: its own engine beside ours, where the package is installed."""

import importlib.util
import random
import re
import resource
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from ngram.corpora import Corpus, foreign

from lmx import ngram
from lmx.compat.infini_gram import InfiniGramEngine, InfiniGramEngineDiff
from lmx.errors import CorruptIndexError, VersionError
from lmx.ngram.foreign import convert, read_infini_gram

has_peer = importlib.util.find_spec("infini_gram") is not None
EOS = 2


def write_v4(docs, folder, ptr_bytes=3):
    """The files that infini-gram's tool writes, by the naive way."""
    corpus = Corpus("v4", docs, 65535, eos_id=EOS)
    tensors = foreign(corpus, ptr_bytes)
    folder.mkdir()
    tensors.text.numpy().tofile(folder / "tokenized.0")
    tensors.sa.numpy().tofile(folder / "table.0")
    (tensors.docs[:-1].numpy() * 2).astype(np.uint64).tofile(folder / "offset.0")
    return folder


def skewed(sizes, seed):
    """Tokens of very different frequency, the end token among them."""
    draw = random.Random(seed)
    return [[int(draw.paretovariate(0.7)) % 300 for _ in range(n)] for n in sizes]


@pytest.fixture(scope="module")
def docs():
    return skewed([900, 0, 300, 1, 40], 0) + [[7, 8, 9]]


@pytest.fixture(scope="module")
def folder(docs, tmp_path_factory):
    return write_v4(docs, tmp_path_factory.mktemp("v4") / "index")


@pytest.fixture(scope="module")
def ours(folder):
    return InfiniGramEngine(index_dir=str(folder), eos_token_id=EOS)


def prompts(docs, count, seed):
    draw, flat = random.Random(seed), [t for doc in docs for t in doc]
    found = [[]]
    for _ in range(count):
        start, size = draw.randrange(len(flat) - 8), draw.choice((1, 1, 2, 3, 6))
        found.append(
            [*flat[start : start + size], *([draw.randrange(300)] * (draw.random() < 0.2))]
        )
    return found


def test_results_are_ours(docs, folder, ours):
    native = Corpus("docs", docs, 65535, eos_id=EOS).index()
    for prompt in prompts(docs, 100, 1)[1:]:
        assert ours.count(prompt) == {"count": native.count(prompt), "approx": False}
        found = ours.infgram_ntd(prompt, max_support=10**6)
        exact = native.infgram_ntd([prompt])
        if int(exact.suffix_len) == 0:  # of nothing, infini-gram counts separators too
            continue
        assert found["prompt_cnt"] == int(exact.den) and not found["approx"]
        assert {t: r["cont_cnt"] for t, r in found["result_by_token_id"].items()} == exact.counts()
        token = prompt[-1]
        p = native.infgram_prob(prompt[:-1], token)
        expected = {
            "prompt_cnt": p.den,
            "cont_cnt": p.num,
            "prob": p.prob,
            "suffix_len": p.suffix_len,
        }
        if len(prompt) > 1:
            assert ours.infgram_prob(prompt[:-1], token) == expected
    assert ours.get_total_doc_cnt() == len(docs)
    text = docs[0][5:30] + [299, 299] + docs[2][:9]
    assert ours.creativity(text) == {"rs": native.creativity(text)}


def test_the_end_of_the_corpus(ours):
    """The last tokens of all: what follows is the end of a document, and nothing else hides it."""
    assert ours.prob([7, 8, 9], EOS)["cont_cnt"] == 1
    assert ours.ntd([7, 8, 9])["result_by_token_id"] == {EOS: {"cont_cnt": 1, "prob": 1.0}}
    found = ours.ntd([9])
    assert sum(r["cont_cnt"] for r in found["result_by_token_id"].values()) == found["prompt_cnt"]
    assert len(found["result_by_token_id"]) > 1


def test_bad_arguments(ours):
    ids = "must be a list of integers in range [0, 65535]"
    assert ours.count("ab") == {"error": f"input_ids {ids}"}
    assert ours.count([1, 70000]) == {"error": f"input_ids {ids}"}
    assert ours.count([1, True]) == {"error": f"input_ids {ids}"}
    assert ours.prob([1], -1) == {"error": "cont_id must be an integer in range [0, 65535]"}
    assert ours.ntd([1], max_support=0) == {"error": "max_support must be a positive integer"}
    assert "cnf must be" in ours.count_cnf([[]])["error"]
    assert "max_clause_freq" in ours.count_cnf([[[1]]], max_clause_freq=0)["error"]
    assert "s must be" in ours.get_doc_by_rank(3, 0)["error"]
    assert "ptr must be" in ours.get_doc_by_ptr(0, 3)["error"]
    assert "doc_ix must be" in ours.get_doc_by_ix(99)["error"]
    assert "maxnum" in ours.search_docs([1], maxnum=0)["error"]
    with pytest.raises(NotImplementedError, match="attribute is not built yet"):
        ours.attribute([1], [2], 1, 1, False)


def test_taken_down(docs, folder, tmp_path):
    """What a second index holds is not shown, and does not count as seen."""
    other = write_v4([docs[0], docs[2][:-1]], tmp_path / "taken")
    engine = InfiniGramEngineDiff(str(folder), str(other), eos_token_id=EOS)
    starts = np.cumsum([0, *(len(doc) + 1 for doc in docs)])[:-1] + 1

    def ask(doc, offset, context, span=None):
        found = docs[doc][offset : offset + 4]
        request = {"docs": [{"s": 0, "ptr": 2 * int(starts[doc] + offset)}], "needle_len": 4}
        request |= {"span_ids": found if span is None else span, "max_ctx_len": context}
        return engine.get_docs_by_ptrs_2_grouped([request])[0][0]

    shown = engine.get_doc_by_ptr_2(0, 2 * int(starts[4] + 20), 4, 9)
    assert ask(4, 20, 9) == shown
    assert ask(0, 20, 9) == ask(0, 20, 9) | {"blocked": True, "token_ids": [], "disp_len": 22}
    assert ask(0, 20, 10**6)["blocked"]  # all of the document
    assert ask(2, 20, 30)["blocked"]
    assert not ask(2, 20, 10**6)["blocked"]  # which ends elsewhere there
    assert not ask(0, 20, 9, [298, 297])["blocked"]  # a span that does not stand there
    assert (
        "max_ctx_len"
        in engine.get_docs_by_ptrs_2_grouped(
            [{"docs": [{"s": 0, "ptr": 0}], "span_ids": [1], "needle_len": 1, "max_ctx_len": -1}]
        )["error"]
    )
    text = docs[0][5:30] + docs[4][3:20]
    taken = Corpus("taken", [docs[0], docs[2][:-1]], 65535).index()
    both = engine.index
    rs = [
        max(
            r
            for r in range(i, len(text) + 1)
            if r == i or both.count(text[i:r]) > taken.count(text[i:r])
        )
        for i in range(len(text))
    ]
    assert engine.creativity(text) == {"rs": rs}


@pytest.mark.parametrize("version", [5, 6])
def test_other_versions_are_refused(folder, version):
    with pytest.raises(ValueError, match=f"expected version 4, got {version}"):
        InfiniGramEngine(index_dir=str(folder), eos_token_id=EOS, version=version)


def test_damaged_directories(docs, tmp_path):
    folder = write_v4(docs, tmp_path / "a")
    for name, cut in (("table.0", 1), ("tokenized.0", 1), ("tokenized.0", 64), ("offset.0", 3)):
        path = folder / name
        raw = path.read_bytes()
        path.write_bytes(raw[:-cut])
        with pytest.raises(CorruptIndexError):
            read_infini_gram(folder, eos_id=EOS)
        path.write_bytes(raw)
    table = folder / "table.0"
    raw = table.read_bytes()
    table.write_bytes(raw[: len(raw) // 3])  # pointers of one byte cannot reach all of the text
    with pytest.raises(CorruptIndexError, match=r"table\.0"):
        read_infini_gram(folder, eos_id=EOS)
    table.write_bytes(b"\xff" * len(raw))  # pointers far outside
    index = read_infini_gram(folder, eos_id=EOS)
    for ask in (
        lambda: index.count([1]),
        lambda: index.count([[1]]),
        lambda: index.infgram_ntd([1]),
    ):
        with pytest.raises(CorruptIndexError):
            ask()
    (folder / "offset.0").write_bytes((5).to_bytes(8, "little"))
    with pytest.raises(CorruptIndexError, match="offset.0"):
        read_infini_gram(folder, eos_id=EOS)
    (folder / "table.0").unlink()
    with pytest.raises(CorruptIndexError, match="table.0"):
        read_infini_gram(folder, eos_id=EOS)
    with pytest.raises(CorruptIndexError, match="no tokenized.0"):
        read_infini_gram(tmp_path, eos_id=EOS)
    (tmp_path / "tokenized").write_bytes(b"")
    with pytest.raises(VersionError):
        read_infini_gram(tmp_path, eos_id=EOS)


def test_convert(docs, folder, tmp_path):
    options = ngram.BuildOptions(vocab_size=400, eos_id=EOS, token_dtype="u16")
    convert(folder, tmp_path / "a.lmxn", options)
    index = ngram.open(tmp_path / "a.lmxn", verify_level="full")
    assert [index.get_doc(i) for i in range(index.num_docs)] == docs


# ---- beside the package --------------------------------------------------------------------------


def index_with_its_tool(docs, folder):
    sep = [0xFFFF]
    text = np.concatenate([piece for doc in docs for piece in (sep, doc)]).astype(np.uint16)
    text.tofile(folder / "tokenized.0")
    starts = np.cumsum([0, *(2 * len(doc) + 2 for doc in docs)])[:-1]
    starts.astype(np.uint64).tofile(folder / "offset.0")
    files = str(min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    command = [sys.executable, "-m", "infini_gram.indexing", "--version", "4"]
    command += ["--token_dtype", "u16", "--cpus", "1", "--mem", "1", "--ulimit", files]
    command += [x for name in ("data", "save", "temp") for x in (f"--{name}_dir", str(folder))]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Enough text for its tool, indexed by it."""
    if not has_peer:
        pytest.skip("infini-gram is not installed")
    docs = skewed([60_000, 0, 9_000, 1, 400], 5)
    folder = index_with_its_tool(docs, tmp_path_factory.mktemp("peer"))
    from infini_gram.engine import InfiniGramEngine as Peer

    def engines(eos):
        peer = Peer(index_dir=str(folder), eos_token_id=eos, vocab_size=65535)
        return peer, InfiniGramEngine(index_dir=str(folder), eos_token_id=eos)

    return docs, engines


WORDS = 60_000


def word_documents():
    """The standard library's sources, a number for every word or mark."""
    root = Path(sysconfig.get_paths()["stdlib"])
    numbers: dict[str, int] = {}
    found = []
    for path in sorted(root.glob("*.py"))[:160]:
        words = re.findall(r"\w+|\S", path.read_text(encoding="utf-8", errors="replace"))
        found.append([numbers.setdefault(w, len(numbers)) % (WORDS - 1) for w in words])
    return found


UNSEEN = 400  # an end token that no document holds: else the package takes it for a separator


@pytest.fixture(scope="module")
def both(package):
    docs, engines = package
    return docs, *engines(UNSEEN)


def ends_the_corpus(docs, prompt):
    """Where the package takes the end of the file and the separators for all there is."""
    last = docs[-1]
    return len(prompt) <= len(last) and last[len(last) - len(prompt) :] == prompt


def fields(result, drop=()):
    return {k: v for k, v in result.items() if k not in drop}


def compare(docs, peer, ours, prompt, longest=2000):
    """Counts, segments, probabilities and exact distributions, wherever that engine is right.

    Its distributions take long: only behind what occurs at most `longest` times.
    """
    assert ours.find(prompt) == peer.find(prompt)
    assert ours.count(prompt) == peer.count(prompt)
    token = (prompt or [1])[-1]
    if token != UNSEEN:  # there the package leaves out the ends of documents
        assert ours.prob(prompt, token) == peer.prob(prompt, token)
        assert ours.infgram_prob(prompt, token) == peer.infgram_prob(prompt, token)
    suffix = ours.infgram_prob(prompt, 1)["suffix_len"]
    if not ends_the_corpus(docs, prompt) and ours.count(prompt)["count"] <= longest:
        assert ours.ntd(prompt, max_support=10**6) == peer.ntd(prompt, max_support=10**6)
    tail = prompt[len(prompt) - suffix :]
    few = ours.count(tail)["count"] <= longest
    if suffix and few and not ends_the_corpus(docs, tail):
        a, b = (e.infgram_ntd(prompt, max_support=10**6) for e in (ours, peer))
        assert a == b


def test_equal_to_the_package(both):
    docs, peer, ours = both
    for prompt in prompts(docs, 500, 2):
        compare(docs, peer, ours, prompt)
    for prompt in prompts(docs, 30, 5):
        compare(docs, peer, ours, prompt, longest=10**6)


@pytest.mark.long
def test_equal_to_the_package_at_length(both, tmp_path):
    """5000 random strings, and 5000 from files that an index of real text does not hold."""
    docs, peer, ours = both
    for prompt in prompts(docs, 5000, 3):
        compare(docs, peer, ours, prompt)
    files = word_documents()
    folder = str(index_with_its_tool(files[0::2], tmp_path))
    peer = type(peer)(index_dir=folder, eos_token_id=WORDS - 1, vocab_size=65535)
    ours = InfiniGramEngine(index_dir=folder, eos_token_id=WORDS - 1)
    for prompt in prompts(files[1::2], 5000, 4):
        compare(files[0::2], peer, ours, prompt)


@pytest.mark.parametrize("support", [1, 2, 3, 7, 10, 20, 50, 333, 1000])
def test_equal_approximations(both, support):
    docs, peer, ours = both
    for prompt in prompts(docs, 150, support):
        if ends_the_corpus(docs, prompt):
            continue
        assert ours.ntd(prompt, max_support=support) == peer.ntd(prompt, max_support=support), (
            prompt
        )


def test_equal_documents(both):
    docs, peer, ours = both
    drop = ("metadata", "needle_offset")  # which wraps round there for a separator
    for rank in range(0, 69_000, 7001):
        for size in (1, 6, 7, 100):
            assert fields(ours.get_doc_by_rank(0, rank, size), drop) == fields(
                peer.get_doc_by_rank(0, rank, size), drop
            )
        assert fields(ours.get_doc_by_rank_2(0, rank, 3, 4), drop) == fields(
            peer.get_doc_by_rank_2(0, rank, 3, 4), drop
        )
        assert fields(ours.get_doc_by_ptr(0, 2 * rank, 9), drop) == fields(
            peer.get_doc_by_ptr(0, 2 * rank, 9), drop
        )
    for doc in range(len(docs)):
        for size in (1, 7, 500):
            assert fields(ours.get_doc_by_ix(doc, size), drop) == fields(
                peer.get_doc_by_ix(doc, size), drop
            )
            assert fields(ours.get_doc_by_ix_2(doc, size), drop) == fields(
                peer.get_doc_by_ix_2(doc, size), drop
            )
    assert ours.get_total_doc_cnt() == peer.get_total_doc_cnt()
    counts = {t: n for t, n in peer.compute_unigram_counts(0).items() if n}
    assert ours.compute_unigram_counts(0) == counts
    for text in (docs[0][:40], docs[2][5:30] + [299] * 3, []):
        assert ours.creativity(text) == peer.creativity(text)


def test_equal_conjunctions(both):
    docs, peer, ours = both
    draw = random.Random(3)
    for _ in range(60):
        cnf = []
        for _ in range(draw.choice((1, 2, 2, 3))):
            start = draw.randrange(50_000)
            cnf.append(
                [
                    docs[0][start + k : start + k + draw.choice((1, 2))]
                    for k in range(draw.choice((1, 2)))
                ]
            )
        if any(len({tuple(s) for s in clause}) < len(clause) for clause in cnf):
            continue  # twice the same string counts twice here
        near = draw.choice((5, 50, 100))
        a, b = ours.find_cnf(cnf, max_diff_tokens=near), peer.find_cnf(cnf, max_diff_tokens=near)
        if not b["approx"]:
            assert (a["cnt"], a["approx"]) == (b["cnt"], b["approx"]), cnf


def test_where_the_package_errs(package):
    """Differences on purpose, each tested on both sides."""
    docs, engines = package
    peer, ours = engines(EOS)
    many = 10**6
    last = docs[-1][-1:]  # it ends the corpus, and a document
    exact = ours.ntd(last, max_support=many)["result_by_token_id"]
    assert (
        len(exact) > 1 and sum(r["cont_cnt"] for r in exact.values()) == ours.count(last)["count"]
    )
    assert sum(r["prob"] for r in exact.values()) == pytest.approx(1)
    theirs = peer.ntd(last, max_support=many)["result_by_token_id"]
    assert len(theirs) < len(exact)  # whole stretches between two ends count as ends
    assert ours.prob(last, EOS)["cont_cnt"] == exact[EOS]["cont_cnt"]
    assert peer.prob(last, EOS)["cont_cnt"] < exact[EOS]["cont_cnt"]  # without ends of documents
    assert peer.count([0xFFFF])["count"] == len(docs) and ours.count([0xFFFF])["count"] == 0


def test_equal_where_documents_are_taken_down(package, tmp_path):
    docs, _ = package
    from infini_gram.engine import InfiniGramEngineDiff as Peer

    whole = str(index_with_its_tool(docs, tmp_path))
    (tmp_path / "taken").mkdir()
    taken = str(index_with_its_tool([docs[0]], tmp_path / "taken"))
    peer = Peer(whole, taken, eos_token_id=UNSEEN, vocab_size=65535)
    ours = InfiniGramEngineDiff(whole, taken, eos_token_id=UNSEEN)
    for text in (docs[0][40:80], docs[2][9:60], docs[0][7:20] + docs[4][7:20]):
        assert ours.creativity(text) == peer.creativity(text)
        assert ours.count(text[:2]) == peer.count(text[:2])
    for doc, begin in ((0, 1), (2, len(docs[0]) + 3), (4, len(docs[0]) + len(docs[2]) + 6)):
        for offset in (30, 200):
            span = docs[doc][offset : offset + 12]
            where = {"s": 0, "ptr": 2 * (begin + offset)}
            request = {"docs": [where], "span_ids": span, "needle_len": 12, "max_ctx_len": 9}
            assert ours.get_docs_by_ptrs_2_grouped([request]) == peer.get_docs_by_ptrs_2_grouped(
                [request]
            )
