"""Shapes and dtypes of the room's ops, for ``torch.compile`` and export."""

import torch
from torch import Tensor
from torch.library import register_fake

_I64, _I32 = torch.int64, torch.int32


@register_fake("lmx::ngram_sa_build")
def _sa_build(text: Tensor, vocab_size: int, num_suffixes: int) -> Tensor:
    return text.new_empty(num_suffixes, dtype=_I32)


@register_fake("lmx::ngram_find")
def _find(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    qtok: Tensor,
    qoff: Tensor,
    vocab_size: int,
    ptr_bytes: int = 0,
    hint: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    rows = qoff.shape[0] - 1
    return qoff.new_empty(rows, shards.shape[0], 2), qoff.new_empty(rows)


@register_fake("lmx::ngram_longest_suffix")
def _longest_suffix(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    qtok: Tensor,
    qoff: Tensor,
    vocab_size: int,
    ptr_bytes: int = 0,
    max_len: int = 0,
    min_count: int = 1,
    prev_len: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    rows = qoff.shape[0] - 1
    length = qoff.new_empty(rows, dtype=_I32)
    return length, qoff.new_empty(rows, shards.shape[0], 2), qoff.new_empty(rows)


@register_fake("lmx::ngram_longest_prefix")
def _longest_prefix(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    qtok: Tensor,
    qoff: Tensor,
    vocab_size: int,
    ptr_bytes: int = 0,
    status: Tensor | None = None,
) -> Tensor:
    return torch.empty_like(qtok, dtype=_I32)


@register_fake("lmx::ngram_next_prob")
def _next_prob(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    rng: Tensor,
    depth: Tensor,
    tok: Tensor,
    vocab_size: int,
    eos_id: int = -1,
    ptr_bytes: int = 0,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(tok), torch.empty_like(tok)


@register_fake("lmx::ngram_ntd")
def _ntd(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    rng: Tensor,
    depth: Tensor,
    vocab_size: int,
    capacity: int,
    eos_id: int = -1,
    ptr_bytes: int = 0,
    max_support: int = 0,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = rng.shape[0]
    entries = rng.new_empty(capacity), rng.new_empty(capacity)
    approx = rng.new_empty(rows, dtype=torch.bool)
    return rng.new_empty(rows + 1), *entries, rng.new_empty(rows), approx


@register_fake("lmx::ngram_ntd_dense")
def _ntd_dense(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    rng: Tensor,
    depth: Tensor,
    vocab_size: int,
    eos_id: int = -1,
    ptr_bytes: int = 0,
    max_support: int = 0,
    status: Tensor | None = None,
) -> Tensor:
    return rng.new_empty(rng.shape[0], vocab_size, dtype=torch.float32)


@register_fake("lmx::ngram_ntd_topk")
def _ntd_topk(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    rng: Tensor,
    depth: Tensor,
    vocab_size: int,
    k: int,
    eos_id: int = -1,
    ptr_bytes: int = 0,
    max_support: int = 0,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return rng.new_empty(rng.shape[0], k), rng.new_empty(rng.shape[0], k)


@register_fake("lmx::ngram_score")
def _score(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    qtok: Tensor,
    qoff: Tensor,
    vocab_size: int,
    eos_id: int = -1,
    ptr_bytes: int = 0,
    max_len: int = 0,
    min_count: int = 1,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtypes = (_I32, _I64, _I64, _I32)
    a, b, c, d = (torch.empty_like(qtok, dtype=dtype) for dtype in dtypes)
    return a, b, c, d


@register_fake("lmx::ngram_locate")
def _locate(
    text: Tensor,
    sa: Tensor,
    lut: Tensor,
    skey: Tensor,
    shards: Tensor,
    docs: Tensor,
    rng: Tensor,
    vocab_size: int,
    k: int,
    seed: int = 0,
    ptr_bytes: int = 0,
    status: Tensor | None = None,
) -> Tensor:
    return rng.new_empty(rng.shape[0], k, 4)


@register_fake("lmx::ngram_mix")
def _mix(
    logits: Tensor,
    lse: Tensor,
    crow: Tensor,
    tok: Tensor,
    num: Tensor,
    lam_sparse: float,
    lam_dense: float,
    suffix_len: Tensor | None = None,
    min_suffix_len: int = 0,
    status: Tensor | None = None,
) -> Tensor:
    return logits.new_empty(logits.shape, dtype=torch.float32)
