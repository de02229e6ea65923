"""Typed faces of ``torch.ops.lmx.vocab_*``.

Shared by all of them:

- ``logits`` is ``[num_rows, vocab_size]``, float32, float16 or bfloat16, contiguous in its last
  dimension, at most 2^24 tokens a row.
- ``token_bitmask`` is int32 ``[num_rows, mask_words]``; bit ``j`` of word ``i`` is token
  ``32 i + j``, 1 = allowed; tokens past its last word are not allowed. With ``mask_ids``, int32
  ``[num_rows]``, it is a pool ``[num_masks, mask_words]``: row ``r`` uses mask ``mask_ids[r]``,
  -1 = all tokens allowed.
- A sampling parameter is one number for all rows or a tensor ``[num_rows]``.
- ``status``, int32 ``[num_rows]``, receives a bit per bad row (``csrc/common/status.h``) instead of
  an exception; such a row counts as having no allowed token.

Results are the same bits on every backend, instruction-set level, batch and thread count.

Raises, all of them: RuntimeError where a shape, dtype, device or stride is wrong; ValueError where
a value is out of its range and no ``status`` is given (CPU; CUDA does not look), or where autograd
would need a backward.
"""

import torch
from torch import Tensor

from .._faces import forbid_grad, per_row, written

_F32, _I32 = torch.float32, torch.int32


def argmax(
    logits: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    *,
    status: Tensor | None = None,
) -> Tensor:
    """The allowed token with the largest logit, the lowest id of equals.

    Returns:
        int64 ``[num_rows]``; -1 where nothing is allowed, all allowed logits are ``-inf``, or one
        is NaN.

    Reference: ``lmx.vocab.reference.argmax``.
    """
    forbid_grad("lmx.vocab.argmax", logits)
    return torch.ops.lmx.vocab_argmax(logits, token_bitmask, mask_ids, status)


def softmax(
    logits: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    *,
    temperature: float | Tensor | None = None,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    status: Tensor | None = None,
) -> Tensor:
    """Probabilities after temperature, mask, top-k, top-p and min-p, in that order.

    Args:
        logits, token_bitmask, mask_ids, status: see the module.
        temperature: divides the logits; at least 0; below 1e-3 the row is 1 at its argmax. Finite
            logits count as at most 5.8 million times the temperature, of either sign.
        top_k: keep the ``top_k`` largest; 0 = off. Of equal logits the lower ids are kept first.
        top_p: then keep the shortest prefix, by descending logit, whose share of what top_k kept
            reaches ``top_p``; in (0, 1]; 1 = off.
        min_p: then keep tokens with at least ``min_p`` times the largest probability; in [0, 1]; 0
            = off.

    Returns:
        float32 ``[num_rows, vocab_size]``; 0 for tokens not kept, a row of zeros where nothing is
        allowed, of NaN where an allowed logit is NaN.

    Source: top-p: arXiv 1904.09751, section 3.1; min-p: arXiv 2407.01082, section 3.
    Reference: ``lmx.vocab.reference.softmax``.
    """
    op = "lmx.vocab.softmax"
    forbid_grad(op, logits)
    return torch.ops.lmx.vocab_softmax(
        logits,
        token_bitmask,
        mask_ids,
        per_row(op, "temperature", temperature, logits, _F32),
        per_row(op, "top_k", top_k, logits, _I32),
        per_row(op, "top_p", top_p, logits, _F32),
        per_row(op, "min_p", min_p, logits, _F32),
        status,
    )


def lse(
    logits: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    *,
    temperature: float | Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log of the sum of ``exp(logits / temperature)``, over all tokens and over the allowed ones.

    Args:
        logits, token_bitmask, mask_ids, status: see the module.
        temperature: at least 1e-3.

    Returns:
        ``lse_all`` and ``lse_masked``, float32 ``[num_rows]``, natural log; ``-inf`` for an empty
        sum, NaN where a logit that counts is NaN. ``exp(lse_masked - lse_all)`` is the model's own
        probability of the allowed set.

    Reference: ``lmx.vocab.reference.lse``.
    """
    op = "lmx.vocab.lse"
    forbid_grad(op, logits)
    return torch.ops.lmx.vocab_lse(
        logits,
        token_bitmask,
        mask_ids,
        per_row(op, "temperature", temperature, logits, _F32),
        status,
    )


def logprobs(logits: Tensor, targets: Tensor, *, status: Tensor | None = None) -> Tensor:
    """Log-probability of one token per row: log-softmax and gather in one pass.

    Args:
        logits, status: see the module.
        targets: int64 ``[num_rows]``, in ``[-1, vocab_size)``; -1 gives 0.

    Returns:
        float32 ``[num_rows]``, natural log; NaN where the row has a NaN.

    Reference: ``lmx.vocab.reference.logprobs``.
    """
    forbid_grad("lmx.vocab.logprobs", logits)
    return torch.ops.lmx.vocab_logprobs(logits, targets, status)


def sample(
    logits: Tensor,
    uniforms: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    *,
    temperature: float | Tensor | None = None,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one token per row from the law that `softmax` gives for the same arguments.

    The token is the smallest id, in ascending order, whose cumulative probability exceeds the
    uniform.

    Args:
        logits, token_bitmask, mask_ids, status: see the module.
        uniforms: float32 ``[num_rows]``, in [0, 1), from `uniform`.
        temperature, top_k, top_p, min_p: as in `softmax`; temperature 0 gives the argmax.

    Returns:
        ``token``, int64 ``[num_rows]``, and ``logprob``, float32 ``[num_rows]``: the natural log of
        the probability that the token had in this draw. -1 and NaN where nothing is allowed or an
        allowed logit is NaN.

    Reference: ``lmx.vocab.reference.sample``.
    """
    op = "lmx.vocab.sample"
    forbid_grad(op, logits)
    return torch.ops.lmx.vocab_sample(
        logits,
        uniforms,
        token_bitmask,
        mask_ids,
        per_row(op, "temperature", temperature, logits, _F32),
        per_row(op, "top_k", top_k, logits, _I32),
        per_row(op, "top_p", top_p, logits, _F32),
        per_row(op, "min_p", min_p, logits, _F32),
        status,
    )


def uniform(
    seeds: Tensor,
    positions: Tensor,
    purpose: int,
    index: int | Tensor = 0,
    hi: int | Tensor = 0,
) -> Tensor:
    """Random numbers that depend only on what they are for: Philox4x32-10.

    Args:
        seeds: int64 ``[n]``, any value.
        positions: int64 ``[n]``: the number of tokens committed, in [0, 2^56).
        purpose: 0 node coin, 1 final draw, 2 Gumbel noise, 3 draft draw, 4 branch seed.
        index, hi: a number or int64 ``[n]``, in [0, 2^32).

    Returns:
        float32 ``[n]``, multiples of 2^-24 in [0, 1).

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    Reference: ``lmx.vocab.reference.uniform``.
    """

    def numbers(name: str, value: int | Tensor) -> Tensor | None:
        if isinstance(value, Tensor):
            return value
        if not 0 <= value < 1 << 32:
            raise ValueError(f"lmx.vocab.uniform: expected {name} in [0, 2^32), got {value}")
        return None if value == 0 else torch.full_like(seeds, value)

    return torch.ops.lmx.vocab_uniform(
        seeds, positions, purpose, numbers("index", index), numbers("hi", hi)
    )


def mask_apply_(
    logits: Tensor,
    token_bitmask: Tensor,
    mask_ids: Tensor | None = None,
    *,
    status: Tensor | None = None,
) -> None:
    """Set the logits of tokens that are not allowed to ``-inf``, in place.

    Reference: ``lmx.vocab.reference.mask_apply_``.
    """
    forbid_grad("lmx.vocab.mask_apply_", logits)
    torch.ops.lmx.vocab_mask_apply_(logits, token_bitmask, mask_ids, status)
    written(logits)


def mask_from_bool(allowed: Tensor) -> Tensor:
    """Pack bool ``[num_rows, vocab_size]`` into a bitmask; bits past ``vocab_size`` are 0.

    Reference: ``lmx.vocab.reference.mask_from_bool``.
    """
    return torch.ops.lmx.vocab_mask_from_bool(allowed)


def mask_to_bool(token_bitmask: Tensor, vocab_size: int) -> Tensor:
    """Unpack a bitmask into bool ``[num_rows, vocab_size]``.

    Reference: ``lmx.vocab.reference.mask_to_bool``.
    """
    return torch.ops.lmx.vocab_mask_to_bool(token_bitmask, vocab_size)


def mask_and_(token_bitmask: Tensor, other: Tensor) -> None:
    """Intersect with ``other``, of the same shape, in place.

    Reference: ``lmx.vocab.reference.mask_and_``.
    """
    torch.ops.lmx.vocab_mask_and_(token_bitmask, other)
    written(token_bitmask)


def mask_or_(token_bitmask: Tensor, other: Tensor) -> None:
    """Unite with ``other``, of the same shape, in place.

    Reference: ``lmx.vocab.reference.mask_or_``.
    """
    torch.ops.lmx.vocab_mask_or_(token_bitmask, other)
    written(token_bitmask)


def mask_popcount(token_bitmask: Tensor, vocab_size: int = -1) -> Tensor:
    """Count the allowed tokens below ``vocab_size`` (-1: all bits). Returns int32 ``[num_rows]``.

    Reference: ``lmx.vocab.reference.mask_popcount``.
    """
    return torch.ops.lmx.vocab_mask_popcount(token_bitmask, vocab_size)


def mask_gather(
    pool: Tensor, mask_ids: Tensor, vocab_size: int = -1, *, status: Tensor | None = None
) -> Tensor:
    """Rows of a pool of masks as a bitmask.

    Args:
        pool: int32 ``[num_masks, mask_words]``.
        mask_ids: int32 ``[num_rows]``; -1 = all tokens below ``vocab_size`` (-1: all bits).
        vocab_size: number of tokens.
        status: receives a bit for a bad id, whose row is zeros.

    Returns:
        int32 ``[num_rows, mask_words]``.

    Reference: ``lmx.vocab.reference.mask_gather``.
    """
    return torch.ops.lmx.vocab_mask_gather(pool, mask_ids, vocab_size, status)
