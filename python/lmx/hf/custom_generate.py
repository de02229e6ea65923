"""``model.generate(..., custom_generate=lmx.hf.generate)``: the decode loop as a drop-in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..decode.checks import require, status_fault
from ..decode.forward import GRID, Runner, chains, chunk_end
from ..decode.pages import new_cache, pages_for
from ..decode.sampling import Sampling, branches, draw, fetch
from ..models import load
from ..protocols import LayeredModel

_MOST_TOKENS = 4 * GRID  # of a pass, one chunk apart


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
    prompts = [ids[pad:].tolist() for ids, pad in zip(input_ids, padding, strict=True)]
    batch = _Batch(layered, prompts, longest, samplings)
    pad_token = generation_config._pad_token_tensor
    return _decode(batch, input_ids, logits_processor, stopping_criteria, pad_token, token_streamer)


def _decode(
    batch: "_Batch",
    input_ids: Tensor,
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    stopping_criteria: Any,
    pad_token: Any,
    streamer: Any,
) -> Tensor:
    # Transformers' own test: without such a criterion it goes on with rows that have ended.
    has_eos = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    if streamer is not None:
        streamer.put(input_ids.cpu())
    while bool(unfinished.any()):
        is_running = unfinished.tolist()
        batch.advance([i for i, runs in enumerate(is_running) if runs or not has_eos])
        # A copy made outside of inference mode: a processor may change its scores in place.
        scores = logits_processor(input_ids, batch.logits.clone())
        tokens = batch.choose(scores, is_running).to(input_ids.device)
        if has_eos:
            tokens = torch.where(unfinished, tokens, pad_token)
        input_ids = torch.cat((input_ids, tokens[:, None]), dim=1)
        batch.append(tokens.tolist())
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        if streamer is not None:
            streamer.put(tokens.cpu())
    if streamer is not None:
        streamer.end()
    return input_ids


class _Batch:
    """The rows of a batch as sequences in pages."""

    def __init__(
        self,
        model: LayeredModel,
        prompts: list[list[int]],
        longest: int,
        samplings: Sequence[Sampling],
    ) -> None:
        """Take prompts without padding, and the most tokens that a row may come to have."""
        cache = new_cache(model, len(prompts), len(prompts) * pages_for(longest))
        self.logits = torch.zeros(len(prompts), model.vocab_size, device=model.device)
        self._runner = Runner(model, cache)
        self._tokens, self._samplings = prompts, samplings
        self._handles = [cache.create() for _ in prompts]
        self._rows = cache.rows(self._handles)
        self._cached = [0] * len(prompts)

    def append(self, tokens: Sequence[int]) -> None:
        """Add the next token of each row."""
        for known, token in zip(self._tokens, tokens, strict=True):
            known.append(token)

    @torch.inference_mode()
    def advance(self, rows: Sequence[int]) -> None:
        """Bring ``logits`` of these rows up to their newest tokens, prompts chunk by chunk."""
        left = sorted(rows, key=self._rows.__getitem__)
        while left := [i for i in left if self._cached[i] < len(self._tokens[i])]:
            chosen: list[int] = []
            num_tokens = 0
            for i in left:
                num_tokens += chunk_end(self._cached[i], len(self._tokens[i])) - self._cached[i]
                if chosen and num_tokens > _MOST_TOKENS:
                    break
                chosen.append(i)
            self._run(chosen)

    def choose(self, scores: Tensor, is_running: Sequence[bool]) -> Tensor:
        """Choose a token for each row; only one that is running must have a choice."""
        base_pos = [len(known) - 1 for known in self._tokens]
        tokens, status = fetch(*draw(scores, None, self._samplings, base_pos))
        for i, (token, bits) in enumerate(zip(tokens, status, strict=True)):
            got = status_fault(bits) or "none to choose"
            has_choice = token >= 0 or not is_running[i]
            require(has_choice, f"scores of row {i}", "a finite one and no NaN", got)
        chosen = torch.tensor(tokens)
        # What argmax makes of a row without a choice is what Transformers goes on with.
        is_whole = min(tokens) >= 0
        return chosen if is_whole else torch.where(chosen < 0, scores.argmax(-1).cpu(), chosen)

    def _run(self, chosen: Sequence[int]) -> None:
        """Run the next chunk, or the newest token, of each of these rows."""
        runner, cache = self._runner, self._runner.cache
        ends = [chunk_end(self._cached[i], len(self._tokens[i])) for i in chosen]
        counts = [end - self._cached[i] for i, end in zip(chosen, ends, strict=True)]
        parts = [
            (self._rows[i], self._cached[i], self._tokens[i][self._cached[i] : end])
            for i, end in zip(chosen, ends, strict=True)
        ]
        device = runner.model.device
        fresh = runner.forward(chains(parts, runner.num_rows, max(self._cached), device))
        last = torch.tensor(counts, device=device).cumsum(0) - 1
        is_last = [end == len(self._tokens[i]) for i, end in zip(chosen, ends, strict=True)]
        done = [i for i, ends_here in zip(chosen, is_last, strict=True) if ends_here]
        if done:
            hidden = fresh.hidden[last[torch.tensor(is_last, device=device)]]
            self.logits[done] = runner.model.norm_head(hidden)
        handles = [self._handles[i] for i in chosen]
        runner.commit(fresh, cache.append(handles, counts))
        for i, end in zip(chosen, ends, strict=True):
            self._cached[i] = end


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
