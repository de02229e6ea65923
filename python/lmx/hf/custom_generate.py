"""``model.generate(..., custom_generate=lmx.hf.generate)``: the decode loop as a drop-in."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..decode.cache import KVBuffer
from ..decode.checks import require, status_fault
from ..decode.forward import chunk_end, forward
from ..decode.sampling import Sampling, branches, draw
from ..models import load
from ..protocols import LayeredModel


def generate(
    model: Any,
    input_ids: Tensor,
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    stopping_criteria: Any,
    generation_config: Any,
    seed: int = 0,
    token_streamer: Any = None,
    **model_kwargs: Any,
) -> Tensor:
    """Decode as ``model.generate`` does, greedily or sampled.

    ::

        model.generate(**inputs, custom_generate=lmx.hf.generate, do_sample=True, seed=7)

    Logits processors (temperature, top-k and the like among them, which Transformers turns into
    processors) and stopping criteria are called on the whole batch, as Transformers calls them.
    Sampling draws from the processed scores with lmx's random numbers: row b of the batch uses
    branch b of ``seed``, so a call repeats itself and does not depend on torch's generator.

    Args:
        model: a Transformers model of a class that ``lmx.load`` knows.
        input_ids: ``[B, T]``; padding is on the left, as the attention mask says.
        logits_processor: ``(input_ids, scores) -> scores``.
        stopping_criteria: ``(input_ids, scores) -> [B]`` bool; its ``scores`` are None.
        generation_config: greedy search or sampling; what cannot be honoured is refused.
        seed: selects the random numbers.
        token_streamer: a Transformers streamer; ``generate``'s own argument ``streamer`` does
            not reach a callable.
        **model_kwargs: what Transformers prepared for the model.

    Returns:
        ``[B, T + new]`` token ids; rows that have ended are filled up with the padding token.

    Raises:
        ValueError: a setting cannot be honoured, padding is not on the left, the model's
            positions would run out, or a row that has not ended may take no token.
    """
    _refuse_unknown(generation_config, model_kwargs)
    padding = _left_padding(input_ids, model_kwargs)
    layered = load(model)
    longest = generation_config.max_length - min(padding)
    expected = f"at most {layered.max_positions} positions, prompt included"
    require(longest <= layered.max_positions, "max_length", expected, longest)
    samplings = [Sampling()] * len(padding)
    if generation_config.do_sample:
        samplings = branches(Sampling(temperature=1.0, seed=seed, n=len(padding)))
    rows = [
        _Row(layered, ids[pad:], sampling)
        for ids, pad, sampling in zip(input_ids, padding, samplings, strict=True)
    ]
    pad_token = generation_config._pad_token_tensor
    return _decode(rows, input_ids, logits_processor, stopping_criteria, pad_token, token_streamer)


def _decode(
    rows: "list[_Row]",
    input_ids: Tensor,
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    stopping_criteria: Any,
    pad_token: Any,
    streamer: Any,
) -> Tensor:
    # Transformers' own test: without such a criterion it goes on with rows that have ended.
    has_eos = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    unfinished = torch.ones(len(rows), dtype=torch.bool, device=input_ids.device)
    if streamer is not None:
        streamer.put(input_ids.cpu())
    while bool(unfinished.any()):
        for row, is_running in zip(rows, unfinished.tolist(), strict=True):
            if is_running or not has_eos:
                row.advance()
        # Stacked outside of inference mode, so that a processor may change its scores in place.
        scores = logits_processor(input_ids, torch.stack([row.logits for row in rows]))
        tokens = _choose(scores, rows, unfinished.tolist()).to(input_ids.device)
        if has_eos:
            tokens = torch.where(unfinished, tokens, pad_token)
        input_ids = torch.cat((input_ids, tokens[:, None]), dim=1)
        for row, token in zip(rows, tokens, strict=True):
            row.pending = token[None].to(row.logits.device)
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        if streamer is not None:
            streamer.put(tokens.cpu())
    if streamer is not None:
        streamer.end()
    return input_ids


def _choose(scores: Tensor, rows: "list[_Row]", unfinished: list[bool]) -> Tensor:
    """Choose a token for each row; only one that is unfinished must have a choice."""
    settings, base_pos = [row.sampling for row in rows], [row.base_pos for row in rows]
    tokens, status = draw(scores, None, settings, base_pos)
    for i, (token, bits) in enumerate(zip(tokens, status, strict=True)):
        got = status_fault(bits) or "none to choose"
        has_choice = token >= 0 or not unfinished[i]
        require(has_choice, f"scores of row {i}", "a finite one and no NaN", got)
    chosen = torch.tensor(tokens)
    # What argmax makes of a row without a choice is what Transformers goes on with.
    return chosen if min(tokens) >= 0 else torch.where(chosen < 0, scores.argmax(-1).cpu(), chosen)


class _Row:
    """One sequence of the batch."""

    def __init__(self, model: LayeredModel, tokens: Tensor, sampling: Sampling) -> None:
        self.sampling = sampling
        self._model = model
        self._cache = KVBuffer(model)
        self.pending = tokens.to(model.device)  # not in the cache yet
        self.logits: Tensor  # [V], float32, after the pending tokens

    @property
    def base_pos(self) -> int:
        """Return the position of the token that ``logits`` follow."""
        return self._cache.length - 1

    @torch.inference_mode()
    def advance(self) -> None:
        """Run the pending tokens, in chunks if they are a long prompt."""
        length = self._cache.length + self.pending.numel()
        while self._cache.length < length:
            end = chunk_end(self._cache.length, length)
            chunk, self.pending = self.pending.tensor_split([end - self._cache.length])
            hidden = forward(self._model, self._cache, chunk)
            self._cache.commit(chunk.numel())
        self.logits = self._model.norm_head(hidden[-1:])[0]


def _left_padding(input_ids: Tensor, model_kwargs: Mapping[str, Any]) -> list[int]:
    """Return how many padding tokens each row starts with."""
    mask = model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask.long()
    require(mask.shape == input_ids.shape, "attention_mask", str(input_ids.shape), mask.shape)
    is_bad = (mask.diff(dim=1) < 0).any(dim=1) | (mask[:, -1] != 1)
    bad_rows = is_bad.nonzero()[:, 0].tolist()
    require(not bad_rows, "attention_mask", "zeros on the left only", f"others in rows {bad_rows}")
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
    given = model_kwargs.get("position_ids")
    is_plain = given is None or bool((given == positions).all())
    require(is_plain, "position_ids", "0, 1, 2, ... of each row's tokens", "others")
    return (mask == 0).sum(-1).tolist()


def _refuse_unknown(generation_config: Any, model_kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that would otherwise be ignored."""
    mode = str(generation_config.get_generation_mode().value)
    require(mode in ("greedy_search", "sample"), "generation mode", "greedy_search or sample", mode)
    for name in ("return_dict_in_generate", "cache_implementation"):
        value = getattr(generation_config, name, None)
        require(not value, name, "it unset", value)
    cache = model_kwargs.get("cache")
    is_own = cache is None or not getattr(cache, "_is_user_defined", False)
    require(is_own, "cache", "none: lmx keeps its own", type(cache).__name__)
    honoured = {"attention_mask", "position_ids", "cache", "use_cache", "logits_to_keep"}
    unknown = [k for k, v in model_kwargs.items() if k not in honoured and v is not None]
    require(not unknown, "model_kwargs", f"only {sorted(honoured)}", unknown)
