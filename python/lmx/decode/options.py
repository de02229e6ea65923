"""The options of a request, and one clear error for those whose room is not built yet."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

from torch import Tensor

from ..grammar import Grammar
from ..grammar.constraint import for_model
from ..protocols import Constraint, FullDepth, KeepAll, LayeredModel
from .checks import require, require_int
from .sampling import GREEDY, Sampling

# processor(tokens [T] of prompt and answer so far, logits [V] float32) -> logits [V]
Processor: TypeAlias = Callable[[Tensor, Tensor], Tensor]
# stream(index, piece): which answer (in an Engine: the id of the request), and more of its text
Stream: TypeAlias = Callable[[int, str], object]
# "text", [token, ...] or [{"role": ..., "content": ...}, ...]
Prompt: TypeAlias = str | Sequence[int] | Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may differ from request to request."""

    max_new_tokens: int = 128
    sampling: Sampling = GREEDY
    constraint: Constraint | Grammar | str | None = None
    processors: Iterable[Processor] = ()
    stop: str | Iterable[str] = ()
    stream: Stream | None = None

    def __post_init__(self) -> None:
        """Make tuples of what may be iterators: they are read more than once."""
        object.__setattr__(self, "processors", _as_tuple("processors", self.processors))
        if not isinstance(self.stop, str):
            object.__setattr__(self, "stop", _as_tuple("stop", self.stop))

    def for_model(self, model: LayeredModel) -> "Options":
        """Return the same options with a constraint given otherwise compiled for the model.

        Raises:
            ValueError: the text is no constraint, or the model has no tokenizer.
            GrammarError, OSError: its grammar is wrong, or its file cannot be read.
        """
        is_schema = hasattr(self.constraint, "model_json_schema")  # a pydantic model
        if not is_schema and not isinstance(self.constraint, str | Grammar):
            return self
        return replace(self, constraint=for_model(self.constraint, model))

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Return the stop strings, one or many."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def check(self, model: LayeredModel) -> None:
        """Raise ValueError if an option is wrong in itself or for the model."""
        require_int("max_new_tokens", self.max_new_tokens, 1)
        require(isinstance(self.sampling, Sampling), "sampling", "a Sampling", self.sampling)
        for token in self.sampling.logit_bias:
            require_int("logit_bias: token", token, 0, model.vocab_size - 1)
        require_int("logprobs", self.sampling.logprobs or 0, 0, model.vocab_size)
        fits = self.constraint is None or hasattr(self.constraint, "start")
        require(fits, "constraint", "a Constraint", self.constraint)
        for text in self.stop_strings:
            require(isinstance(text, str) and text != "", "stop", "non-empty strings", text)
        for processor in self.processors:
            require(callable(processor), "processors", "callables", processor)
        require(self.stream is None or callable(self.stream), "stream", "a callable", self.stream)
        if model.tokenizer is None:
            expected = "none for a model without tokenizer"
            require(not self.stop_strings, "stop", expected, self.stop)
            require(self.stream is None, "stream", expected, self.stream)


def _as_tuple(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    require(isinstance(values, Iterable), name, "a list", values)
    return tuple(values)


def refuse_unbuilt(cache: object, depth: object) -> None:
    """Raise ValueError if an option asks for more than its neutral default."""
    if cache is not None and not isinstance(cache, KeepAll):
        refuse("cache", cache, "no eviction policy", "kvcache")
    if depth is not None and not isinstance(depth, FullDepth):
        refuse("depth", depth, "no depth policy", "layerskip")


def refuse(name: str, value: object, missing: str, room: str) -> NoReturn:
    """Raise the one error of options whose room is not built."""
    raise ValueError(f"{name}={value!r}: {missing} is built in yet; it comes with lmx.{room}")
