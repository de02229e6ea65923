"""What decoding returns."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["length", "stop", "eos", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probabilities of a position under the model alone: no temperature, penalty or mask."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most likely tokens, best first


@dataclass(slots=True, kw_only=True)
class Stats:
    """What a request took."""

    prompt_tokens: int = 0
    tokens: int = 0  # generated
    steps: int = 0  # passes of the model that generated tokens
    seconds: float = 0.0  # from the first chunk of the prompt to the end
    decode_seconds: float = 0.0  # of them, from the first generated token on
    mask_time: float = 0.0  # seconds of them spent in the constraint
    layers_run: int = 0  # over all passes, the prompt's included
    pages: int = 0  # most that it held at a time, shared ones included
    preemptions: int = 0  # how often its pages were swapped out for an older request
    prefix_tokens: int = 0  # of the prompt, found in pages: of earlier prompts, or of a fork
    drafter: str | None = None
    nodes: int = 0  # of draft trees that were verified, roots included; 0 without a drafter
    draft_faults: int = 0  # illegal trees, each of which cost a plain step

    @property
    def mean_accepted(self) -> float:
        """Return the tokens per generating pass: 1 without a drafter."""
        return self.tokens / self.steps if self.steps else 0.0

    @property
    def mean_nodes(self) -> float:
        """Return the nodes per generating pass."""
        return self.nodes / self.steps if self.steps else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Return the generated tokens per second, the time for the prompt included."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(slots=True, kw_only=True)
class EngineStats:
    """What an engine has done so far, and how its page pool stands."""

    steps: int = 0
    seconds: float = 0.0  # spent in them
    prompt_tokens: int = 0  # run through the model
    tokens: int = 0  # generated
    preemptions: int = 0
    prefix_tokens: int = 0  # prompt tokens that were found in pages instead of being run
    running: int = 0  # requests that hold pages or a place in the batch
    waiting: int = 0
    pages: int = 0  # of the pool
    pages_free: int = 0  # neither a request's nor kept for the prompts to come
    most_pages: int = 0  # that were not free at the end of any step

    @property
    def tokens_per_s(self) -> float:
        """Return the generated tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The answer to one prompt.

    ``finish_reason`` is "eos" after one of the model's end tokens, "stop" after a stop string,
    "length" when ``max_new_tokens`` or the model's positions have run out, and "error" when
    ``error`` says what went wrong; tokens and text then hold what came before.
    """

    tokens: list[int]  # all generated tokens, the end token and those of a stop string included
    text: str  # ends before the stop string; "" if the model has no tokenizer
    finish_reason: FinishReason
    error: str | None = None
    logprobs: list[TokenLogprob] | None = None  # one per token, if asked for
    stats: Stats = field(default_factory=Stats)
