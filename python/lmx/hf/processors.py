"""Edits of a distribution in Transformers' form: ``(input_ids, scores) -> scores``."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from .. import vocab
from ..decode.infgram import InfgramMix
from ..decode.options import Processor


class LogitsProcessor(ABC):
    """Base of processors: a subclass overrides ``edit``, which owns the scores that it is given.

    ``scores`` themselves are never modified, so Transformers may keep them.
    """

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return edited scores.

        Args:
            input_ids: ``[B, T]``, int64, prompt and answer so far, padding included.
            scores: ``[B, V]``, left unchanged.
        """
        return self.edit(input_ids, scores.clone())

    @abstractmethod
    def edit(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the edited ``scores [B, V]``; changing them in place is fine."""


class VocabMask(LogitsProcessor):
    """Allows a fixed set of tokens."""

    def __init__(self, token_bitmask: Tensor) -> None:
        """Take the set.

        Args:
            token_bitmask: ``[B, ceil(V / 32)]``, int32, a row per sequence, or ``[1, ...]`` for
                all; bit j of word i allows token 32 i + j (``lmx.vocab.mask_from_bool``).
        """
        if token_bitmask.dtype != torch.int32 or token_bitmask.dim() != 2:
            got = f"{token_bitmask.dtype} {list(token_bitmask.shape)}"
            raise ValueError(f"token_bitmask: expected int32 [B, ceil(V / 32)], got {got}")
        self._token_bitmask = token_bitmask

    def edit(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores of all other tokens to -inf."""
        bitmask = self._token_bitmask.to(scores.device)
        vocab.mask_apply_(scores, bitmask.expand(scores.shape[0], -1).contiguous())
        return scores


class InfgramLogitsProcessor(LogitsProcessor):
    """Mixes each row with an n-gram index: ``lmx.decode.InfgramMix`` in Transformers' form."""

    def __init__(self, mix: InfgramMix) -> None:
        """Take the index and the weights."""
        self._mix = mix

    def edit(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the mixture."""
        return self._mix.rows(input_ids, scores).to(scores.dtype)


def as_processor(processor: Callable[[Tensor, Tensor], Tensor]) -> Processor:
    """Turn a processor of Transformers' form into one for ``lmx.generate(processors=[...])``."""

    def process(tokens: Tensor, logits: Tensor) -> Tensor:
        return processor(tokens[None], logits[None])[0]

    process.__name__ = type(processor).__name__
    return process
