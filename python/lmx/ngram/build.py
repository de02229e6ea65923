"""Building an index: documents become shards, each sorted on its own, published all at once."""

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import _C
from ..errors import BuildInProgressError, CorruptIndexError
from .files import (
    FORMAT_VERSION,
    MANIFEST,
    Header,
    check_sums,
    file_name,
    read_header,
    read_json,
    sync_folder,
    write_file,
    write_json,
)

ORDER = "numeric-sepstop"
MAX_SHARD_TOKENS = 2**31 - 2
_DTYPES: dict[str, Any] = {"u8": np.uint8, "u16": np.uint16, "u32": np.uint32}
_OWNER = "lmx-build.json"  # says that a folder is ours to replace
Tokens = Sequence[int] | Any  # a row of tokens: a list, an array, a tensor
Progress = Callable[[str, float], None]


class Executor(Protocol):
    """What ``build`` asks of an executor: ``concurrent.futures``, or anything like it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Start ``fn(*args)`` and return its future."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an index is built.

    ``vocab_size``: tokens are below it. ``eos_id``: the token under which "the document ends here"
    is reported. ``token_dtype``: "u8", "u16", "u32", or "auto" for the smallest that holds the
    vocabulary and the separator. ``shard_tokens``: at most so many tokens a shard, lowered until
    ``workers`` sorts fit into 80 % of ``mem_bytes`` (0: no limit). ``on_bad``: what a token outside
    the vocabulary does: "error", or "drop_doc". ``tokenizer``: a free text that is kept.
    """

    vocab_size: int
    eos_id: int | None = None
    token_dtype: str = "auto"
    shard_tokens: int = 2**30
    mem_bytes: int = 0
    workers: int = 1
    on_bad: str = "error"
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.vocab_size < 2**32:
            raise ValueError(f"build: expected vocab_size in [1, 2^32), got {self.vocab_size}")
        if self.eos_id is not None and not 0 <= self.eos_id < self.vocab_size:
            raise ValueError(f"build: expected eos_id in [0, {self.vocab_size}), got {self.eos_id}")
        if self.token_dtype not in ("auto", *_DTYPES):
            raise ValueError(
                f"build: expected token_dtype auto, u8, u16 or u32, got {self.token_dtype!r}"
            )
        if self.vocab_size > self.sep:
            raise ValueError(
                f"build: {self.dtype} holds at most {self.sep} tokens, "
                f"got vocab_size {self.vocab_size}"
            )
        if not 2 <= self.shard_tokens <= MAX_SHARD_TOKENS:
            raise ValueError(
                f"build: expected shard_tokens in [2, {MAX_SHARD_TOKENS}], got {self.shard_tokens}"
            )
        if self.workers < 1 or self.mem_bytes < 0:
            raise ValueError("build: expected workers >= 1 and mem_bytes >= 0")
        if self.on_bad not in ("error", "drop_doc"):
            raise ValueError(f"build: expected on_bad error or drop_doc, got {self.on_bad!r}")

    @property
    def dtype(self) -> str:
        """The token type, "auto" resolved."""
        if self.token_dtype != "auto":
            return self.token_dtype
        fits = (name for name, t in _DTYPES.items() if self.vocab_size <= np.iinfo(t).max)
        return next(fits)

    @property
    def numpy_dtype(self) -> Any:
        """The token type of numpy."""
        return _DTYPES[self.dtype]

    @property
    def sep(self) -> int:
        """The separator."""
        return int(np.iinfo(self.numpy_dtype).max)

    @property
    def fitting_shard_tokens(self) -> int:
        """``shard_tokens``, lowered to the memory."""
        if not self.mem_bytes:
            return self.shard_tokens
        room = int(0.8 * self.mem_bytes) // self.workers
        per_token = build_bytes(1 << 20, 0) / (1 << 20)
        fitting = int((room - 8 * self.vocab_size) / per_token)
        if fitting < 2:
            raise ValueError(f"build: mem_bytes {self.mem_bytes} is too small for one shard")
        return min(self.shard_tokens, fitting)


def build_bytes(num_tokens: int, vocab_size: int) -> int:
    """Return the most memory that sorting a shard takes, in bytes.

    Symbols and array 4 bytes each, the text up to 4, and at worst half as many buckets as symbols
    one level down.
    """
    return 14 * num_tokens + 8 * vocab_size


@dataclass
class BuildReport:
    """What was built."""

    num_docs: int = 0
    num_tokens: int = 0
    num_shards: int = 0
    dropped: list[int] = field(default_factory=list)  # numbers of documents
    seconds: float = 0.0


@dataclass(frozen=True)
class _Shard:
    """A task: the documents of one shard, laid out."""

    number: int
    text: "np.ndarray[Any, Any]"
    docs: "np.ndarray[Any, Any]"
    meta: list[str] | None
    digest: str


def build(
    documents: Iterable[Tokens],
    path: str | os.PathLike[str],
    options: BuildOptions,
    *,
    metadata: Iterable[str] | None = None,
    executor: Executor | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Build an index of documents.

    Nothing is seen under ``path`` before the whole index stands: work is done in a folder beside
    it, which is renamed at the end. Ctrl-C stops within a moment and leaves that folder for
    ``resume``.

    Args:
        documents: rows of tokens, in order.
        path: the folder to make, ``NAME.lmxn``.
        options: see there.
        metadata: one JSON text per document, optional.
        executor: where shards are sorted, an object with ``submit(fn, *args)``; default: threads.
            Others than threads take the text by value and write to the same file system.
        resume: use shards that an interrupted build of the same documents has finished.
        overwrite: replace an index that stands there. What is no index of ours is never replaced.
        progress: called with a word and a share in [0, 1].

    Raises:
        ValueError: a token is outside the vocabulary (named with document and offset), an option is
            wrong, or ``path`` holds something else.
        BuildInProgressError: another builder is at work on the same path.
    """
    target = Path(path)
    work = target.with_name(target.name + ".tmp")
    _check_target(target, overwrite)
    started = time.monotonic()
    with _Lock(target.with_name(target.name + ".lock")):
        _prepare(work, options, resume)
        report = BuildReport()
        plan = _plan(documents, metadata, options, report)
        fragments = _run(plan, work, options, executor, progress)
        report.num_shards = len(fragments)
        _publish(work, target, options, fragments, report, overwrite)
        report.seconds = time.monotonic() - started
        if progress:
            progress("done", 1.0)
    return report


# ---- the folder ----------------------------------------------------------------------------------


def is_index(path: Path) -> bool:
    """Whether a folder is one that ``build`` has made."""
    try:
        return read_json(path / MANIFEST).get("format") == "lmxn"
    except Exception:  # whatever it is, it is not ours
        return False


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.name or target.name in (".", ".."):
        raise ValueError(f"build: {target}: expected the name of a folder to make")
    if target.is_symlink() or (target.exists() and not is_index(target)):
        raise ValueError(f"build: {target} exists and is no n-gram index: it is not replaced")
    if target.exists() and not overwrite:
        raise ValueError(f"build: {target} exists; overwrite=True replaces it")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"build: the folder of {target} does not exist")


class _Lock:
    """An exclusive lock on a file; the system drops it with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise BuildInProgressError(f"{self._path}: another build is at work") from None

    def __exit__(self, *fault: object) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _parameters(options: BuildOptions) -> dict[str, Any]:
    kept = asdict(options) | {"token_dtype": options.dtype}
    for name in ("mem_bytes", "workers"):  # change nothing in the files
        kept.pop(name)
    return kept | {"shard_tokens": options.fitting_shard_tokens, "version": FORMAT_VERSION}


def _prepare(work: Path, options: BuildOptions, resume: bool) -> None:
    """Make the folder of the build, or take over that of an interrupted one."""
    owner = work / _OWNER
    if work.exists() or work.is_symlink():
        if work.is_symlink() or not _is_ours(work):
            raise ValueError(f"build: {work} is in the way and not ours")
        if resume and owner.is_file() and _is_same(owner, options):
            return
        shutil.rmtree(work)
    work.mkdir()
    write_json(owner, {"parameters": _parameters(options)})


def _is_ours(work: Path) -> bool:
    """Whether a build has made this folder: it may have been killed before it could say so."""
    if not work.is_dir():
        return False
    begun = {path.name for path in work.iterdir()} <= {_OWNER + ".new"}
    return begun or (work / _OWNER).is_file() or is_index(work)


def _is_same(owner: Path, options: BuildOptions) -> bool:
    try:
        return read_json(owner) == {"parameters": _parameters(options)}
    except CorruptIndexError:
        return False


# ---- from documents to shards --------------------------------------------------------------------


def _row(doc: Tokens, number: int, options: BuildOptions) -> "np.ndarray[Any, Any]":
    """A document's tokens in the stored type; ValueError for the first that cannot be."""
    row = np.asarray(doc)
    if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
        raise ValueError(f"build: document {number}: expected a row of integers, got {row.dtype}")
    bad = np.flatnonzero((row < 0) | (row >= options.vocab_size))
    if bad.size:
        at = int(bad[0])
        raise ValueError(
            f"build: document {number}, offset {at}: expected tokens in "
            f"[0, {options.vocab_size}), got {row[at]}"
        )
    return row.astype(options.numpy_dtype)


def _plan(
    documents: Iterable[Tokens],
    metadata: Iterable[str] | None,
    options: BuildOptions,
    report: BuildReport,
) -> Iterator[_Shard]:
    """Lay documents out in shards, cut between documents."""
    limit = options.fitting_shard_tokens
    notes = iter(metadata) if metadata is not None else None
    rows: list[np.ndarray[Any, Any]] = []
    texts: list[str] = []
    size, number = 1, 0
    for i, doc in enumerate(documents):
        note = next(notes, None) if notes is not None else ""
        if note is None:
            raise ValueError(f"build: expected metadata for document {i}, got none")
        try:
            row = _row(doc, i, options)
        except ValueError:
            if options.on_bad == "error":
                raise
            report.dropped.append(i)
            continue
        if len(row) + 2 > limit:
            raise ValueError(
                f"build: document {i} has {len(row)} tokens; a shard holds at most {limit - 2}"
            )
        if size + len(row) + 1 > limit:
            yield _shard(number, rows, texts if notes is not None else None, options)
            rows, texts, size, number = [], [], 1, number + 1
        rows.append(row)
        texts.append(note)
        size += len(row) + 1
        report.num_docs += 1
        report.num_tokens += len(row)
    yield _shard(number, rows, texts if notes is not None else None, options)


def _shard(
    number: int,
    rows: "list[np.ndarray[Any, Any]]",
    meta: list[str] | None,
    options: BuildOptions,
) -> _Shard:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    docs = np.concatenate([[0], np.cumsum(lengths + 1)]).astype(np.int64)
    text = np.full(docs[-1] + 1, options.sep, dtype=options.numpy_dtype)
    for begin, row in zip(docs, rows, strict=False):
        text[begin + 1 : begin + 1 + len(row)] = row
    digest = hashlib.sha256(text.data)
    digest.update("\0".join(meta or []).encode())
    return _Shard(number, text, docs, meta, digest.hexdigest())


# ---- sorting -------------------------------------------------------------------------------------


def _run(
    plan: Iterator[_Shard],
    work: Path,
    options: BuildOptions,
    executor: Executor | None,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Sort all shards, ``workers`` at a time, and return their parts of the manifest in order."""
    job = _C.ngram.Job()
    own = ThreadPoolExecutor(options.workers) if executor is None else None
    pending: list[tuple[Future[dict[str, Any]], int]] = []
    fragments: list[dict[str, Any]] = []
    tokens = 0
    try:
        for shard in plan:
            tokens += len(shard.text)
            arguments = (shard, str(work), options.vocab_size, options.dtype)
            if own:
                future = own.submit(sort_shard, *arguments, job)
            else:
                assert executor is not None
                future = executor.submit(sort_shard, *arguments)
            pending.append((future, len(shard.text)))
            while len(pending) > options.workers:
                fragments.append(_await(pending.pop(0)[0], job, tokens, progress))
        while pending:
            fragments.append(_await(pending.pop(0)[0], job, tokens, progress))
    finally:
        job.cancel()
        if own:
            own.shutdown(wait=True, cancel_futures=True)
    return fragments


def _await(
    future: "Future[dict[str, Any]]",
    job: "_C.ngram.Job",
    tokens: int,
    progress: Progress | None,
) -> dict[str, Any]:
    """Wait in slices, so that Ctrl-C is noticed."""
    if not isinstance(future, Future):
        return future.result()
    while True:
        done, _ = wait_for([future], timeout=0.1)
        if progress:
            progress("sorting", min(0.99, job.steps / (6.5 * tokens)))
        if done:
            return future.result()


def sort_shard(
    shard: _Shard, folder: str, vocab_size: int, dtype: str, job: "_C.ngram.Job | None" = None
) -> dict[str, Any]:
    """Sort one shard, write its files, and return its part of the manifest."""
    work = Path(folder)
    fragment_path = work / f"shard.{shard.number}.json"
    if fragment_path.exists():
        fragment = read_json(fragment_path)
        if fragment.get("digest") == shard.digest and _is_whole(work, shard.number, fragment):
            return fragment
    text = shard.text
    all_ranks = np.empty(len(text), dtype=np.int32)
    _C.ngram.sort_shard(text, text.itemsize, vocab_size, all_ranks, job or _C.ngram.Job())
    num_suffixes = len(text) - len(shard.docs)
    sa = all_ranks[:num_suffixes].view(np.uint32)
    lut = np.empty(vocab_size + 2, dtype=np.int64)
    skey = np.empty(-(-num_suffixes // 64), dtype=np.uint64)
    _C.ngram.fill_tables(text, text.itemsize, vocab_size, sa, lut, skey)
    files = {"text": text, "sa": sa, "lut": lut, "skey": skey, "docs": shard.docs}
    if shard.meta is not None:
        encoded = [note.encode() for note in shard.meta]
        files["meta"] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        ends = np.cumsum([0, *map(len, encoded)])
        files["metaoff"] = ends.astype(np.int64)
    name = uuid.UUID(hex=hashlib.sha256(f"{shard.digest}{shard.number}".encode()).hexdigest()[:32])
    sep = int(np.iinfo(_DTYPES[dtype]).max)
    sizes = {}
    for kind, payload in files.items():
        header = Header(
            kind, payload.itemsize, payload.size, name.bytes, shard.number, vocab_size, sep
        )
        write_file(work / file_name(kind, shard.number), header, payload)
        sizes[kind] = header.file_bytes
    fragment = {
        "digest": shard.digest,
        "uuid": name.hex,
        "num_tokens": len(text),
        "num_suffixes": num_suffixes,
        "num_docs": len(shard.docs) - 1,
        "files": sizes,
    }
    write_json(fragment_path, fragment)
    return fragment


def _is_whole(work: Path, number: int, fragment: dict[str, Any]) -> bool:
    """Whether an earlier build's files of this shard are there, byte for byte."""
    try:
        for kind, size in fragment["files"].items():
            path = work / file_name(kind, number)
            header = read_header(path)
            check_sums(path, header)
            if header.file_bytes != size or header.kind != kind:
                return False
    except Exception:  # then it is sorted again
        return False
    return True


def _publish(
    work: Path,
    target: Path,
    options: BuildOptions,
    fragments: list[dict[str, Any]],
    report: BuildReport,
    overwrite: bool,
) -> None:
    """Write the manifest last and give the folder its name."""
    manifest = {
        "format": "lmxn",
        "version": FORMAT_VERSION,
        "order": ORDER,
        "token_dtype": options.dtype,
        "vocab_size": options.vocab_size,
        "eos_id": options.eos_id,
        "tokenizer": options.tokenizer,
        "parameters": _parameters(options),
        "num_docs": report.num_docs,
        "num_tokens": report.num_tokens,
        "shards": fragments,
    }
    write_json(work / MANIFEST, manifest)
    wanted = {file_name(kind, i) for i, f in enumerate(fragments) for kind in f["files"]}
    for left in work.iterdir():  # fragments, and what another plan of shards has left
        if left.name not in wanted and left.name != MANIFEST:
            left.unlink()
    _check_target(target, overwrite)  # again: it may have changed meanwhile
    if not target.exists():
        work.rename(target)
        sync_folder(target.absolute().parent)
        return
    old = work
    if not _C.ngram.exchange_names(str(work), str(target)):  # then for a moment there is no target
        old = target.with_name(f"{target.name}.old-{uuid.uuid4().hex[:8]}")
        target.rename(old)
        work.rename(target)
    sync_folder(target.absolute().parent)
    shutil.rmtree(old)
