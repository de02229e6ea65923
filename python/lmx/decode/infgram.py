"""An n-gram index as a second opinion at every token: infinity-gram interpolation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ngram, vocab
from ..ngram import Index


@dataclass(frozen=True, kw_only=True)
class InfgramMix:
    """Mixes a model's distribution with the index's: ``lam P + (1 - lam) softmax(logits)``.

    An edit for ``lmx.generate(processors=[...])``: ``(tokens [T], logits [V]) -> logprobs [V]``.
    The weight is ``lam_sparse`` where one token follows the longest suffix of the context that the
    index holds, ``lam_dense`` where more do, and 0 where that suffix is shorter than
    ``min_suffix_len``. Tune both with ``lmx.ngram.tune_lambda``: the paper does, and prints none.
    It warns that mixing does not help, and may hurt, open-ended generation.

    Source: infini-gram (arXiv 2401.17377), section 5.
    """

    index: Index
    lam_sparse: float = 0.3
    lam_dense: float = 0.1
    min_suffix_len: int = 0
    max_len: int = 0  # of a suffix; 0 = no bound
    min_count: int = 1

    def __post_init__(self) -> None:
        for name in ("lam_sparse", "lam_dense"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"InfgramMix: expected {name} in [0, 1], got {getattr(self, name)}"
                )
        if min(self.min_suffix_len, self.max_len) < 0 or self.min_count < 1:
            raise ValueError("InfgramMix: expected min_suffix_len, max_len >= 0, min_count >= 1")

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Return log-probabilities ``[V]`` for the token behind ``tokens [T]``."""
        return self.rows(tokens[None], logits[None])[0]

    def rows(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """The same for rows: ``[B, T]`` and ``[B, V]`` give ``[B, V]``, float32."""
        context = tokens[:, -self.max_len :] if self.max_len else tokens
        offsets = torch.arange(len(context) + 1) * context.shape[1]
        lenient = Index(self.index.tensors, strict=False)  # a model may know more tokens
        found = lenient.infgram_ntd(
            (context.reshape(-1).to(self.index.device), offsets),
            max_len=self.max_len,
            min_count=self.min_count,
        )
        rows = logits.float()
        device = rows.device
        return ngram.mix(
            rows,
            vocab.lse(rows)[0],
            found.crow.to(device),
            found.tok.to(device),
            found.num.to(device),
            self.lam_sparse,
            self.lam_dense,
            suffix_len=found.suffix_len.to(device),
            min_suffix_len=self.min_suffix_len,
        )
