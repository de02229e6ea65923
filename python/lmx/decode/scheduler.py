"""Who runs in a step: admission by pages, chunks under a budget, preemption of the youngest."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import OutOfPages
from .drafting import Draft, Drafting
from .forward import GRID, Runner
from .pages import pages_for
from .request import Request, isolate

_KEY = b""  # of the prefix index: a cache serves one model


class Work(NamedTuple):
    """The tokens of a request that run in a step; none behind a fork, whose logits are known."""

    request: Request
    start: int
    end: int


class Plan(NamedTuple):
    """What runs in a step, by row of the cache's tables, and the slots reserved for it."""

    works: list[Work]
    slot_mapping: Tensor  # [T], int64
    max_slots: int  # most slots in use of any sequence in the tables
    draft: Draft | None = None  # trees of those that decode; slots then hold the longest paths


class Scheduler:
    """Serves requests in the order in which they came.

    - A request is admitted when there are pages for its prompt and for what the running ones are
      sure to need. It keeps its row of the cache's tables for life.
    - Every running request takes part in every step: with its pending token, or with the next
      chunk of its prompt. Chunks end on the grid; the budget decides how many of them run.
    - When pages run out, the youngest request is swapped out, never recomputed. It comes back, the
      oldest first, before any other is admitted. One that runs alone and still finds no pages can
      never fit, and ends with an error.
    - A request with a leader has the leader's prompt: it waits for that and forks its pages.
    - Full chunks of prompts stay in pages as long as those are not needed: a prompt that begins
      with the same tokens starts behind them.
    """

    def __init__(self, runner: Runner, max_step_tokens: int) -> None:
        """Take a runner whose cache is empty; each row of its tables may be a request."""
        self.running: list[Request] = []  # by age
        self.waiting: deque[Request] = deque()
        self.preemptions = 0
        self.prompt_tokens = 0  # run
        self.prefix_tokens = 0  # of prompts, not run because they were in pages
        self._cache = runner.cache
        self._num_pages = runner.cache.num_free_pages
        self._num_layers = runner.model.num_layers
        self._max_seqs = runner.num_rows
        self._max_step_tokens = max_step_tokens

    def plan(self, drafting: Drafting | None = None) -> Plan | None:
        """Decide what runs next and reserve its slots; None if nothing is to be run.

        A plan may be dropped: the next one is as good.

        Args:
            drafting: makes trees of the pending tokens.
        """
        self._resume()
        self._admit()
        works = self._select()
        while works:
            draft = _draft(drafting, works)
            works = [work for work in works if work.request.finish_reason is None]
            handles, counts = _growth(works, draft)
            try:
                slots = self._cache.reserve(handles, counts)
            except OutOfPages as fault:
                self._preempt(fault)
                works = [work for work in works if _holds_pages(work.request)]
                continue
            return Plan(works, slots, max(r.cached for r in self.running), draft)
        return None

    def commit(self, plan: Plan, logits: Mapping[Request, Tensor]) -> None:
        """Count what is in the pages now. To be called again if it was interrupted.

        Args:
            plan: what has been run.
            logits: ``[1, V]``, behind the tokens of a request, of those that choose one.
        """
        works = [work for work in plan.works if _holds_pages(work.request)]
        new = [w for w in works if self._cache.length(w.request.handle or 0) == w.start]
        self._cache.commit(*_growth(new))
        for work in works:
            self._count(work)
            ends_prompt = work.start < work.request.prompt_length <= work.end
            if ends_prompt and work.request in logits:
                self._fork(work.request, logits[work.request])

    def release(self, request: Request) -> None:
        """Let go of a request that has ended: its pages and its row are free."""
        if request.handle is not None:
            self._cache.free(request.handle)
            request.handle = None
        for queue in (self.running, self.waiting):
            if request in queue:
                queue.remove(request)

    # ---- who is in ---------------------------------------------------------------------------

    def _resume(self) -> None:
        """Bring back what was swapped out, the oldest first, as long as there are pages."""
        for request in [r for r in self.running if r.is_swapped and r.finish_reason is None]:
            is_alone = not any(map(_holds_pages, self.running))
            if not is_alone and self._spare_pages() < pages_for(len(request.tokens)):
                return
            try:
                self._cache.swap_in(request.handle or 0)
            except OutOfPages as fault:
                if is_alone:
                    request.fail(self._too_large(fault))
                return
            request.is_swapped = False

    def _admit(self) -> None:
        """Let waiting requests in, the oldest first, as long as there are rows and pages."""
        for request in self.running:  # whose leader has ended before its prompt did
            has_place = request.handle is not None or request.finish_reason is not None
            if not has_place and not _is_led(request):
                self._seat(request)
        while self.waiting and len(self.running) < self._max_seqs:
            if any(request.is_swapped for request in self.running):
                return
            request = self.waiting[0]
            has_pages = _is_led(request) or self._has_pages(request)
            if not has_pages and self.running:
                return
            self.waiting.popleft()
            self.running.append(request)
            with isolate(request):
                request.start()
            if not has_pages and request.finish_reason is None:
                needed = pages_for(request.prompt_length)
                request.fail(self._too_large(OutOfPages(needed, self._num_pages)))
            if request.finish_reason is None and not _is_led(request):
                self._seat(request)

    def _has_pages(self, request: Request) -> bool:
        if not self.running:
            return pages_for(request.prompt_length) <= self._num_pages
        return pages_for(request.prompt_length + 1) <= self._spare_pages()

    def _spare_pages(self) -> int:
        """Return the pages that are left when every request in them has what it is sure to need."""
        inside = [request for request in self.running if _holds_pages(request)]
        growth = sum(pages_for(len(r.tokens)) - pages_for(r.cached) for r in inside)
        led = sum(request.handle is None for request in self.running)  # a page to write to
        return self._cache.num_available_pages - growth - led

    def _seat(self, request: Request) -> None:
        """Give a request a row, and the pages that begin with its tokens, if there are some.

        The last token is left out: somebody has to run it.
        """
        tokens = request.tokens[: (request.prompt_length - 1) // GRID * GRID]
        handle, found = self._cache.match_prefix(tokens, _KEY, multiple=GRID)
        self._place(request, handle, found)

    def _place(self, request: Request, handle: int, num_known: int) -> None:
        request.leader = None
        request.handle, [request.row] = handle, self._cache.rows([handle])
        request.cached = request.stats.prefix_tokens = num_known
        self.prefix_tokens += num_known

    def _fork(self, leader: Request, logits: Tensor) -> None:
        """Let those that wait for the prompt of ``leader`` have its pages."""
        led = [r for r in self.running if r.handle is None and r.leader is leader]
        led = [request for request in led if request.finish_reason is None]
        if led and leader.handle is not None:
            for request, handle in zip(led, self._cache.fork(leader.handle, len(led)), strict=True):
                request.first_logits = logits
                self._place(request, handle, leader.prompt_length)

    # ---- what they do ------------------------------------------------------------------------

    def _select(self) -> list[Work]:
        """Return what runs, by row: every pending token, and chunks as far as the budget goes."""
        inside = [r for r in self.running if _holds_pages(r) and r.finish_reason is None]
        works = []
        for request in inside:
            if request.is_decoding:
                is_known = request.first_logits is not None
                end = request.cached if is_known else len(request.tokens)
                works.append(Work(request, request.cached, end))
        num_tokens, has_chunk = len(works), False
        for request in inside:
            if not request.is_decoding:
                num_tokens += request.next_end - request.cached
                if has_chunk and num_tokens > self._max_step_tokens:
                    break
                works.append(Work(request, request.cached, request.next_end))
                has_chunk = True
        return sorted(works, key=lambda work: work.request.row)

    def _preempt(self, fault: OutOfPages) -> None:
        """Swap out the youngest request, or end the only one."""
        *others, youngest = [request for request in self.running if _holds_pages(request)]
        assert youngest.handle is not None
        if not others:
            youngest.fail(self._too_large(fault))
            self._cache.free(youngest.handle)
            youngest.handle = None
            return
        self._cache.swap_out(youngest.handle)
        youngest.is_swapped = True
        youngest.stats.preemptions += 1
        self.preemptions += 1

    def _count(self, work: Work) -> None:
        """Take note of what a request has in pages; twice is as good as once."""
        request, start, end = work
        if end == request.cached:
            return
        if not request.is_decoding:
            self.prompt_tokens += end - start
            if end % GRID == 0:
                assert request.handle is not None
                self._cache.index_prefix(request.handle, request.tokens[:end], _KEY)
        request.cached = end
        request.stats.layers_run += self._num_layers
        request.stats.pages = max(request.stats.pages, pages_for(end))

    def _too_large(self, fault: OutOfPages) -> str:
        return (
            f"out of pages: the request needs {fault.needed} more, {fault.free} of "
            f"{self._num_pages} are free, and there is no other to make room"
        )


def _holds_pages(request: Request) -> bool:
    return request.handle is not None and not request.is_swapped


def _is_led(request: Request) -> bool:
    """Whether a request waits for the prompt of another, which is being run or is about to be."""
    leader = request.leader
    if leader is None or request.handle is not None:
        return False
    return leader.finish_reason is None and not leader.is_decoding


def _draft(drafting: Drafting | None, works: list[Work]) -> Draft | None:
    """Return trees for the requests that run their pending tokens; None if there are none."""
    if drafting is None:
        return None
    decoding = [w.request for w in works if w.end > w.start and w.request.is_decoding]
    while decoding := [request for request in decoding if request.finish_reason is None]:
        draft = drafting.propose(decoding)
        if all(request.finish_reason is None for request in decoding):  # no constraint failed
            return draft
    return None


def _growth(works: list[Work], draft: Draft | None = None) -> tuple[list[int], list[int]]:
    """Return the handles of those that have tokens to run, and how many each may keep."""
    growing = [work for work in works if work.end > work.start]
    handles = [work.request.handle for work in growing]
    counts = [work.end - work.start for work in growing]
    if draft is not None:
        deepest = dict(zip(draft.requests, draft.depths, strict=True))
        counts = [n + deepest.get(w.request, 0) for n, w in zip(counts, growing, strict=True)]
    return [h for h in handles if h is not None], counts
