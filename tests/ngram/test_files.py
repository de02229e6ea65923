"""Building and opening: files, resumption, locks, kills, damage."""

import errno
import fcntl
import gc
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import ROOT
from ngram.corpora import corpora, queries_of, sharded

from lmx import _C, ngram
from lmx.errors import BuildInProgressError, CorruptIndexError, VersionError
from lmx.ngram import BuildOptions
from lmx.ngram.files import HEADER_BYTES

CORPUS = sharded(corpora()[3])


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture
def built(tmp_path):
    path = tmp_path / "a.lmxn"
    ngram.build(CORPUS.docs, path, CORPUS.options(), metadata=[f'{{"n": {i}}}' for i in range(8)])
    return path


@pytest.mark.parametrize("corpus", [*corpora(), CORPUS], ids=lambda c: c.name)
def test_round_trip(corpus, tmp_path):
    report = ngram.build(corpus.docs, tmp_path / "a.lmxn", corpus.options())
    assert (report.num_docs, report.num_tokens) == (len(corpus.docs), sum(map(len, corpus.docs)))
    memory = corpus.index()
    for mode in ("mmap", "ram"):
        index = ngram.open(tmp_path / "a.lmxn", mode=mode, verify_level="full")
        assert index.num_tokens == report.num_tokens and index.eos_id == corpus.eos_id
        queries = queries_of(corpus, 30)
        assert torch.equal(index.find(queries)[1], memory.find(queries)[1])
        assert [index.get_doc(i) for i in range(len(corpus.docs))] == corpus.docs
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["a.lmxn"]


def test_metadata(built):
    index = ngram.open(built)
    assert [json.loads(index.metadata(i))["n"] for i in range(index.num_docs)] == list(range(8))
    with pytest.raises(ValueError, match=r"a document in \[0, 8\), got 8"):
        index.metadata(8)


@pytest.mark.parametrize("workers", [1, 3])
def test_same_bytes_however_it_is_built(built, tmp_path, workers):
    notes = [f'{{"n": {i}}}' for i in range(8)]
    options = CORPUS.options(workers=workers)
    ngram.build(CORPUS.docs, tmp_path / "b.lmxn", options, metadata=notes)
    arrays = [np.array(doc, dtype=np.int32) for doc in CORPUS.docs]
    with ThreadPoolExecutor(2) as pool:
        ngram.build(arrays, tmp_path / "c.lmxn", options, metadata=notes, executor=pool)
    assert contents(built) == contents(tmp_path / "b.lmxn") == contents(tmp_path / "c.lmxn")


def test_shards_fit_the_memory():
    options = CORPUS.options(workers=2, mem_bytes=20_000_000)
    assert 2 * ngram.build_bytes(options.fitting_shard_tokens, 50) <= 0.8 * 20_000_000
    with pytest.raises(ValueError, match="too small"):
        _ = CORPUS.options(mem_bytes=100).fitting_shard_tokens


def test_opening_what_was_not_asked_for(built):
    with pytest.raises(ValueError, match="expected vocab_size 51, got 50"):
        ngram.open(built, vocab_size=51)
    with pytest.raises(ValueError, match="expected eos_id 3, got 49"):
        ngram.open(built, eos_id=3)
    with pytest.raises(ValueError, match="mode"):
        ngram.open(built, mode="disk")
    wide = built.with_name("wide.lmxn")
    ngram.build([[1]], wide, CORPUS.options(token_dtype="u32"))
    with pytest.raises(ValueError, match="expected token_dtype 'u8', got 'u32' in .*wide.lmxn"):
        ngram.open([built, wide])
    with pytest.raises(ValueError, match="at least one"):
        ngram.open([])
    with pytest.raises(CorruptIndexError, match="no finished index"):
        ngram.open(built.parent)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [50, -1, 2**40, 65535])
def test_bad_tokens(bad, tmp_path):
    docs = [[1, 2], [3, bad, 4], [5]]
    options = BuildOptions(vocab_size=50)
    with pytest.raises(
        ValueError, match=rf"document 1, offset 1: expected tokens in \[0, 50\), got {bad}"
    ):
        ngram.build(docs, tmp_path / "a.lmxn", options)
    assert not (tmp_path / "a.lmxn").exists()
    dropping = BuildOptions(vocab_size=50, on_bad="drop_doc")
    report = ngram.build(docs, tmp_path / "a.lmxn", dropping)
    assert report.dropped == [1] and report.num_docs == 2
    assert ngram.open(tmp_path / "a.lmxn").get_doc(1) == [5]


@pytest.mark.parametrize("doc", [[0.5], [[1, 2]], ["a"]])
def test_bad_documents(doc, tmp_path):
    with pytest.raises(ValueError, match="document 0"):
        ngram.build([doc], tmp_path / "a.lmxn", BuildOptions(vocab_size=50))


@pytest.mark.parametrize(
    "options,message",
    [
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": 2**32}, "vocab_size"),
        ({"vocab_size": 5, "eos_id": 5}, "eos_id"),
        ({"vocab_size": 256, "token_dtype": "u8"}, "u8 holds at most 255"),
        ({"vocab_size": 5, "token_dtype": "i8"}, "token_dtype"),
        ({"vocab_size": 5, "shard_tokens": 2**31}, "shard_tokens"),
        ({"vocab_size": 5, "shard_tokens": 1}, "shard_tokens"),
        ({"vocab_size": 5, "workers": 0}, "workers"),
        ({"vocab_size": 5, "on_bad": "skip"}, "on_bad"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        BuildOptions(**options)


def test_token_types():
    sizes = {255: "u8", 256: "u16", 65535: "u16", 65536: "u32"}
    assert {v: BuildOptions(vocab_size=v).dtype for v in sizes} == sizes


def test_a_document_larger_than_a_shard(tmp_path):
    with pytest.raises(ValueError, match="document 1 has 9 tokens; a shard holds at most 8"):
        ngram.build(
            [[1], [1] * 9], tmp_path / "a.lmxn", BuildOptions(vocab_size=2, shard_tokens=10)
        )


def test_queries_outside_the_vocabulary(built):
    index = ngram.open(built)
    for ask in (
        index.count,
        lambda q: index.count([q]),
        index.infgram_ntd,
        index.score,
        index.creativity,
    ):
        with pytest.raises(ValueError, match=r"expected tokens in \[0, 50\), got 50 at 1"):
            ask([3, 50])
    with pytest.raises(ValueError, match="got -1"):
        index.prob([1], -1)
    lenient = ngram.open(built, strict=False)
    assert lenient.count([3, 50]) == 0 == int(lenient.count([[3, -2], [1]])[0])
    assert int(lenient.longest_suffix([[2**40, 1]])[0]) == 1
    for kwargs in ({"min_count": 0}, {"max_len": -1}):
        with pytest.raises(ValueError, match="min_count >= 1, max_len >= 0"):
            index.longest_suffix([[1]], **kwargs)
    with pytest.raises(ValueError, match="max_support"):
        index.ntd([1], max_support=-1)
    for offsets in ([0, 3, 2], [0, 9], [-1, 2]):
        with pytest.raises(ValueError, match="offsets"):
            index.find((torch.tensor([1, 2, 3]), torch.tensor(offsets)))
    with pytest.raises((TypeError, ValueError)):
        index.count(["a"])


def test_a_device_that_is_too_small(built, monkeypatch):
    def too_large(self, device):
        raise torch.OutOfMemoryError

    index = ngram.open(built)
    monkeypatch.setattr(ngram.IndexTensors, "to", too_large)
    size = sum(t.numel() * t.element_size() for t in (*index.tensors.main, index.tensors.docs))
    with pytest.raises(MemoryError, match=f"an index of {size} bytes does not fit on cuda"):
        index.to("cuda")


# ---- folders -------------------------------------------------------------------------------------


def test_what_is_not_ours_stays(tmp_path):
    options = BuildOptions(vocab_size=5)
    target = tmp_path / "a.lmxn"
    target.mkdir()
    (target / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="no n-gram index: it is not replaced"):
        ngram.build([[1]], target, options, overwrite=True)
    assert (target / "letter.txt").read_text() == "mine"
    shutil.rmtree(target)
    work = tmp_path / "a.lmxn.tmp"
    work.mkdir()
    (work / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="in the way and not ours"):
        ngram.build([[1]], target, options)
    assert (work / "letter.txt").read_text() == "mine"
    shutil.rmtree(work)
    target.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="not replaced"):
        ngram.build([[1]], target, options, overwrite=True)


def test_replacing_an_index(built):
    old = ngram.open(built)
    with pytest.raises(ValueError, match="overwrite=True"):
        ngram.build([[1, 1]], built, CORPUS.options())
    ngram.build([[1, 1]], built, CORPUS.options(), overwrite=True)
    assert ngram.open(built).num_docs == 1
    assert old.count(CORPUS.docs[2][:3]) >= 1  # a reader keeps what it has mapped
    assert sorted(p.name for p in built.parent.iterdir()) == ["a.lmxn"]


def test_readers_hold_a_shared_lock(built):
    """Whoever wants to change files in place can ask; who asks while they change is told so."""
    with open(built / "manifest.json") as file:
        mapped, again = ngram.open(built), ngram.open(built)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        del mapped, again
        gc.collect()
        memory = ngram.open(built, mode="ram")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BuildInProgressError, match=r"manifest\.json: another program"):
            ngram.open(built)
        assert memory.num_docs == 8


def test_names_in_a_manifest_lead_nowhere(built):
    """File names are made by the reader; whatever else a manifest says is compared with headers."""
    manifest = json.loads((built / "manifest.json").read_text())
    manifest["shards"][0]["files"]["../../etc/passwd"] = 3
    manifest.pop("crc32c")
    from lmx.ngram.files import write_json

    write_json(built / "manifest.json", manifest)
    ngram.open(built)  # an unknown name is not looked at
    manifest["shards"][0]["num_tokens"] = 10**15
    write_json(built / "manifest.json", manifest)
    with pytest.raises(CorruptIndexError, match="disagree"):
        ngram.open(built)


def test_two_builders(tmp_path):
    started, go = threading.Event(), threading.Event()

    def slow():
        started.set()
        go.wait(10)
        yield [1, 2]

    target = tmp_path / "a.lmxn"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ngram.build, slow(), target, BuildOptions(vocab_size=5))
        started.wait(10)
        with pytest.raises(BuildInProgressError):
            ngram.build([[1]], target, BuildOptions(vocab_size=5))
        go.set()
        first.result()
    assert ngram.open(target).get_doc(0) == [1, 2]


CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from lmx import ngram
from ngram.corpora import corpora, sharded
corpus, left = sharded(corpora()[3]), int(sys.argv[2])
real = os.fsync
def fsync(fd):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(fd)
os.fsync = fsync
ngram.build(corpus.docs, sys.argv[1], corpus.options(), resume=True, overwrite=True)
"""


def run_child(path, kill_at):
    """Build over what is there, and be killed at one of the calls that make things durable."""
    command = [sys.executable, "-c", CHILD, str(path), str(kill_at), str(ROOT / "tests")]
    return subprocess.run(command, capture_output=True).returncode


@pytest.mark.long
@pytest.mark.parametrize("replaces", [False, True])
def test_killed_at_every_sync_point(replaces, tmp_path):
    """The target is what was there or whole, and a resumed build gives the same bytes."""
    assert run_child(tmp_path / "whole.lmxn", 0) == 0
    expected = contents(tmp_path / "whole.lmxn")
    for kill_at in range(1, 60):
        target = tmp_path / "a.lmxn"
        before = None
        if replaces:
            ngram.build([[1, 2]], target, CORPUS.options())
            before = contents(target)
        code = run_child(target, kill_at)
        if target.exists():
            ngram.open(target, verify_level="full")
            assert contents(target) in (before, expected)
        assert before is None or target.exists()
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert run_child(target, 0) == 0
        assert contents(target) == expected
        shutil.rmtree(target)
    else:
        pytest.fail("the build never got through")
    assert kill_at > 10


def test_killed_at_some_sync_points(tmp_path):
    for kill_at in (1, 9):
        target = tmp_path / f"{kill_at}.lmxn"
        assert run_child(target, kill_at) == -signal.SIGKILL and not target.exists()
        ngram.build(CORPUS.docs, target, CORPUS.options(), resume=True)
        ngram.open(target, verify_level="full")


def test_a_full_disk(tmp_path, monkeypatch):
    """The target is not touched, what was sorted stays, and the build can be resumed."""
    builder = importlib.import_module("lmx.ngram.build")
    target, write, left = tmp_path / "a.lmxn", builder.write_file, 9

    def write_until_full(path, header, payload):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, header, payload)

    monkeypatch.setattr(builder, "write_file", write_until_full)
    with pytest.raises(OSError, match="No space left on device"):
        ngram.build(CORPUS.docs, target, CORPUS.options())
    assert not target.exists() and (tmp_path / "a.lmxn.tmp" / "shard.0.json").exists()
    monkeypatch.undo()
    ngram.build(CORPUS.docs, target, CORPUS.options(), resume=True)
    assert ngram.open(target, verify_level="full").num_docs == len(CORPUS.docs)


def test_cancelling_a_sort():
    job, text = _C.ngram.Job(), np.zeros(30_000_000, dtype=np.uint16)
    text[0] = text[-1] = 65535
    ranks = np.empty(len(text), dtype=np.int32)
    timer = threading.Timer(0.05, job.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(_C.ngram.Cancelled):
        _C.ngram.sort_shard(text, 2, 5, ranks, job)
    assert time.monotonic() - started < 5


# ---- damage --------------------------------------------------------------------------------------


def answers(index):
    queries = queries_of(CORPUS, 12)
    scores = index.score(queries)
    found = index.infgram_ntd(queries)
    return [index.find(queries)[1], found.crow, found.tok, found.num, scores.num, scores.den,
            *(torch.tensor(index.get_doc(i)) for i in range(index.num_docs))]  # fmt: skip


def damage(path, draw):
    """Flip a byte or a run of bytes, cut the file, or add to it."""
    raw = bytearray(path.read_bytes())
    kind = draw.randrange(10)
    if kind == 0:
        del raw[draw.randrange(len(raw)) :]
    elif kind == 1:
        raw += bytes(draw.randrange(1, 9))
    else:
        at = draw.randrange(len(raw)) if kind < 8 else draw.randrange(min(200, len(raw)))
        for i in range(at, min(at + draw.choice((1, 1, 4, 64)), len(raw))):
            raw[i] ^= draw.randrange(1, 256)
    path.write_bytes(raw)


def fuzz(built, rounds, level, seed):
    """Every damaged file is refused, or the answers are right."""
    expected, draw = answers(ngram.open(built)), random.Random(seed)
    names = sorted(p.name for p in built.iterdir())
    refused = 0
    for i in range(rounds):
        path = built / names[i % len(names)]
        whole = path.read_bytes()
        damage(path, draw)
        try:
            mode = ("ram", "mmap")[i // len(names) % 2]
            index = ngram.open(built, mode=mode, verify_level=level, strict=False)
            got = answers(index)
        except CorruptIndexError:
            refused += 1
        else:
            if level == "full":
                assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True)), path.name
        path.write_bytes(whole)
    return refused


def test_damage_is_found(built):
    assert fuzz(built, 200, "full", 1) >= 190


def test_damage_that_is_not_looked_for_does_no_harm(built):
    """With the quick check a wrong payload may answer wrongly, but nothing is read outside."""
    fuzz(built, 200, "quick", 2)


@pytest.mark.long
def test_damage_at_length(built):
    assert fuzz(built, 2000, "full", 3) >= 1900
    fuzz(built, 2000, "quick", 4)


def test_other_files(built):
    path = built / "sa.0"
    raw = path.read_bytes()
    path.write_bytes(b"NOTOURS!" + raw[8:])
    with pytest.raises(VersionError, match="sa.0: offset 0"):
        ngram.open(built)
    path.write_bytes(raw[:8] + (1).to_bytes(4, "big") + raw[12:])
    with pytest.raises(VersionError, match="big-endian"):
        ngram.open(built)
    path.write_bytes(raw[: HEADER_BYTES + 5])
    with pytest.raises(CorruptIndexError, match="bytes, got"):
        ngram.open(built)
    shutil.copy(built / "sa.1", path)
    with pytest.raises(CorruptIndexError, match="disagree"):
        ngram.open(built)
    path.unlink()
    with pytest.raises(CorruptIndexError, match="sa.0"):
        ngram.open(built)


# ---- many readers --------------------------------------------------------------------------------


def test_threads_share_an_index(built):
    index, queries = ngram.open(built), queries_of(CORPUS, 50)
    expected = index.count(queries).tolist()

    def ask(_):
        singles = [index.count(q) for q in queries]
        return singles == expected and index.count(queries).tolist() == expected

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(40)))


READER = """
import sys
sys.path.insert(0, sys.argv[2])
from lmx import ngram
from ngram.corpora import corpora, queries_of, sharded
index = ngram.open(sys.argv[1])
print(index.count(queries_of(sharded(corpora()[3]), 30)).tolist())
"""


def test_processes_map_the_same_files(built):
    command = [sys.executable, "-c", READER, str(built), str(ROOT / "tests")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    expected = str(ngram.open(built).count(queries_of(CORPUS, 30)).tolist())
    assert [child.communicate()[0].strip() for child in children] == [expected] * 4


def test_fork_after_open(built):
    index, queries = ngram.open(built), [q for q in queries_of(CORPUS, 30)]
    expected = [index.count(q) for q in queries]
    child = os.fork()
    if child == 0:
        os._exit([index.count(q) for q in queries] != expected)
    assert os.waitpid(child, 0)[1] == 0


INTERRUPTED = """
import sys
import numpy as np
from lmx import ngram
doc = np.zeros(8_000_000, dtype=np.uint16)
started = lambda what, share: print(what, flush=True)
ngram.build([doc], sys.argv[1], ngram.BuildOptions(vocab_size=300), progress=started)
"""


def test_ctrl_c_stops_a_build(tmp_path):
    target = tmp_path / "a.lmxn"
    command = [sys.executable, "-c", INTERRUPTED, str(target)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "sorting"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode != 0 and "KeyboardInterrupt" in said
    assert not target.exists() and (tmp_path / "a.lmxn.tmp").is_dir()
    ngram.build([[1, 2]], target, BuildOptions(vocab_size=300), resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.lmxn"]
