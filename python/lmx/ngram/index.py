"""An opened index and its queries."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _C
from ..errors import CorruptIndexError
from . import ops
from .cnf import Clauses, count_cnf, documents_of_cnf
from .files import HEADER_BYTES, file_name
from .loading import Part, load, read_part, verify
from .tensors import IndexTensors, ragged

CORRUPT_BIT = 1 << 8  # csrc/common/status.h
Query = Sequence[int] | Tensor
Queries = Query | Sequence[Sequence[int]] | Sequence[Tensor] | tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Prob:
    """An estimate ``num / den`` of a token behind a context; ``prob`` -1 where den is 0."""

    num: int
    den: int
    suffix_len: int

    @property
    def prob(self) -> float:
        """The probability."""
        return self.num / self.den if self.den > 0 else -1.0


@dataclass(frozen=True)
class Distribution:
    """Next tokens of Q contexts, as compressed rows.

    ``crow`` int64 ``[Q + 1]``, ``tok`` and ``num`` int64 (ascending tokens, counts above 0; the end
    of documents under ``eos_id`` or -1), ``den`` int64 ``[Q]``, ``approx`` bool ``[Q]``,
    ``suffix_len`` int32 ``[Q]``.
    """

    crow: Tensor
    tok: Tensor
    num: Tensor
    den: Tensor
    approx: Tensor
    suffix_len: Tensor

    def counts(self, row: int = 0) -> dict[int, int]:
        """Return the counts of one row."""
        begin, end = self.crow[row : row + 2].tolist()
        tokens, counts = (t[begin:end].tolist() for t in (self.tok, self.num))
        return dict(zip(tokens, counts, strict=True))

    def probs(self, row: int = 0) -> dict[int, float]:
        """Return the probabilities of one row."""
        total = int(self.den[row])
        return {token: count / total for token, count in self.counts(row).items()}


@dataclass(frozen=True)
class Scores:
    """The infinity-gram estimate of each token: tensors of one entry per token."""

    suffix_len: Tensor
    den: Tensor
    num: Tensor
    distinct: Tensor

    @property
    def prob(self) -> Tensor:
        """Float64; -1 where the context has no count at all."""
        ratio = self.num.double() / self.den.clamp(min=1)
        return torch.where(self.den > 0, ratio, -1.0)

    @property
    def sparse(self) -> Tensor:
        """Whether exactly one token follows the suffix."""
        return self.distinct == 1


@dataclass(frozen=True)
class Snippet:
    """Part of a document: its tokens, and where the string begins in them."""

    doc: int
    doc_len: int
    tokens: list[int]
    offset: int
    metadata: str


def is_single(queries: Queries) -> bool:
    """Whether this is one row of tokens; an empty list is one."""
    if isinstance(queries, tuple) and len(queries) == 2 and isinstance(queries[0], Tensor):
        return False
    if isinstance(queries, Tensor):
        return queries.dim() == 1
    return len(queries) == 0 or not isinstance(queries[0], Sequence | Tensor)


class Index:
    """An index on one device. Any number of threads and forked processes may query it."""

    def __init__(
        self, tensors: IndexTensors, parts: Sequence[Part] = (), *, strict: bool = True
    ) -> None:
        """Take the tensors.

        Args:
            tensors: where the index lies.
            parts: the folders it was read from, for metadata.
            strict: refuse queries with tokens outside the vocabulary (ValueError); else such a
                token occurs nowhere.
        """
        self.tensors = tensors
        self.strict = strict
        self._parts = parts
        self._subtracts = bool((tensors.shards[:, 7] < 0).any())

    # ---- facts ----

    @property
    def vocab_size(self) -> int:
        """Tokens are below it."""
        return self.tensors.vocab_size

    @property
    def eos_id(self) -> int | None:
        """The token under which ends of documents are reported."""
        return None if self.tensors.eos_id < 0 else self.tensors.eos_id

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.tensors.text.device

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """What the files say of themselves."""
        return [part.manifest for part in self._parts]

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all documents, those of subtracted ones taken off."""
        return int((self.tensors.shards[:, 3] * self.tensors.shards[:, 7]).sum())

    @cached_property
    def num_docs(self) -> int:
        """Documents, empty ones included."""
        return int((self.tensors.shards[:, 6] * self.tensors.shards[:, 7]).sum())

    def to(self, device: torch.device | str) -> "Index":
        """A copy on another device; where it does not fit, the error says how much it needs."""
        tensors = (*self.tensors.main, self.tensors.docs)
        needed = sum(t.numel() * t.element_size() for t in tensors)
        try:
            moved = self.tensors.to(device)
        except torch.OutOfMemoryError as fault:
            text = f"an index of {needed} bytes does not fit on {device}; keep it on the CPU"
            raise MemoryError(f"lmx.ngram: {text}") from fault
        return Index(moved, self._parts, strict=self.strict)

    @cached_property
    def _searcher(self) -> "_C.ngram.Searcher | None":
        t = self.tensors
        if t.text.device.type != "cpu":
            return None
        return _C.ngram.Searcher(
            [x.numpy() for x in t.main],
            t.text.element_size(),
            t.vocab_size,
            t.eos_id,
            t.ptr_bytes,
        )

    # ---- queries as tensors ----

    def rows(self, queries: Queries) -> tuple[Tensor, Tensor]:
        """Ragged rows on the index's device, checked where the index is strict."""
        if isinstance(queries, tuple) and len(queries) == 2 and isinstance(queries[0], Tensor):
            qtok, qoff = queries
            assert isinstance(qoff, Tensor)
            if qoff.numel() < 1 or bool((qoff.diff() < 0).any()):
                raise ValueError("lmx.ngram: expected offsets that do not decrease")
            if int(qoff[0]) < 0 or int(qoff[-1]) > qtok.numel():
                raise ValueError(f"lmx.ngram: expected offsets up to {qtok.numel()}")
        elif isinstance(queries, Tensor):
            table = queries if queries.dim() == 2 else queries[None]
            qtok = table.reshape(-1).long()
            qoff = torch.arange(len(table) + 1, device=table.device) * table.shape[1]
        else:
            listed: Any = [queries] if is_single(queries) else queries
            qtok, qoff = ragged([r.tolist() if isinstance(r, Tensor) else r for r in listed])
        qtok, qoff = qtok.to(self.device).contiguous(), qoff.to(self.device).contiguous()
        if self.strict and qtok.numel() and not self._holds(*qtok.aminmax()):
            bad = ((qtok < 0) | (qtok >= self.vocab_size)).nonzero()
            at = int(bad[0])
            expected = f"expected tokens in [0, {self.vocab_size})"
            raise ValueError(f"lmx.ngram: {expected}, got {int(qtok[at])} at {at}")
        return qtok, qoff

    def _holds(self, least: Tensor, most: Tensor) -> bool:
        return 0 <= int(least) and int(most) < self.vocab_size

    def _status(self, rows: int) -> Tensor:
        return torch.zeros(rows, dtype=torch.int32, device=self.device)

    def _check(self, status: Tensor) -> None:
        if bool((status & CORRUPT_BIT).any()):
            raise self._corrupt()

    def _corrupt(self) -> CorruptIndexError:
        names = ", ".join(str(part.path) for part in self._parts) or "the index"
        return CorruptIndexError(
            f"{names}: a pointer or a count that cannot be: the files are corrupt"
        )

    # ---- counts ----

    def find(self, queries: Queries, hint: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ranges ``[Q, S, 2]`` and counts ``[Q]`` of strings."""
        qtok, qoff = self.rows(queries)
        status = self._status(len(qoff) - 1)
        found = ops.find(self.tensors, qtok, qoff, hint, status=status)
        self._check(status)
        if self._subtracts and bool((found[1] < 0).any()):
            raise self._corrupt()
        return found

    def count(self, queries: Queries) -> Any:
        """How often a string occurs: an int, or int64 ``[Q]`` for several."""
        if self._searcher is not None and is_single(queries):
            query = queries.tolist() if isinstance(queries, Tensor) else queries
            count = self._searcher.count(query, self.strict)
            if count is None or count < 0:
                raise self._corrupt()
            return count
        counts = self.find(queries)[1]
        return int(counts[0]) if is_single(queries) else counts

    def longest_suffix(
        self,
        contexts: Queries,
        *,
        max_len: int = 0,
        min_count: int = 1,
        prev_len: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Length, ranges and count of the longest suffix that occurs."""
        if min_count < 1 or max_len < 0:
            raise ValueError(
                f"lmx.ngram: expected min_count >= 1, max_len >= 0, got {min_count}, {max_len}"
            )
        qtok, qoff = self.rows(contexts)
        status = self._status(len(qoff) - 1)
        found = ops.longest_suffix(
            self.tensors,
            qtok,
            qoff,
            max_len=max_len,
            min_count=min_count,
            prev_len=prev_len,
            status=status,
        )
        self._check(status)
        return found

    # ---- next tokens ----

    def prob(self, context: Query, token: int) -> Prob:
        """The n-gram estimate of a token behind the whole context."""
        return self._prob(context, token, None)

    def infgram_prob(
        self, context: Query, token: int, *, max_len: int = 0, min_count: int = 1
    ) -> Prob:
        """The infinity-gram estimate: behind the longest suffix of the context that occurs."""
        if min_count < 1 or max_len < 0:
            raise ValueError(
                f"lmx.ngram: expected min_count >= 1, max_len >= 0, got {min_count}, {max_len}"
            )
        return self._prob(context, token, (max_len, min_count))

    def _prob(self, context: Query, token: int, suffix: tuple[int, int] | None) -> Prob:
        if self.strict and not 0 <= token < self.vocab_size:
            raise ValueError(f"lmx.ngram: expected token in [0, {self.vocab_size}), got {token}")
        query = context.tolist() if isinstance(context, Tensor) else context
        searcher = self._searcher
        if searcher is None:
            return self._prob_on_device(query, token, suffix)
        if suffix is None:
            found = searcher.find(query, self.strict)
        else:
            found = searcher.longest_suffix(query, *suffix, -1, self.strict)
        num = None if found is None else searcher.next(found, token)
        if found is None or num is None or min(num, found.count) < 0:
            raise self._corrupt()
        return Prob(num, found.count, found.length)

    def _prob_on_device(
        self, query: Sequence[int], token: int, suffix: tuple[int, int] | None
    ) -> Prob:
        rng, _, length = self._contexts([query], suffix)
        status = self._status(1)
        tok = torch.tensor([token], device=self.device)
        num, den = ops.next_prob(self.tensors, rng, length, tok, status=status)
        self._check(status)
        return Prob(int(num), int(den), int(length))

    def _contexts(
        self, contexts: Queries, suffix: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ranges, counts and lengths of whole contexts, or of their longest suffixes."""
        qtok, qoff = rows = self.rows(contexts)
        if suffix is not None:
            length, rng, cnt = self.longest_suffix(rows, max_len=suffix[0], min_count=suffix[1])
            return rng, cnt, length
        rng, cnt = self.find(rows)
        return rng, cnt, qoff.diff().int()

    def ntd(self, contexts: Queries, *, max_support: int = 0) -> Distribution:
        """The distribution of the token behind each whole context."""
        return self._ntd(contexts, None, max_support)

    def infgram_ntd(
        self, contexts: Queries, *, max_len: int = 0, min_count: int = 1, max_support: int = 0
    ) -> Distribution:
        """The infinity-gram distribution: behind the longest suffix of each context that occurs."""
        return self._ntd(contexts, (max_len, min_count), max_support)

    def _ntd(
        self, contexts: Queries, suffix: tuple[int, int] | None, max_support: int
    ) -> Distribution:
        if max_support < 0:
            raise ValueError(f"lmx.ngram: expected max_support >= 0, got {max_support}")
        rng, _, length = self._contexts(contexts, suffix)
        return self.distribution(rng, length, max_support=max_support)

    def distribution(self, rng: Tensor, length: Tensor, *, max_support: int = 0) -> Distribution:
        """The distributions behind strings of which the ranges and lengths are known."""
        rows = len(length)
        ranks = (rng[..., 1] - rng[..., 0]).sum(-1).clamp(min=0)
        # Distinct tokens grow as a power of the text (Heaps); a wrong guess costs a second run.
        guess = (16 + 2 * ranks.double() ** 0.7).minimum(ranks).clamp(max=self.vocab_size + 1)
        capacity = int(guess.sum().ceil())
        while True:
            status = self._status(rows)
            crow, tok, num, den, approx = ops.ntd(
                self.tensors, rng, length, capacity, max_support=max_support, status=status
            )
            self._check(status)
            needed = int(crow[-1])
            if needed <= capacity:
                return Distribution(crow, tok[:needed], num[:needed], den, approx, length)
            capacity = needed

    def score(self, texts: Queries, *, max_len: int = 0, min_count: int = 1) -> Scores:
        """The infinity-gram estimate of every token of every text, given those before it."""
        if min_count < 1 or max_len < 0:
            raise ValueError(
                f"lmx.ngram: expected min_count >= 1, max_len >= 0, got {min_count}, {max_len}"
            )
        qtok, qoff = self.rows(texts)
        status = self._status(len(qoff) - 1)
        scores = ops.score(
            self.tensors, qtok, qoff, max_len=max_len, min_count=min_count, status=status
        )
        self._check(status)
        return Scores(*scores)

    # ---- documents ----

    def _whole(self, what: str) -> None:
        if self._subtracts:
            raise ValueError(f"lmx.ngram: {what} of an index with subtracted ones is not defined")

    def creativity(self, text: Query) -> list[int]:
        """For every start l the largest r such that ``text[l:r]`` occurs."""
        self._whole("creativity")
        qtok, qoff = self.rows(text)
        status = self._status(1)
        lengths = ops.longest_prefix(self.tensors, qtok, qoff, status=status)
        self._check(status)
        return [start + n for start, n in enumerate(lengths.tolist())]

    def locate(self, queries: Queries, k: int, *, seed: int = 0) -> Tensor:
        """Occurrences, int64 ``[Q, k, 4]``: shard, position, document, offset in it; -1: none."""
        self._whole("occurrences")
        rng, _ = self.find(queries)
        status = self._status(len(rng))
        found = ops.locate(self.tensors, rng, k, seed=seed, status=status)
        self._check(status)
        return found

    def sample_docs(
        self, query: Query, k: int = 1, *, seed: int = 0, context: int = 500
    ) -> list[Snippet]:
        """Up to k occurrences with ``context`` tokens of their document on either side."""
        found = self.locate([list(query)], k, seed=seed)[0].tolist()
        size = len(query)
        return [
            self._snippet(shard, position, doc, offset, size, context)
            for shard, position, doc, offset in found
            if shard >= 0
        ]

    def get_doc(self, number: int) -> list[int]:
        """The tokens of a document."""
        shard, local = self._shard_of(number)
        first, end = self._bounds(shard, local)
        return self._tokens(shard, first, end)

    def metadata(self, number: int) -> str:
        """The metadata of a document, "" if it has none."""
        shard, local = self._shard_of(number)
        for part in self._parts:
            if shard < len(part.headers):
                return _metadata(part, shard, local)
            shard -= len(part.headers)
        return ""

    def count_cnf(
        self,
        clauses: Clauses,
        *,
        max_clause_freq: int = 50_000,
        max_diff_tokens: int = 100,
        seed: int = 0,
    ) -> tuple[int, bool]:
        """Occurrences near each other of one string of every clause, and whether it is an estimate.

        A clause is a list of strings, any of which will do. Clauses with more than
        ``max_clause_freq`` occurrences are sampled. See ``lmx.ngram.cnf``.
        """
        self._whole("conjunctions")
        found = count_cnf(self, clauses, max_clause_freq, max_diff_tokens, seed)
        return found.count, found.approx

    def docs(self, clauses: Clauses) -> list[int]:
        """The numbers of all documents that hold a string of every clause, ascending."""
        self._whole("documents")
        return documents_of_cnf(self, clauses)

    def positions(self, query: Sequence[int]) -> list[Tensor]:
        """All positions of a string in each shard's text, ascending, int64."""
        rng = self.find([list(query)])[0][0].tolist()
        found = []
        for shard, (lo, hi) in enumerate(rng):
            found.append(self._pointers(shard, lo, hi).sort().values)
        return found

    def _pointers(self, shard: int, lo: int, hi: int) -> Tensor:
        """The positions of these ranks, bounds checked."""
        row, t = self.tensors.shards[shard].tolist(), self.tensors
        if t.ptr_bytes:
            raw = t.sa[row[2] + lo * t.ptr_bytes : row[2] + hi * t.ptr_bytes]
            scale = 256 ** torch.arange(t.ptr_bytes, device=self.device)
            found = (raw.reshape(-1, t.ptr_bytes).long() * scale).sum(-1) // t.text.element_size()
        else:
            found = t.sa[row[2] + lo : row[2] + hi].long() & 0xFFFFFFFF
        if bool(((found < 0) | (found >= row[1])).any()):
            raise self._corrupt()
        return found

    def documents_at(self, shard: int, positions: Tensor) -> Tensor:
        """The numbers of the documents that hold these positions of a shard."""
        row = self.tensors.shards[shard].tolist()
        docs = self.tensors.docs[row[5] : row[5] + row[6] + 1]
        before = int(self.tensors.shards[:shard, 6].sum())
        return torch.searchsorted(docs, positions, right=True) - 1 + before

    def _shard_of(self, number: int) -> tuple[int, int]:
        self._whole("documents")
        left = number
        for shard, docs in enumerate(self.tensors.shards[:, 6].tolist()):
            if 0 <= left < docs:
                return shard, left
            left -= docs
        raise ValueError(f"lmx.ngram: expected a document in [0, {self.num_docs}), got {number}")

    def _bounds(self, shard: int, local: int) -> tuple[int, int]:
        at = int(self.tensors.shards[shard, 5]) + local
        begin, end = self.tensors.docs[at : at + 2].tolist()
        return begin + 1, end

    def _tokens(self, shard: int, begin: int, end: int) -> list[int]:
        at = int(self.tensors.shards[shard, 0])
        text = self.tensors.text[at + begin : at + end]
        return (text.long() & (256 ** text.element_size() - 1)).tolist()

    def _snippet(
        self, shard: int, position: int, doc: int, offset: int, size: int, context: int
    ) -> Snippet:
        first, end = self._bounds(shard, doc - int(self.tensors.shards[:shard, 6].sum()))
        begin = max(first, position - context)
        tokens = self._tokens(shard, begin, min(end, position + size + context))
        return Snippet(doc, end - first, tokens, position - begin, self.metadata(doc))


def _metadata(part: Part, shard: int, local: int) -> str:
    headers = part.headers[shard]
    if "meta" not in headers:
        return ""
    with open(part.path / file_name("metaoff", shard), "rb") as file:
        file.seek(HEADER_BYTES + 8 * local)
        begin, end = (int.from_bytes(file.read(8), "little") for _ in range(2))
    if not 0 <= begin <= end <= headers["meta"].count:
        raise CorruptIndexError(f"{part.path / file_name('metaoff', shard)}: wrong offsets")
    with open(part.path / file_name("meta", shard), "rb") as file:
        file.seek(HEADER_BYTES + begin)
        return file.read(end - begin).decode(errors="replace")


Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def _paths(paths: Paths) -> list[str | os.PathLike[str]]:
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)


def open_index(
    paths: Paths,
    *,
    subtract: Paths = (),
    mode: str = "mmap",
    verify_level: str = "quick",
    strict: bool = True,
    vocab_size: int | None = None,
    eos_id: int | None = None,
) -> Index:
    """Open one index, or several whose counts are added.

    Args:
        paths: folders that ``build`` has made, of the same vocabulary.
        subtract: indexes over some of their documents, whose counts are taken off.
        mode: "mmap" reads from the files, "ram" from memory, "cuda" from a GPU's. A mapped file
            that another process truncates ends this one with SIGBUS; "ram" is immune.
        verify_level: "quick" compares headers, sizes and manifests, and samples the order; "full"
            reads everything.
        strict: see ``Index``.
        vocab_size, eos_id: what the caller expects.

    Raises:
        CorruptIndexError, VersionError: a file is not what it should be; the message names it.
        BuildInProgressError: another program holds an index's manifest exclusively; a mapped index
            holds it shared.
        ValueError: the indexes, or the caller's expectations, do not match.
    """
    if mode not in ("mmap", "ram", "cuda") or verify_level not in ("quick", "full"):
        raise ValueError(
            f"open: expected mode mmap, ram or cuda and verify_level quick or full, "
            f"got {mode!r}, {verify_level!r}"
        )
    parts = [read_part(Path(p), 1) for p in _paths(paths)]
    parts += [read_part(Path(p), -1) for p in _paths(subtract)]
    if not parts or parts[0].sign < 0:
        raise ValueError("open: expected at least one index")
    first = parts[0].manifest
    for part in parts[1:]:
        for name in ("vocab_size", "eos_id", "token_dtype"):
            if part.manifest.get(name) != first.get(name):
                got = f"{part.manifest.get(name)!r} in {part.path}"
                raise ValueError(f"open: expected {name} {first.get(name)!r}, got {got}")
    for name, wanted in (("vocab_size", vocab_size), ("eos_id", eos_id)):
        if wanted is not None and wanted != first.get(name):
            raise ValueError(f"open: expected {name} {wanted}, got {first.get(name)!r}")
    tensors = load(parts, ram=mode != "mmap")
    verify(parts, tensors, verify_level)
    if mode != "mmap":
        for part in parts:
            part.lock.release()
    index = Index(tensors, parts, strict=strict)
    return index.to("cuda") if mode == "cuda" else index
