"""Row operations over the vocabulary: masks, softmax, argmax, draws, log-probabilities."""

from . import fakes  # noqa: F401  (registers them)
from .ops import (
    argmax,
    logprobs,
    lse,
    mask_and_,
    mask_apply_,
    mask_from_bool,
    mask_gather,
    mask_or_,
    mask_popcount,
    mask_to_bool,
    sample,
    softmax,
    uniform,
)

__all__ = [
    "argmax",
    "logprobs",
    "lse",
    "mask_and_",
    "mask_apply_",
    "mask_from_bool",
    "mask_gather",
    "mask_or_",
    "mask_popcount",
    "mask_to_bool",
    "sample",
    "softmax",
    "uniform",
]
