"""``score``: how likely a model finds given texts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import vocab
from ..protocols import LayeredModel
from .cache import KVBuffer
from .checks import prompt_fault, require
from .forward import chunk_end, forward
from .options import Prompt
from .prompt import encode

_BLOCK = 256  # rows of logits that exist at a time


def score(model: LayeredModel, texts: Sequence[Prompt]) -> list[Tensor]:
    """Return the log-probability of every token but the first, given those before it.

    Args:
        model: the model.
        texts: each one is text, a list of token ids, or a list of chat messages.

    Returns:
        One tensor ``[num_tokens - 1]``, float32, per text; natural logarithms.

    Raises:
        ValueError: a text is empty, longer than the model's positions, or holds a token outside
            the vocabulary.
    """
    require(not isinstance(texts, str), "texts", "a list of texts", texts)
    encoded = [encode(model, text) for text in texts]
    for i, tokens in enumerate(encoded):
        if fault := prompt_fault(tokens, model.vocab_size, model.max_positions):
            raise ValueError(f"texts[{i}]: {fault}")
    scores = [torch.empty(len(tokens) - 1, device=model.device) for tokens in encoded]
    for tokens, out in zip(encoded, scores, strict=True):
        _score_into(out, model, tokens)
    return scores


@torch.inference_mode()
def _score_into(scores: Tensor, model: LayeredModel, tokens: list[int]) -> None:
    """Fill ``scores``, a tensor from outside of inference mode, which callers may do more with."""
    cache, ids = KVBuffer(model), torch.tensor(tokens, device=model.device)
    while cache.length < scores.numel():
        start, end = cache.length, chunk_end(cache.length, scores.numel())
        hidden = forward(model, cache, ids[start:end])
        for block in range(start, end, _BLOCK):
            rows = slice(block, min(block + _BLOCK, end))
            logits = model.norm_head(hidden[rows.start - start : rows.stop - start])
            scores[rows] = vocab.logprobs(logits, ids[1:][rows])
        cache.commit(end - start)
