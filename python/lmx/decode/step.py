"""One step of an engine, in two halves: decide what follows, then take it in.

Deciding changes nothing that counts: keys and values stay in the fresh block of the pass, so a step
that was interrupted there is decided again. Taking in may be interrupted too, and then goes on.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import status_fault
from .drafting import Draft, Drafting
from .forward import Fresh, Rows, Runner, chains
from .request import Request, RequestFault, isolate
from .scheduler import Plan, Scheduler, Work
from .tree_step import Verdict, commit_slots, forest, verify_trees
from .verify import Choice, verify


@dataclass(slots=True, eq=False)
class Decision:
    """A step that has been decided: what enters the pages, and which tokens follow."""

    plan: Plan
    fresh: Fresh | None  # None: no request had rows in the pass, or they are in the pages
    faults: list[str]  # of each work's sequence in the pass; "" = none
    choices: deque[Choice]
    lesson: "Lesson | None" = None  # for the drafter


@dataclass(slots=True, eq=False)
class Lesson:
    """What a drafter is to learn from a step."""

    draft: Draft
    logits: Tensor  # [T, V], of the trees
    verdict: Verdict


def decide(
    runner: Runner, scheduler: Scheduler, drafting: Drafting | None = None
) -> Decision | None:
    """Run what is next, and choose the tokens that follow; None if nothing is to be run."""
    plan = scheduler.plan(drafting)
    if plan is None:
        return None
    status = torch.zeros(runner.num_rows, dtype=torch.int32, device=runner.model.device)
    if plan.draft is not None:
        return _decide_trees(runner, plan, plan.draft, status)
    fresh = _run(runner, plan, status)
    requests, logits = _last_rows(runner, plan.works, fresh)
    choices, bits = verify(requests, logits, status)
    faults = [status_fault(bits[work.request.row]) for work in plan.works]
    return Decision(plan, fresh, faults, deque(choices))


def _decide_trees(runner: Runner, plan: Plan, draft: Draft, status: Tensor) -> Decision:
    """Run trees, and whatever else is next, in one pass; choose the paths that are kept."""
    device = runner.model.device
    rows = forest(plan.works, draft, runner.num_rows, plan.max_slots, device)
    fresh = runner.forward(rows, status)
    others, logits = _tree_rows(runner, plan.works, draft, rows, fresh)
    num_nodes = draft.tree.tokens.numel()
    verdict = verify_trees(draft, logits[:num_nodes], status)
    choices = deque(verdict.choices)
    if others:  # as they would choose in a step without trees
        choices += verify(others, logits[num_nodes:], status)[0]
    works, slots = commit_slots(plan.works, draft, verdict, rows, runner, status)
    for request, size in zip(draft.requests, draft.sizes, strict=True):
        request.stats.nodes += size
    faults = [status_fault(verdict.faults[work.request.row]) for work in works]
    done = plan._replace(works=works, slot_mapping=slots)
    return Decision(done, fresh, faults, choices, Lesson(draft, logits[:num_nodes], verdict))


def _tree_rows(
    runner: Runner, works: Sequence[Work], draft: Draft, rows: Rows, fresh: Fresh
) -> tuple[list[Request], Tensor]:
    """Return the requests without a tree that choose a token; logits of all trees, then theirs."""
    bounds = rows.cu_seqlens.tolist()
    drafted = set(draft.requests)
    wanted: list[int] = []
    for request in draft.requests:
        wanted += range(bounds[request.row], bounds[request.row + 1])
    others: list[Request] = []
    known: list[Tensor] = []
    for request, start, end in works:
        if request not in drafted and end > start and end == len(request.tokens):
            others.append(request)
            wanted.append(bounds[request.row + 1] - 1)
    for request, start, end in works:
        if end == start and request.first_logits is not None:  # forked behind its prompt
            others.append(request)
            known.append(request.first_logits)
    is_all = wanted == list(range(rows.tokens.numel()))
    logits = runner.model.norm_head(fresh.hidden if is_all else fresh.hidden[wanted])
    return others, torch.cat((logits, *known)) if known else logits


def apply(
    decision: Decision, runner: Runner, scheduler: Scheduler, drafting: Drafting | None = None
) -> None:
    """Take in what has been decided: keys and values first, then tokens."""
    if decision.lesson is not None and drafting is not None:
        lesson, decision.lesson = decision.lesson, None
        verdict = lesson.verdict
        drafting.observe(lesson.draft, lesson.logits, verdict.path, verdict.accept_length)
    if decision.fresh is not None:
        runner.commit(decision.fresh, decision.plan.slot_mapping)
        decision.fresh = None
    for work, fault in zip(decision.plan.works, decision.faults, strict=True):
        if fault and work.request.finish_reason is None:
            work.request.fail(fault)
    scheduler.commit(decision.plan, {choice.request: choice.logits for choice in decision.choices})
    while decision.choices:
        try:
            _take_in(decision.choices[0])
        finally:
            decision.choices.popleft()


def _run(runner: Runner, plan: Plan, status: Tensor) -> Fresh | None:
    """Run the rows of all requests in one pass."""
    parts = [
        (request.row, start, request.tokens[start:end])
        for request, start, end in plan.works
        if end > start
    ]
    if not parts:
        return None
    rows = chains(parts, runner.num_rows, plan.max_slots, runner.model.device)
    return runner.forward(rows, status)


def _last_rows(
    runner: Runner, works: Sequence[Work], fresh: Fresh | None
) -> tuple[list[Request], Tensor]:
    """Return the requests that are to choose a token, and the logits they choose by."""
    requests: list[Request] = []
    last: list[int] = []
    num_rows = 0
    for request, start, end in works:
        num_rows += end - start
        if end > start and end == len(request.tokens):
            requests.append(request)
            last.append(num_rows - 1)
    parts = []
    if fresh is not None and requests:
        hidden = fresh.hidden if len(last) == num_rows else fresh.hidden[last]
        parts.append(runner.model.norm_head(hidden))
    for request, start, end in works:
        if end == start and request.first_logits is not None:  # forked behind its prompt
            requests.append(request)
            parts.append(request.first_logits)
    if not parts:
        parts.append(torch.empty(0, runner.model.vocab_size, device=runner.model.device))
    return requests, parts[0] if len(parts) == 1 else torch.cat(parts)


def _take_in(choice: Choice) -> None:
    request = choice.request
    with isolate(request):
        if request.finish_reason is None:
            if choice.fault:
                raise RequestFault(choice.fault)
            request.accept(choice.tokens, choice.logits, choice.edited)
