"""infini-gram's engine over its own directories: the same method names and result dictionaries.

``from lmx.compat.infini_gram import InfiniGramEngine`` in place of
``from infini_gram.engine import InfiniGramEngine``. Counts, distributions (with its approximation),
conjunctions, documents and creativity. What differs, on purpose:

- the end of a document is ``eos_token_id`` for ``prob`` as for ``ntd``, and a prompt that ends the
  corpus has the distribution that its occurrences give;
- a truncated or foreign file raises ``CorruptIndexError`` when opened;
- documents of a search, and the samples of large clauses, are drawn by ``seed``;
- ``attribute`` is not there yet and says so.

``InfiniGramEngineDiff`` takes a second index, of documents that are not to be shown any more.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..ngram.cnf import count_cnf
from ..ngram.foreign import WIDTHS, read_infini_gram
from ..ngram.index import Distribution

Response = dict[str, Any]
_POSITIVE = "must be a positive integer"


def _positive(value: object) -> bool:
    return type(value) is int and value > 0


class InfiniGramEngine:
    """An index of infini-gram, version 4. Bad arguments give ``{"error": ...}``, as there."""

    def __init__(
        self,
        index_dir: str | list[str],
        eos_token_id: int,
        vocab_size: int = 65535,
        version: int = 4,
        token_dtype: str = "u16",
        load_to_ram: bool = False,
        ds_prefetch_depth: int = 1,
        sa_prefetch_depth: int = 3,
        od_prefetch_depth: int = 3,
        max_support: int = 1000,
        max_clause_freq: int = 50_000,
        max_diff_tokens: int = 100,
        maxnum: int = 1,
        max_disp_len: int = 1000,
        seed: int = 0,
    ) -> None:
        """Open the index; arguments as infini-gram's. The prefetch depths have no effect.

        Raises:
            ValueError: another version than 4, or an unknown token type.
            CorruptIndexError: a file is not what it should be.
        """
        if version != 4:
            raise ValueError(
                f"InfiniGramEngine: expected version 4, got {version}: in version 5 documents are "
                "reversed, and version 6 is another layout; build such an index anew"
            )
        if token_dtype not in WIDTHS:
            raise ValueError(
                f"InfiniGramEngine: expected token_dtype u8, u16 or u32, got {token_dtype!r}"
            )
        self.token_id_max = 2 ** (8 * WIDTHS[token_dtype]) - 1
        self._width = WIDTHS[token_dtype]
        self.max_support = max_support
        self.max_clause_freq = max_clause_freq
        self.max_diff_tokens = max_diff_tokens
        self.maxnum = maxnum
        self.max_disp_len = max_disp_len
        self._seed = seed
        self.index = read_infini_gram(
            index_dir,
            eos_id=eos_token_id,
            token_dtype=token_dtype,
            ram=load_to_ram,
            strict=False,
        )

    # ---- checks ----

    def _bad_ids(self, name: str, ids: object) -> Response | None:
        ok = type(ids) is list and all(type(q) is int and 0 <= q <= self.token_id_max for q in ids)
        text = f"{name} must be a list of integers in range [0, {self.token_id_max}]"
        return None if ok else {"error": text}

    def _bad_cnf(self, cnf: object) -> Response | None:
        ok = type(cnf) is list and len(cnf) > 0
        for clause in cnf if ok and isinstance(cnf, list) else ():
            ok = ok and type(clause) is list and len(clause) > 0
            for ids in clause if ok else ():
                ok = ok and bool(ids) and self._bad_ids("", ids) is None
        text = "cnf must be a non-empty, triply-nested list of integers in range "
        return None if ok else {"error": f"{text}[0, {self.token_id_max}]"}

    # ---- counts and distributions ----

    def find(self, input_ids: list[int]) -> Response:
        """``cnt`` and ``segment_by_shard``."""
        if bad := self._bad_ids("input_ids", input_ids):
            return bad
        rng, cnt = self.index.find([input_ids])
        return {"cnt": int(cnt), "segment_by_shard": [tuple(r) for r in rng[0].tolist()]}

    def count(self, input_ids: list[int]) -> Response:
        """``count`` and ``approx``."""
        if bad := self._bad_ids("input_ids", input_ids):
            return bad
        return {"count": self.index.count(input_ids), "approx": False}

    def _prob(self, prompt_ids: list[int], cont_id: int, infgram: bool) -> Response:
        if bad := self._bad_ids("prompt_ids", prompt_ids):
            return bad
        if not (type(cont_id) is int and 0 <= cont_id <= self.token_id_max):
            return {"error": f"cont_id must be an integer in range [0, {self.token_id_max}]"}
        ask = self.index.infgram_prob if infgram else self.index.prob
        found = ask(prompt_ids, cont_id)
        result = {"prompt_cnt": found.den, "cont_cnt": found.num, "prob": found.prob}
        return result | ({"suffix_len": found.suffix_len} if infgram else {})

    def prob(self, prompt_ids: list[int], cont_id: int) -> Response:
        """``prompt_cnt``, ``cont_cnt`` and ``prob``."""
        return self._prob(prompt_ids, cont_id, infgram=False)

    def infgram_prob(self, prompt_ids: list[int], cont_id: int) -> Response:
        """As ``prob``, behind the longest suffix that occurs, and its ``suffix_len``."""
        return self._prob(prompt_ids, cont_id, infgram=True)

    def _ntd(self, prompt_ids: list[int], max_support: int | None, infgram: bool) -> Response:
        support = self.max_support if max_support is None else max_support
        if not _positive(support):
            return {"error": f"max_support {_POSITIVE}"}
        if bad := self._bad_ids("prompt_ids", prompt_ids):
            return bad
        ask = self.index.infgram_ntd if infgram else self.index.ntd
        found: Distribution = ask([prompt_ids], max_support=support)
        total = int(found.den)
        tokens = {
            token: {"cont_cnt": count, "prob": count / total}
            for token, count in found.counts().items()
        }
        result = {
            "prompt_cnt": total,
            "result_by_token_id": tokens,
            "approx": bool(found.approx),
        }
        return result | ({"suffix_len": int(found.suffix_len)} if infgram else {})

    def ntd(self, prompt_ids: list[int], max_support: int | None = None) -> Response:
        """``prompt_cnt``, ``result_by_token_id`` and ``approx``."""
        return self._ntd(prompt_ids, max_support, infgram=False)

    def infgram_ntd(self, prompt_ids: list[int], max_support: int | None = None) -> Response:
        """As ``ntd``, behind the longest suffix that occurs, and its ``suffix_len``."""
        return self._ntd(prompt_ids, max_support, infgram=True)

    def creativity(self, input_ids: list[int]) -> Response:
        """``rs``: for every start l the largest r such that ``input_ids[l:r]`` occurs."""
        if bad := self._bad_ids("input_ids", input_ids):
            return bad
        return {"rs": self.index.creativity(input_ids)}

    def attribute(self, *args: object, **kwargs: object) -> Response:
        """Not there yet."""
        raise NotImplementedError(
            "lmx.compat.infini_gram: attribute is not built yet; creativity gives the longest "
            "match of every start"
        )

    # ---- conjunctions ----

    def _cnf(
        self, cnf: list[list[list[int]]], freq: int | None, diff: int | None
    ) -> Response | Any:
        freq = self.max_clause_freq if freq is None else freq
        diff = self.max_diff_tokens if diff is None else diff
        if not _positive(freq):
            return {"error": f"max_clause_freq {_POSITIVE}"}
        if not _positive(diff):
            return {"error": f"max_diff_tokens {_POSITIVE}"}
        if bad := self._bad_cnf(cnf):
            return bad
        return count_cnf(self.index, cnf, freq, diff, self._seed)

    def find_cnf(
        self,
        cnf: list[list[list[int]]],
        max_clause_freq: int | None = None,
        max_diff_tokens: int | None = None,
    ) -> Response:
        """``cnt``, ``approx`` and ``ptrs_by_shard``, the byte offsets where windows begin."""
        found = self._cnf(cnf, max_clause_freq, max_diff_tokens)
        if isinstance(found, dict):
            return found
        pointers = [(w[:, 0] * self._width).tolist() for w in found.windows]
        return {"cnt": found.count, "approx": found.approx, "ptrs_by_shard": pointers}

    def count_cnf(
        self,
        cnf: list[list[list[int]]],
        max_clause_freq: int | None = None,
        max_diff_tokens: int | None = None,
    ) -> Response:
        """``count`` and ``approx``."""
        found = self._cnf(cnf, max_clause_freq, max_diff_tokens)
        if isinstance(found, dict):
            return found
        return {"count": found.count, "approx": found.approx}

    # ---- documents ----

    def _document(self, shard: int, begin: int, end: int, needle: int) -> Response:
        """Tokens [begin, end) of the document that holds position `needle`."""
        index = self.index
        doc = int(index.documents_at(shard, torch.tensor([needle]))[0])
        first, last = index._bounds(*index._shard_of(doc))
        if begin < first:
            begin = first
        end = min(end, last)
        tokens = index._tokens(shard, begin, end) if begin < end else []
        return {
            "doc_ix": doc,
            "doc_len": last - first,
            "disp_len": len(tokens),
            "needle_offset": max(0, needle - begin),
            "metadata": "",
            "token_ids": tokens,
            "blocked": False,
        }

    def _around(self, shard: int, position: int, max_disp_len: int) -> Response:
        before, after = max_disp_len // 2, (max_disp_len + 1) // 2
        return self._document(shard, position - before, position + after, position)

    def _sizes(self) -> list[int]:
        return self.index.tensors.shards[:, 1].tolist()

    def _bad_shard(self, s: object) -> Response | None:
        ok = type(s) is int and 0 <= s < len(self._sizes())
        return None if ok else {"error": f"s must be an integer in range [0, {len(self._sizes())})"}

    def _position_of_rank(self, s: int, rank: int) -> int | Response:
        if bad := self._bad_shard(s):
            return bad
        size = self._sizes()[s]
        if not (type(rank) is int and 0 <= rank < size):
            return {"error": f"ptr must be an integer in range [0, {size})"}
        return int(self.index._pointers(s, rank, rank + 1)[0])

    def _position_of_ptr(self, s: int, ptr: int) -> int | Response:
        if bad := self._bad_shard(s):
            return bad
        size = self._sizes()[s] * self._width
        if not (type(ptr) is int and 0 <= ptr < size and ptr % self._width == 0):
            return {"error": f"ptr must be a multiple of {self._width} in range [0, {size})"}
        return ptr // self._width

    def _shown(self, s: int, position: int | Response, max_disp_len: int | None) -> Response:
        size = self.max_disp_len if max_disp_len is None else max_disp_len
        if not _positive(size):
            return {"error": f"max_disp_len {_POSITIVE}"}
        return position if isinstance(position, dict) else self._around(s, position, size)

    def get_doc_by_rank(self, s: int, rank: int, max_disp_len: int | None = None) -> Response:
        """The document around the suffix of a rank."""
        return self._shown(s, self._position_of_rank(s, rank), max_disp_len)

    def get_doc_by_ptr(self, s: int, ptr: int, max_disp_len: int | None = None) -> Response:
        """The document around a byte offset."""
        return self._shown(s, self._position_of_ptr(s, ptr), max_disp_len)

    def get_doc_by_ix(self, doc_ix: int, max_disp_len: int | None = None) -> Response:
        """The beginning of a document."""
        size = self.max_disp_len if max_disp_len is None else max_disp_len
        if not _positive(size):
            return {"error": f"max_disp_len {_POSITIVE}"}
        return self._beginning(doc_ix, size)

    def _beginning(self, doc_ix: int, size: int) -> Response:
        total = self.get_total_doc_cnt()
        if not (type(doc_ix) is int and 0 <= doc_ix < total):
            return {"error": f"doc_ix must be an integer in range [0, {total})"}
        shard, local = self.index._shard_of(doc_ix)
        first, _ = self.index._bounds(shard, local)
        return self._document(shard, first, first + size, first - 1)

    def get_docs_by_ranks(
        self, list_of_s_and_rank: Sequence[tuple[int, int]], max_disp_len: int | None = None
    ) -> Any:
        """``get_doc_by_rank`` of each."""
        return _all(self.get_doc_by_rank(s, rank, max_disp_len) for s, rank in list_of_s_and_rank)

    def get_docs_by_ptrs(
        self, list_of_s_and_ptr: Sequence[tuple[int, int]], max_disp_len: int | None = None
    ) -> Any:
        """``get_doc_by_ptr`` of each."""
        return _all(self.get_doc_by_ptr(s, ptr, max_disp_len) for s, ptr in list_of_s_and_ptr)

    def get_docs_by_ixs(
        self, list_of_doc_ix: Sequence[int], max_disp_len: int | None = None
    ) -> Any:
        """``get_doc_by_ix`` of each."""
        return _all(self.get_doc_by_ix(ix, max_disp_len) for ix in list_of_doc_ix)

    def _with_context(
        self, s: int, position: int | Response, needle_len: int, max_ctx_len: int
    ) -> Response:
        for name, value in (("needle_len", needle_len), ("max_ctx_len", max_ctx_len)):
            if not (type(value) is int and value >= 0):
                return {"error": f"{name} must be a non-negative integer"}
        if isinstance(position, dict):
            return position
        end = position + needle_len + max_ctx_len
        return self._document(s, position - max_ctx_len, end, position)

    def get_doc_by_rank_2(self, s: int, rank: int, needle_len: int, max_ctx_len: int) -> Response:
        """The document around the needle at a rank, with so many tokens on either side."""
        return self._with_context(s, self._position_of_rank(s, rank), needle_len, max_ctx_len)

    def get_doc_by_ptr_2(self, s: int, ptr: int, needle_len: int, max_ctx_len: int) -> Response:
        """The document around the needle at a byte offset."""
        return self._with_context(s, self._position_of_ptr(s, ptr), needle_len, max_ctx_len)

    def get_doc_by_ix_2(self, doc_ix: int, max_ctx_len: int) -> Response:
        """The first tokens of a document."""
        if not (type(max_ctx_len) is int and max_ctx_len >= 0):
            return {"error": "max_ctx_len must be a non-negative integer"}
        return self._beginning(doc_ix, max_ctx_len)

    def get_docs_by_ranks_2(self, requests: Sequence[tuple[int, int, int, int]]) -> Any:
        """``get_doc_by_rank_2`` of each."""
        return _all(self.get_doc_by_rank_2(*request) for request in requests)

    def get_docs_by_ptrs_2(self, requests: Sequence[tuple[int, int, int, int]]) -> Any:
        """``get_doc_by_ptr_2`` of each."""
        return _all(self.get_doc_by_ptr_2(*request) for request in requests)

    def get_docs_by_ixs_2(self, requests: Sequence[tuple[int, int]]) -> Any:
        """``get_doc_by_ix_2`` of each."""
        return _all(self.get_doc_by_ix_2(*request) for request in requests)

    def get_total_doc_cnt(self) -> int:
        """The number of documents."""
        return self.index.num_docs

    def compute_unigram_counts(self, s: int) -> dict[int, int]:
        """How often each token, separators included, stands in a shard."""
        row = self.index.tensors.shards[s].tolist()
        tokens = torch.tensor(self.index._tokens(s, 0, row[1]))
        ids, counts = tokens.unique(return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    def _drawn(self, windows: list[tuple[int, int]], maxnum: int, size: int) -> Response:
        generator = torch.Generator().manual_seed(self._seed)
        picks = [int(torch.randint(len(windows), (1,), generator=generator)) for _ in range(maxnum)]
        idxs = picks if windows else []
        documents = [self._around(*windows[i], size) for i in idxs]
        return {"idxs": idxs, "documents": documents}

    def search_docs(
        self, input_ids: list[int], maxnum: int | None = None, max_disp_len: int | None = None
    ) -> Response:
        """Documents around ``maxnum`` occurrences, drawn with replacement."""
        number = self.maxnum if maxnum is None else maxnum
        size = self.max_disp_len if max_disp_len is None else max_disp_len
        if not _positive(number):
            return {"error": f"maxnum {_POSITIVE}"}
        if not _positive(size):
            return {"error": f"max_disp_len {_POSITIVE}"}
        if bad := self._bad_ids("input_ids", input_ids):
            return bad
        rng, cnt = self.index.find([input_ids])
        total = int(cnt)
        result: Response = {"cnt": total, "approx": False, "idxs": [], "documents": []}
        if total == 0:
            return result
        generator = torch.Generator().manual_seed(self._seed)
        for index in torch.randint(total, (number,), generator=generator).tolist():
            left = index
            for shard, (lo, hi) in enumerate(rng[0].tolist()):
                if left < hi - lo:
                    position = int(self.index._pointers(shard, lo + left, lo + left + 1)[0])
                    result["idxs"].append(index)
                    result["documents"].append(self._around(shard, position, size))
                    break
                left -= hi - lo
        return result

    def search_docs_cnf(
        self,
        cnf: list[list[list[int]]],
        maxnum: int | None = None,
        max_disp_len: int | None = None,
        max_clause_freq: int | None = None,
        max_diff_tokens: int | None = None,
    ) -> Response:
        """Documents around ``maxnum`` windows of ``find_cnf``, drawn with replacement."""
        number = self.maxnum if maxnum is None else maxnum
        size = self.max_disp_len if max_disp_len is None else max_disp_len
        if not _positive(number):
            return {"error": f"maxnum {_POSITIVE}"}
        if not _positive(size):
            return {"error": f"max_disp_len {_POSITIVE}"}
        found = self._cnf(cnf, max_clause_freq, max_diff_tokens)
        if isinstance(found, dict):
            return found
        windows = [(s, int(left)) for s, w in enumerate(found.windows) for left in w[:, 0]]
        head: Response = {"cnt": found.count, "approx": found.approx}
        return head | self._drawn(windows, number, size)


class InfiniGramEngineDiff(InfiniGramEngine):
    """An index beside one of documents that have been taken down.

    As there, counts and distributions are those of the first index. ``creativity`` looks at what
    occurs more often than in the second, and documents that the second holds come back blocked.
    """

    def __init__(
        self,
        index_dir: str | list[str],
        index_dir_diff: str | list[str],
        eos_token_id: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Open both; the other arguments, and what is raised, as of ``InfiniGramEngine``."""
        super().__init__(index_dir, eos_token_id, *args, **kwargs)
        self._taken = InfiniGramEngine(index_dir_diff, eos_token_id, *args, **kwargs).index

    def creativity(self, input_ids: list[int]) -> Response:
        """``rs``: for every start l the largest r such that ``input_ids[l:r]`` is left."""
        if bad := self._bad_ids("input_ids", input_ids):
            return bad
        ends, beyond = list(range(len(input_ids))), [len(input_ids) + 1] * len(input_ids)
        while open_ones := [i for i, end in enumerate(ends) if end + 1 < beyond[i]]:
            tried = [(ends[i] + beyond[i]) // 2 for i in open_ones]
            rows = [input_ids[i:r] for i, r in zip(open_ones, tried, strict=True)]
            left = (self.index.count(rows) - self._taken.count(rows)).tolist()
            for i, r, count in zip(open_ones, tried, left, strict=True):
                (ends if count > 0 else beyond)[i] = r
        return {"rs": ends}

    def get_docs_by_ptrs_2_grouped(self, requests: Sequence[dict[str, Any]]) -> Any:
        """``get_doc_by_ptr_2`` of each of ``docs`` (``s``, ``ptr``) of each request.

        ``span_ids`` are the tokens at the pointers, ``needle_len`` and ``max_ctx_len`` as there. A
        document of which the second index shows the same tokens around the span is blocked: it
        comes without tokens.
        """
        found = []
        for request in requests:
            needle, context = request["needle_len"], request["max_ctx_len"]
            shown = _all(
                self.get_doc_by_ptr_2(doc["s"], doc["ptr"], needle, context)
                for doc in request["docs"]
            )
            if isinstance(shown, dict):
                return shown
            for doc in shown:
                if self._is_taken(doc, request["span_ids"], context):
                    doc.update(blocked=True, token_ids=[])
            found.append(shown)
        return found

    def _is_taken(self, doc: Response, span: list[int], context: int) -> bool:
        window, before = doc["token_ids"], doc["needle_offset"]
        if not span or window[before : before + len(span)] != span:
            return False
        begins, ends = before < context, len(window) - before - len(span) < context
        for shard, positions in enumerate(self._taken.positions(window)):
            row = self._taken.tensors.shards[shard].tolist()
            starts = self._taken.tensors.docs[row[5] : row[5] + row[6] + 1]
            doc_of = torch.searchsorted(starts, positions, right=True) - 1
            same = torch.ones_like(positions, dtype=torch.bool)
            if begins:
                same &= starts[doc_of] + 1 == positions
            if ends:
                same &= starts[doc_of + 1] == positions + len(window)
            if bool(same.any()):
                return True
        return False


def _all(results: Any) -> Any:
    """A list of results, or the first error."""
    found = []
    for result in results:
        if "error" in result:
            return result
        found.append(result)
    return found
