"""``score``: how likely a model finds given texts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import vocab
from ..protocols import LayeredModel
from .checks import prompt_fault, require
from .forward import Runner, chains, chunk_end
from .options import Prompt
from .pages import new_cache, pages_for
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
    if scores:
        longest = max(map(len, encoded))
        runner = Runner(model, new_cache(model, 1, pages_for(longest)))
        for tokens, out in zip(encoded, scores, strict=True):
            _score_into(out, runner, tokens)
    return scores


@torch.inference_mode()
def _score_into(scores: Tensor, runner: Runner, tokens: list[int]) -> None:
    """Fill ``scores``, a tensor from outside of inference mode, which callers may do more with."""
    model, cache = runner.model, runner.cache
    sequence, start = cache.create(), 0
    [row] = cache.rows([sequence])
    targets = torch.tensor(tokens[1:], device=model.device)
    while start < scores.numel():
        end = chunk_end(start, scores.numel())
        rows = chains([(row, start, tokens[start:end])], runner.num_rows, start, model.device)
        fresh = runner.forward(rows)
        for block in range(start, end, _BLOCK):
            part = slice(block, min(block + _BLOCK, end))
            logits = model.norm_head(fresh.hidden[part.start - start : part.stop - start])
            scores[part] = vocab.logprobs(logits, targets[part])
        runner.commit(fresh, cache.append([sequence], [end - start]))
        start = end
    cache.free(sequence)
