"""The decode loop: requests come and go, every step takes each of them one token further."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import vocab
from ..grammar import Grammar
from ..protocols import Constraint, DepthPolicy, Drafter, EvictionPolicy, LayeredModel
from .checks import require_int, status_fault
from .generation import Generation
from .options import Options, Processor, Prompt, Stream, refuse_unbuilt
from .prompt import encode
from .request import Request, RequestFault
from .sampling import GREEDY, Sampling, draw


class _Row(NamedTuple):
    """A request whose next token is to be chosen."""

    request: Request
    logits: Tensor  # [V], of the model
    edited: Tensor  # [V], what the token is chosen from
    mask: Tensor | None  # [1, ceil(V / 32)]


class Engine:
    """Decodes requests that may be added at any time.

    ::

        engine = Engine(model)
        first = engine.add("Once upon a time")
        while engine.num_unfinished:
            engine.step()
        print(engine.finished()[first].text)

    What a request gets depends on the request alone: not on the others, nor on when it came.
    """

    def __init__(
        self,
        model: LayeredModel,
        *,
        max_new_tokens: int = 128,
        drafter: Drafter | str | None = None,
        cache: EvictionPolicy | str | None = None,
        constraint: Constraint | Grammar | str | None = None,
        depth: DepthPolicy | str | None = None,
        sampling: Sampling = GREEDY,
        processors: Iterable[Processor] = (),
        stop: str | Iterable[str] = (),
        stream: Stream | None = None,
        max_seqs: int = 16,
        num_pages: int | None = None,
    ) -> None:
        """Set what holds for all requests; ``add`` may change most of it for one.

        Args:
            model: the model.
            max_new_tokens: tokens to generate at most.
            drafter: no drafter is built in yet.
            cache: eviction policy; none is built in yet.
            constraint: what may be generated: a ``Constraint``, a ``Grammar``, or a short string,
                ``"json"``, ``"regex:PATTERN"`` or ``"ebnf:FILE"``.
            depth: layers to skip; no policy is built in yet.
            sampling: how tokens are chosen.
            processors: ``(tokens [T], logits [V]) -> logits [V]``, called in turn at every token
                with the tokens of prompt and answer; they own the row they are given.
            stop: strings at which an answer ends.
            stream: called as ``stream(id, piece)`` whenever more text is certain.
            max_seqs: requests decoded at a time; the others wait.
            num_pages: size of the page pool; none is built in yet.

        Raises:
            ValueError: an option is wrong, or not built in yet.
        """
        refuse_unbuilt(drafter, cache, depth, num_pages)
        require_int("max_seqs", max_seqs, 1)
        self._model = model
        self._max_seqs = max_seqs
        self._options = Options(
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            constraint=constraint,
            processors=processors,
            stop=stop,
            stream=stream,
        )
        self._options = self._options.for_model(model)
        self._options.check(model)
        self._num_added = 0
        self._requests: list[Request] = []  # by arrival; the first max_seqs are decoded
        self._finished: dict[int, Generation] = {}

    @property
    def num_unfinished(self) -> int:
        """Return how many requests are waiting or being decoded."""
        return len(self._requests)

    def add(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int | None = None,
        constraint: Constraint | Grammar | str | None = None,
        sampling: Sampling | None = None,
        processors: Iterable[Processor] | None = None,
        stop: str | Iterable[str] | None = None,
        stream: Stream | None = None,
    ) -> int:
        """Add a request; options that are None are the engine's.

        Returns:
            Its id: 0, 1, 2, ... An empty prompt, one longer than the model's positions or with a
            token outside the vocabulary makes a request that ends with an error.

        Raises:
            ValueError: an option is wrong, or the prompt is not text, tokens or chat messages.
        """
        given: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "constraint": constraint,
            "sampling": sampling,
            "processors": processors,
            "stop": stop,
            "stream": stream,
        }
        options = replace(self._options, **{k: v for k, v in given.items() if v is not None})
        options = options.for_model(self._model)
        options.check(self._model)
        request = Request(self._model, self._num_added, encode(self._model, prompt), options)
        self._requests.append(request)
        self._num_added += 1
        return request.index

    @torch.inference_mode()
    def step(self) -> None:
        """Take every request one chunk of its prompt or one token further.

        An exception raised by a ``stream`` callable, and Ctrl-C, reach the caller; the next call
        goes on where this one was left.
        """
        active = self._requests[: self._max_seqs]
        rows: list[_Row] = []
        for request in active:
            with _isolate(request):
                if request.finish_reason is None and (logits := request.advance()) is not None:
                    rows.append(_Row(request, logits, *request.law(logits)))
        if rows:
            self._choose(rows)
        for request in active:
            request.deliver()
        done = [request for request in active if request.finish_reason is not None]
        self._finished.update((request.index, request.generation()) for request in done)
        self._requests = [r for r in self._requests if r.finish_reason is None]

    def finished(self) -> dict[int, Generation]:
        """Hand over the answers that have been finished since the last call, by id."""
        finished, self._finished = self._finished, {}
        return finished

    def _choose(self, rows: Sequence[_Row]) -> None:
        """Choose the next token of each row."""
        tokens, status = draw(
            torch.stack([row.edited for row in rows]),
            self._stack_masks([row.mask for row in rows]),
            [row.request.options.sampling for row in rows],
            [row.request.base_pos for row in rows],
        )
        for row, token, bits in zip(rows, tokens, status, strict=True):
            with _isolate(row.request):
                if bits:
                    raise RequestFault(f"no token can be drawn: {status_fault(bits)}")
                row.request.accept(token, row.logits)

    def _stack_masks(self, masks: Sequence[Tensor | None]) -> Tensor | None:
        """Return one bitmask for all rows, or None if no row has one."""
        if all(mask is None for mask in masks):
            return None
        shape, device = (1, self._model.vocab_size), self._model.device
        everything = vocab.mask_from_bool(torch.ones(shape, dtype=torch.bool, device=device))
        return torch.cat([everything if mask is None else mask for mask in masks])


@contextmanager
def _isolate(request: Request) -> Iterator[None]:
    """Let a fault end ``request`` alone."""
    try:
        yield
    except RequestFault as fault:
        request.fail(str(fault))
