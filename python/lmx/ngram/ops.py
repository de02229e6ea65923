"""Typed faces of ``torch.ops.lmx.ngram_*``.

Shared by all of them:

- ``index`` is an :class:`IndexTensors`; S is its number of shards.
- Queries are ragged: ``qtok`` int64 holds all tokens, ``qoff`` int64 ``[Q + 1]`` where each row
  begins. A token outside ``[0, vocab_size)`` occurs nowhere.
- Ranges ``rng`` are int64 ``[Q, S, 2]``: ranks ``[lo, hi)`` of each shard's suffix array. Counts
  are sums over shards, with the sign of the shard.
- ``status``, int32 ``[Q]``, receives a bit per bad row (``csrc/common/status.h``) instead of an
  exception. Whatever an index holds, nothing outside its tensors is read.

Results are the same integers on every backend, batch and thread count.

Raises, all of them: RuntimeError where a shape, dtype, device or parameter is wrong; ValueError
where an index is corrupt or offsets are wrong and no ``status`` is given (CPU; CUDA does not look).
"""

import torch
from torch import Tensor

from .._faces import forbid_grad
from .tensors import IndexTensors


def sa_build(text: Tensor, vocab_size: int, num_suffixes: int) -> Tensor:
    """The suffix array of one shard's text.

    Args:
        text: ``[N]``, uint8, int16 or int32 (bits of unsigned tokens): SEP (all ones) before every
            document and at the very end.
        vocab_size: tokens are below it.
        num_suffixes: how many of the N are no SEP.

    Returns:
        int32 ``[num_suffixes]`` (bits of uint32): positions in the order of their suffixes,
        compared as unsigned numbers up to the first SEP, then by position.

    Source: Nong, Zhang, Chan 2009 (CPU); Manber and Myers 1993, prefix doubling (CUDA).
    Reference: ``lmx.ngram.reference.sa_build``.
    """
    return torch.ops.lmx.ngram_sa_build(text, vocab_size, num_suffixes)


def find(
    index: IndexTensors,
    qtok: Tensor,
    qoff: Tensor,
    hint: Tensor | None = None,
    *,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Where strings of tokens stand in the suffix arrays, and how often they occur.

    Args:
        index, qtok, qoff, status: see the module.
        hint: int64 ``[Q, S, 3]``: (lo, hi, depth), a range whose suffixes are known to begin with
            the first ``depth`` tokens of the query.

    Returns:
        ``rng`` (``lo == hi`` where the string does not occur) and ``cnt``, int64 ``[Q]``. The empty
        string has the range of all.

    Source: infini-gram (arXiv 2401.17377), section 3. Reference: ``lmx.ngram.reference.find``.
    """
    return torch.ops.lmx.ngram_find(
        *index.main, qtok, qoff, index.vocab_size, index.ptr_bytes, hint, status
    )


def longest_suffix(
    index: IndexTensors,
    qtok: Tensor,
    qoff: Tensor,
    *,
    max_len: int = 0,
    min_count: int = 1,
    prev_len: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """How many of the last tokens of each context occur together at least ``min_count`` times.

    Args:
        index, qtok, qoff, status: see the module.
        max_len: a bound; 0 = none.
        min_count: at least 1. The empty suffix always qualifies.
        prev_len: int32 ``[Q]``, streaming: the result for the same context without its last token,
            -1 = not known. The result is then taken to be at most one more.

    Returns:
        ``len`` int32 ``[Q]``, and ``rng`` and ``cnt`` of these tokens.

    Source: infini-gram (arXiv 2401.17377), section 2.
    Reference: ``lmx.ngram.reference.longest_suffix``.
    """
    return torch.ops.lmx.ngram_longest_suffix(
        *index.main,
        qtok,
        qoff,
        index.vocab_size,
        index.ptr_bytes,
        max_len,
        min_count,
        prev_len,
        status,
    )


def longest_prefix(
    index: IndexTensors, qtok: Tensor, qoff: Tensor, *, status: Tensor | None = None
) -> Tensor:
    """For every start in every text, how many tokens from there on occur together.

    Not for indexes with subtracted shards.

    Returns:
        int32, one per token of ``qtok``.

    Reference: ``lmx.ngram.reference.longest_prefix``.
    """
    return torch.ops.lmx.ngram_longest_prefix(
        *index.main, qtok, qoff, index.vocab_size, index.ptr_bytes, status
    )


def next_prob(
    index: IndexTensors, rng: Tensor, depth: Tensor, tok: Tensor, *, status: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """How often a token follows a string, and how often the string occurs.

    Args:
        index, status: see the module.
        rng, depth: the string's ranges and its length, int32 ``[Q]``.
        tok: int64 ``[Q]``. ``eos_id`` counts the ends of documents too; -1 counts them where the
            index has no ``eos_id``.

    Returns:
        ``num`` and ``den``, int64 ``[Q]``.

    Reference: ``lmx.ngram.reference.next_prob``.
    """
    return torch.ops.lmx.ngram_next_prob(
        *index.main, rng, depth, tok, index.vocab_size, index.eos_id, index.ptr_bytes, status
    )


def ntd(
    index: IndexTensors,
    rng: Tensor,
    depth: Tensor,
    capacity: int,
    *,
    max_support: int = 0,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The distribution of the token that follows, as compressed rows.

    Args:
        index, rng, depth, status: see ``next_prob``.
        capacity: entries to make room for. A row that does not fit is left out, with its status
            bit; ``crow`` is right all the same, so ``crow[-1]`` is the capacity to ask for.
        max_support: 0 = exact; else infini-gram's approximation from at most about so many samples.

    Returns:
        ``crow`` int64 ``[Q + 1]``; ``tok`` ascending and ``num`` above 0, int64 ``[capacity]`` (-1
        and 0 past the last row); ``den`` int64 ``[Q]``; ``approx`` bool ``[Q]``. The end of a
        document is listed under ``eos_id``, or -1.

    Source: infini-gram (arXiv 2401.17377), appendix A. Reference: ``lmx.ngram.reference.ntd``.
    """
    return torch.ops.lmx.ngram_ntd(
        *index.main,
        rng,
        depth,
        index.vocab_size,
        capacity,
        index.eos_id,
        index.ptr_bytes,
        max_support,
        status,
    )


def ntd_dense(
    index: IndexTensors,
    rng: Tensor,
    depth: Tensor,
    *,
    max_support: int = 0,
    status: Tensor | None = None,
) -> Tensor:
    """The distribution of ``ntd`` as probabilities, float32 ``[Q, vocab_size]``.

    Without ``eos_id`` the ends of documents have no column, and a row sums to what remains. A row
    of zeros where the string does not occur.

    Reference: ``lmx.ngram.reference.ntd_dense``.
    """
    return torch.ops.lmx.ngram_ntd_dense(
        *index.main,
        rng,
        depth,
        index.vocab_size,
        index.eos_id,
        index.ptr_bytes,
        max_support,
        status,
    )


def ntd_topk(
    index: IndexTensors,
    rng: Tensor,
    depth: Tensor,
    k: int,
    *,
    max_support: int = 0,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k most frequent tokens of ``ntd``, ties by the smaller token.

    Returns:
        ``tok`` and ``num``, int64 ``[Q, k]``; -1 and 0 where fewer tokens follow.

    Reference: ``lmx.ngram.reference.ntd_topk``.
    """
    return torch.ops.lmx.ngram_ntd_topk(
        *index.main,
        rng,
        depth,
        index.vocab_size,
        k,
        index.eos_id,
        index.ptr_bytes,
        max_support,
        status,
    )


def score(
    index: IndexTensors,
    qtok: Tensor,
    qoff: Tensor,
    *,
    max_len: int = 0,
    min_count: int = 1,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The infinity-gram estimate of every token of every text, given the tokens before it.

    Args:
        index, qtok, qoff, status: see the module.
        max_len, min_count: as in ``longest_suffix``.

    Returns:
        ``suffix_len`` int32, ``den`` and ``num`` int64, ``distinct`` int32, one per token: the
        longest suffix of what comes before, its count, the count of it with the token, and how many
        different tokens follow it, at most 2; 1 is a sparse estimate.

    Source: infini-gram (arXiv 2401.17377), sections 2 and 4. Reference:
    ``lmx.ngram.reference.score``.
    """
    return torch.ops.lmx.ngram_score(
        *index.main,
        qtok,
        qoff,
        index.vocab_size,
        index.eos_id,
        index.ptr_bytes,
        max_len,
        min_count,
        status,
    )


def locate(
    index: IndexTensors, rng: Tensor, k: int, *, seed: int = 0, status: Tensor | None = None
) -> Tensor:
    """Occurrences of strings: all where there are at most k, else k different ones.

    Which ones depends on ``seed`` and the count alone. Not for indexes with subtracted shards.

    Returns:
        int64 ``[Q, k, 4]``: shard, position in its text, document (numbered over all shards),
        offset in the document; -1 where there is none.

    Reference: ``lmx.ngram.reference.locate``.
    """
    return torch.ops.lmx.ngram_locate(
        *index.main, index.docs, rng, index.vocab_size, k, seed, index.ptr_bytes, status
    )


def mix(
    logits: Tensor,
    lse: Tensor,
    crow: Tensor,
    tok: Tensor,
    num: Tensor,
    lam_sparse: float,
    lam_dense: float,
    *,
    suffix_len: Tensor | None = None,
    min_suffix_len: int = 0,
    status: Tensor | None = None,
) -> Tensor:
    """Log-probabilities of a model and of an index, interpolated.

    Args:
        logits: ``[Q, V]``, float32, float16 or bfloat16.
        lse: float32 ``[Q]``, ln of the sum of their exponentials (``lmx.vocab.lse``).
        crow, tok, num: of ``ntd``. Entries outside ``[0, V)`` are left out and the rest is
            normalised again.
        lam_sparse, lam_dense: the index's weight, in [0, 1], where one token follows, and where
            more do.
        suffix_len: int32 ``[Q]``; the weight is 0 where it is below ``min_suffix_len``.
        status: int32 ``[Q]``, see the module.

    Returns:
        float32 ``[Q, V]``: ln(lambda P + (1 - lambda) softmax(logits)). With weight 0, or where
        nothing follows, ``logits - lse``.

    Source: infini-gram (arXiv 2401.17377), section 5. Reference: ``lmx.ngram.reference.mix``.
    """
    forbid_grad("lmx.ngram.mix", logits, lse)
    return torch.ops.lmx.ngram_mix(
        logits, lse, crow, tok, num, lam_sparse, lam_dense, suffix_len, min_suffix_len, status
    )
