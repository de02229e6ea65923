"""The decode loop: requests come and go, every step takes each of them further."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from ..grammar import Grammar
from ..protocols import (
    Constraint,
    DepthPolicy,
    Drafter,
    EvictionPolicy,
    LayeredModel,
    NoDrafter,
)
from . import drafters
from .checks import require, require_int
from .drafting import Drafting
from .early_exit import EarlyExit
from .forward import GRID, Runner
from .generation import EngineStats, Generation
from .options import Options, Processor, Prompt, Stream, refuse_unbuilt
from .pages import new_cache
from .prompt import encode
from .request import Request
from .sampling import GREEDY, Sampling, branches
from .scheduler import Scheduler
from .step import Decision, apply, decide


class Engine:
    """Decodes requests that may be added at any time.

    ::

        engine = Engine(model)
        first = engine.add("Once upon a time")
        while engine.num_unfinished:
            engine.step()
        print(engine.finished()[first].text)

    What a request gets depends on the request alone: not on the others, nor on when it came, nor
    on how often it had to make room for them.
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
        max_step_tokens: int = GRID,
    ) -> None:
        """Set what holds for all requests; ``add`` may change most of it for one.

        Args:
            model: the model.
            max_new_tokens: tokens to generate at most.
            drafter: proposes tokens, of which a step may take several: a ``Drafter``, or a short
                string, ``"recycle"``, ``"recycle:16"``, ``"recycle:auto"``, ``"lookup"``,
                ``"early-exit:15"``, or several joined by ``+``. Greedy text is the same.
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
            num_pages: pages of 16 tokens, all layers, that requests share; by default as many as
                ``max_seqs`` requests can fill, but at most half of the memory that is available.
            max_step_tokens: a step runs chunks of prompts (of up to 512 tokens) as long as its
                tokens stay within it, and always one. It changes no answer.

        Raises:
            ValueError: an option is wrong, or not built in yet.
            MemoryError: a page pool of the wanted size does not fit.
        """
        refuse_unbuilt(cache, depth)
        require_int("max_seqs", max_seqs, 1)
        require_int("max_step_tokens", max_step_tokens, 1)
        self._model = model
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
        self._cache = new_cache(model, max_seqs, num_pages)
        self._num_pages = self._cache.num_free_pages
        self._runner = Runner(model, self._cache)
        self._drafting = self._make_drafting(drafter)
        self._scheduler = Scheduler(self._runner, max_step_tokens)
        self._requests: dict[int, Request] = {}  # unfinished, by id
        self._ended: list[Request] = []  # without a part in a step: cancelled, or a bad prompt
        self._finished: dict[int, Generation] = {}
        self._num_added = 0
        self._decided: Decision | None = None  # of a step that was interrupted
        self._stats = EngineStats(pages=self._num_pages)

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

        ``sampling.n`` answers are as many requests with adjacent ids, which share the pages of the
        prompt.

        Returns:
            Its id, or the first of its ids: 0, 1, 2, ... An empty prompt, one longer than the
            model's positions or with a token outside the vocabulary makes a request that ends with
            an error.

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
        tokens, first = encode(self._model, prompt), self._num_added
        leader: Request | None = None
        for branch in branches(options.sampling):
            own = replace(options, sampling=branch)
            request = Request(self._model, self._num_added, tokens, own, leader)
            leader = leader or request
            self._requests[request.index] = request
            self._num_added += 1
            if request.finish_reason is None:
                self._scheduler.waiting.append(request)
            else:
                self._ended.append(request)
        return first

    def cancel(self, index: int) -> None:
        """End a request with the error "cancelled"; its pages are free at once.

        The next ``step`` hands it over, with the tokens it had. Nothing happens if it has ended.

        Raises:
            ValueError: there was never a request of that id.
        """
        require(index in range(self._num_added), "index", "the id of a request", index)
        request = self._requests.get(index)
        if request is not None and request.finish_reason is None:
            request.fail("cancelled")
            self._scheduler.release(request)
            self._ended.append(request)

    @torch.inference_mode()
    def step(self) -> None:
        """Take every running request one chunk of its prompt or one token further.

        An exception raised by a ``stream`` callable, and Ctrl-C, reach the caller; the next call
        goes on where this one was left.
        """
        started = time.perf_counter()
        if self._decided is None:
            self._decided = decide(self._runner, self._scheduler, self._drafting)
        if self._decided is not None:
            apply(self._decided, self._runner, self._scheduler, self._drafting)
            self._decided = None
        self._stats.steps += 1
        self._stats.seconds += time.perf_counter() - started
        in_use = self._num_pages - self._cache.num_free_pages
        self._stats.most_pages = max(self._stats.most_pages, in_use)
        active = [*self._scheduler.running, *self._ended]
        for request in active:
            request.deliver()
        for request in active:
            if request.finish_reason is not None:
                self._hand_over(request)

    def finished(self) -> dict[int, Generation]:
        """Hand over the answers that have been finished since the last call, by id."""
        finished, self._finished = self._finished, {}
        return finished

    def stats(self) -> EngineStats:
        """Return what has been done so far, and how the page pool stands."""
        scheduler, open_requests = self._scheduler, self._requests.values()
        return replace(
            self._stats,
            prompt_tokens=scheduler.prompt_tokens,
            tokens=self._stats.tokens + sum(r.stats.tokens for r in open_requests),
            preemptions=scheduler.preemptions,
            prefix_tokens=scheduler.prefix_tokens,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            pages_free=self._cache.num_available_pages,
        )

    def _make_drafting(self, drafter: Drafter | str | None) -> Drafting | None:
        """Return what makes the trees of a step; None for plain steps."""
        if isinstance(drafter, str):
            drafter = drafters.parse(drafter, self._model)
        if drafter is None or isinstance(drafter, NoDrafter):
            return None
        require(hasattr(drafter, "propose"), "drafter", "a Drafter or a short string", drafter)
        if isinstance(drafter, EarlyExit):
            drafter.attach(self._runner)
        return Drafting(drafter, self._model)

    def _hand_over(self, request: Request) -> None:
        """Let go of a request that has ended, and keep its answer for `finished`."""
        self._scheduler.release(request)
        if request in self._ended:
            self._ended.remove(request)
        if self._requests.pop(request.index, None) is not None:
            self._stats.tokens += request.stats.tokens
            self._finished[request.index] = request.generation()
