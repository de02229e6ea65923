"""Shapes and dtypes of the room's ops, for ``torch.compile`` and export."""

import torch
from torch import Tensor
from torch.library import register_fake


def _rows(logits: Tensor, dtype: torch.dtype) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=dtype)


@register_fake("lmx::vocab_argmax")
def _argmax(
    logits: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    status: Tensor | None = None,
) -> Tensor:
    return _rows(logits, torch.int64)


@register_fake("lmx::vocab_softmax")
def _softmax(
    logits: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    temperature: Tensor | None = None,
    top_k: Tensor | None = None,
    top_p: Tensor | None = None,
    min_p: Tensor | None = None,
    status: Tensor | None = None,
) -> Tensor:
    return logits.new_empty(logits.shape, dtype=torch.float32)


@register_fake("lmx::vocab_lse")
def _lse(
    logits: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    temperature: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return _rows(logits, torch.float32), _rows(logits, torch.float32)


@register_fake("lmx::vocab_logprobs")
def _logprobs(logits: Tensor, targets: Tensor, status: Tensor | None = None) -> Tensor:
    return _rows(logits, torch.float32)


@register_fake("lmx::vocab_sample")
def _sample(
    logits: Tensor,
    uniforms: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    temperature: Tensor | None = None,
    top_k: Tensor | None = None,
    top_p: Tensor | None = None,
    min_p: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return _rows(logits, torch.int64), _rows(logits, torch.float32)


@register_fake("lmx::vocab_uniform")
def _uniform(
    seeds: Tensor,
    positions: Tensor,
    purpose: int,
    indices: Tensor | None = None,
    hi: Tensor | None = None,
) -> Tensor:
    return torch.empty_like(seeds, dtype=torch.float32)


@register_fake("lmx::vocab_mask_apply_")
def _mask_apply_(
    logits: Tensor,
    token_bitmask: Tensor,
    mask_ids: Tensor | None = None,
    status: Tensor | None = None,
) -> None:
    return None


@register_fake("lmx::vocab_mask_from_bool")
def _mask_from_bool(allowed: Tensor) -> Tensor:
    return allowed.new_empty(allowed.shape[0], (allowed.shape[1] + 31) // 32, dtype=torch.int32)


@register_fake("lmx::vocab_mask_to_bool")
def _mask_to_bool(token_bitmask: Tensor, vocab_size: int) -> Tensor:
    return token_bitmask.new_empty(token_bitmask.shape[0], vocab_size, dtype=torch.bool)


@register_fake("lmx::vocab_mask_and_")
def _mask_and_(token_bitmask: Tensor, other: Tensor) -> None:
    return None


@register_fake("lmx::vocab_mask_or_")
def _mask_or_(token_bitmask: Tensor, other: Tensor) -> None:
    return None


@register_fake("lmx::vocab_mask_popcount")
def _mask_popcount(token_bitmask: Tensor, vocab_size: int = -1) -> Tensor:
    return token_bitmask.new_empty(token_bitmask.shape[0], dtype=torch.int32)


@register_fake("lmx::vocab_mask_gather")
def _mask_gather(
    pool: Tensor, mask_ids: Tensor, vocab_size: int = -1, status: Tensor | None = None
) -> Tensor:
    return pool.new_empty(mask_ids.shape[0], pool.shape[1])
