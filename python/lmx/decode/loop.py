"""``generate``: answer a list of prompts."""

from collections.abc import Iterable, Sequence

from ..grammar import Grammar
from ..protocols import Constraint, DepthPolicy, Drafter, EvictionPolicy, LayeredModel
from .checks import require, require_int
from .engine import Engine
from .generation import Generation
from .options import Processor, Prompt, Stream
from .pages import enough_pages
from .prompt import encode
from .sampling import GREEDY, Sampling

_MAX_SEQS = 16  # answers decoded at a time


def generate(
    model: LayeredModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 128,
    drafter: Drafter | str | None = None,
    cache: EvictionPolicy | str | None = None,
    constraint: Constraint | Grammar | str | None = None,
    depth: DepthPolicy | str | None = None,
    sampling: Sampling | Sequence[Sampling] = GREEDY,
    processors: Iterable[Processor] = (),
    stop: str | Iterable[str] = (),
    stream: Stream | None = None,
) -> list[Generation]:
    """Answer prompts.

    Args:
        model: the model.
        prompts: each one is text, a list of token ids, or a list of chat messages.
        max_new_tokens: tokens to generate at most.
        drafter: proposes tokens; see ``Engine``.
        cache: eviction policy; none is built in yet.
        constraint: what may be generated: a ``Constraint``, a ``Grammar``, or a short string,
            ``"json"``, ``"regex:PATTERN"`` or ``"ebnf:FILE"``.
        depth: layers to skip; no policy is built in yet.
        sampling: how tokens are chosen, for all prompts or one for each; the default is greedy.
        processors: ``(tokens [T], logits [V]) -> logits [V]``, called in turn at every token.
        stop: strings at which an answer ends.
        stream: called as ``stream(index, piece)`` whenever more text is certain.

    Returns:
        One answer per prompt, ``sampling.n`` adjacent ones where n is above 1. A request that
        fails has ``finish_reason == "error"``; the others go on.

    Raises:
        ValueError: an option is wrong, or not built in yet.
    """
    require(not isinstance(prompts, str), "prompts", "a list of prompts", prompts)
    require_int("max_new_tokens", max_new_tokens, 1)
    settings = _one_per_prompt(sampling, len(prompts))
    encoded = [encode(model, prompt) for prompt in prompts]
    lengths = [len(tokens) + max_new_tokens for tokens in encoded]
    repeated = [n for n, s in zip(lengths, settings, strict=True) for _ in range(s.n)]
    max_seqs = min(_MAX_SEQS, max(1, len(repeated)))
    engine = Engine(
        model,
        max_new_tokens=max_new_tokens,
        drafter=drafter,
        cache=cache,
        constraint=constraint,
        depth=depth,
        processors=processors,
        stop=stop,
        stream=stream,
        max_seqs=max_seqs,
        num_pages=enough_pages(model, repeated, max_seqs),
    )
    for tokens, sampling_of_one in zip(encoded, settings, strict=True):
        engine.add(tokens, sampling=sampling_of_one)
    while engine.num_unfinished:
        engine.step()
    return list(dict(sorted(engine.finished().items())).values())


def _one_per_prompt(sampling: Sampling | Sequence[Sampling], count: int) -> list[Sampling]:
    if isinstance(sampling, Sampling):
        return [sampling] * count
    is_list = isinstance(sampling, Sequence)
    require(is_list, "sampling", "a Sampling, or one per prompt", sampling)
    require(len(sampling) == count, "sampling", f"{count} settings", len(sampling))
    for settings in sampling:
        require(isinstance(settings, Sampling), "sampling", "a Sampling", settings)
    return list(sampling)
