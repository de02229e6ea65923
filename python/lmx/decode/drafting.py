"""Drafts for the requests of a step: proposed, checked, and cut to what can be accepted.

A drafter is not trusted: an illegal tree costs its request a plain step, and is counted.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import tree as trees
from ..protocols import Drafter, DraftTree, LayeredModel, Step
from .request import Request, isolate

_logger = logging.getLogger("lmx")
_LONGEST = 1024  # nodes of a tree


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """The trees of the requests that decode in a step, in the order of their rows."""

    requests: list[Request]
    step: Step
    tree: DraftTree
    sizes: list[int]  # nodes of each request's tree
    depths: list[int]  # of each request's tree
    masks: list[Tensor | None]  # what may follow each node, [n, ceil(V / 32)], of each request
    first_child: Tensor  # [T], int32, as `lmx.tree.prepare` gives them
    next_sibling: Tensor

    def own(self, i: int) -> DraftTree:
        """Return the tree of request ``i`` alone."""
        begin = sum(self.sizes[:i])
        return _own(self.tree, begin, begin + self.sizes[i])


class Drafting:
    """Makes drafts by a drafter, and tells it what became of them."""

    def __init__(self, drafter: Drafter, model: LayeredModel) -> None:
        """Take the drafter of an engine.

        Raises:
            ValueError: the drafter wants rows of hidden layers, which the loop does not hand out.
        """
        if drafter.taps:
            raise ValueError(
                f"drafter: expected one without taps, got layers {tuple(drafter.taps)}: hidden "
                "rows are not handed to drafters yet"
            )
        self.name: str = getattr(drafter, "name", type(drafter).__name__)
        self._drafter = drafter
        self._model = model
        self._known: dict[int, Request] = {}  # by row: whose prompt the drafter has seen

    def propose(self, requests: Sequence[Request]) -> Draft:
        """Return a tree for every request, its pending token alone where there is no better one."""
        for request in requests:
            self._introduce(request)
        step = self._step(requests)
        tree = self._checked(step, requests)
        depth, first_child, next_sibling, _ = trees.prepare(tree.parents, tree.indptr, _LONGEST)
        keep = depth <= torch.tensor(
            [self._deepest(r) for r in requests], device=depth.device
        ).repeat_interleave(tree.indptr.diff().long())
        masks, legal = self._masks(requests, tree)
        if legal is not None:
            keep &= legal
        if not bool(keep.all()):
            bounds = tree.indptr.tolist()
            tree, kept = trees.prune(tree, keep)
            depth, first_child, next_sibling, _ = trees.prepare(tree.parents, tree.indptr, _LONGEST)
            masks = [
                mask if mask is None else mask[kept[begin:end]]
                for mask, begin, end in zip(masks, bounds, bounds[1:], strict=False)
            ]
        sizes = tree.indptr.diff().tolist()
        depths = [int(part.max()) for part in depth.split(sizes)] if sizes else []
        return Draft(list(requests), step, tree, sizes, depths, masks, first_child, next_sibling)

    def observe(self, draft: Draft, logits: Tensor, path: Tensor, accept_length: Tensor) -> None:
        """Tell the drafter how a step came out; what it raises costs it the observation alone."""
        try:
            self._drafter.observe(draft.step, draft.tree, logits, path, accept_length, {})
        except Exception as fault:
            self._complain(draft.requests, f"observe failed: {type(fault).__name__}: {fault}")

    def _introduce(self, request: Request) -> None:
        """Show the drafter the text before the pending token of a request that is new to it."""
        if self._known.get(request.row) is request:
            return
        self._known[request.row] = request
        request.stats.drafter = self.name
        tokens = torch.tensor(request.tokens[:-1], dtype=torch.int64, device=self._model.device)
        try:
            self._drafter.observe_prompt(request.row, 0, tokens, {})
        except Exception as fault:
            self._complain([request], f"observe_prompt failed: {type(fault).__name__}: {fault}")

    def _step(self, requests: Sequence[Request]) -> Step:
        device = self._model.device
        positions = [request.base_pos for request in requests]
        return Step(
            rows=tuple(request.row for request in requests),
            pending=torch.tensor([request.tokens[-1] for request in requests], device=device),
            base_pos=torch.tensor(positions, dtype=torch.int32, device=device),
            seeds=tuple(request.options.sampling.seed for request in requests),
            max_nodes=_LONGEST,
        )

    def _deepest(self, request: Request) -> int:
        """Return how deep a tree of a request may be: its tokens and the model's positions end."""
        wanted = request.options.max_new_tokens - request.stats.tokens - 1
        return max(0, min(wanted, self._model.max_positions - 1 - request.base_pos))

    def _checked(self, step: Step, requests: Sequence[Request]) -> DraftTree:
        """Return the drafter's trees, the root alone in the place of illegal ones."""
        plain = trees.from_tokens(step.pending, [[] for _ in requests])
        try:
            tree = self._drafter.propose(step)
            if fault := _form_fault(tree, plain):
                raise ValueError(fault)
        except Exception as fault:
            self._complain(requests, f"{type(fault).__name__}: {fault}")
            return plain
        status = torch.zeros_like(plain.indptr[1:])
        trees.prepare(
            tree.parents, tree.indptr, _LONGEST, tree.tokens, self._model.vocab_size, status=status
        )
        first = tree.indptr[:-1].long().clamp(0, max(tree.tokens.numel() - 1, 0))
        has_root = (tree.indptr.diff() > 0) & (status == 0)
        if tree.tokens.numel():
            has_root &= tree.tokens[first] == step.pending
        if bool(has_root.all()):
            return _own(tree, 0, int(tree.indptr[-1]), tree.indptr)
        bad = [i for i, is_good in enumerate(has_root.tolist()) if not is_good]
        self._complain([requests[i] for i in bad], "it is no tree of the pending token")
        return _replace(tree, plain, set(bad))

    def _masks(
        self, requests: Sequence[Request], tree: DraftTree
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """Return each request's masks, and which nodes are legal; None if all are.

        A request whose constraint raises ends with its error; its draft goes on unmasked.
        """
        bounds = tree.indptr.tolist()
        masks: list[Tensor | None] = []
        legal: Tensor | None = None
        for request, begin, end in zip(requests, bounds, bounds[1:], strict=False):
            own, mask = _own(tree, begin, end), None
            with isolate(request):
                mask = request.masks(own)
            masks.append(mask)
            if mask is not None and end - begin > 1:
                if legal is None:
                    legal = torch.ones_like(tree.parents, dtype=torch.bool)
                words = mask[own.parents[1:].long()]
                word = words.gather(1, (own.tokens[1:] // 32)[:, None])[:, 0]
                legal[begin + 1 : end] = (word >> (own.tokens[1:] % 32) & 1).bool()
        return masks, legal

    def _complain(self, requests: Sequence[Request], what: str) -> None:
        """Say that a drafter's work was of no use."""
        for request in requests:
            request.stats.draft_faults += 1
            text = "request %d: drafter %s: %s; a plain step instead"
            _logger.warning(text, request.index, self.name, what)


def _own(tree: DraftTree, begin: int, end: int, indptr: Tensor | None = None) -> DraftTree:
    """Return rows of a batch of trees: one tree, or what ``indptr`` says."""
    if indptr is None:
        indptr = tree.indptr.new_tensor([0, end - begin])
    return DraftTree(tokens=tree.tokens[begin:end], parents=tree.parents[begin:end], indptr=indptr)


def _form_fault(tree: Any, plain: DraftTree) -> str:
    """Say what is wrong with the tensors of a tree; "" = nothing."""
    if not isinstance(tree, DraftTree):
        return f"expected a DraftTree, got {type(tree).__name__}"
    if tree.kind != "deterministic" or tree.start_layer != 0:
        return f"expected deterministic trees from layer 0, got {tree.kind!r} {tree.start_layer}"
    for name in ("tokens", "parents", "indptr"):
        got, like = getattr(tree, name), getattr(plain, name)
        if not isinstance(got, Tensor) or got.dim() != 1 or got.dtype != like.dtype:
            return f"expected {name} {like.dtype} of one dimension"
        if got.device != like.device or not got.is_contiguous():
            return f"expected {name} contiguous on {like.device}, got {got.device}"
    if tree.indptr.numel() != plain.indptr.numel() or tree.tokens.numel() != tree.parents.numel():
        return "expected a tree per request, and as many parents as tokens"
    return ""


def _replace(tree: DraftTree, plain: DraftTree, bad: set[int]) -> DraftTree:
    """Return the trees, those of ``bad`` sequences replaced by their roots."""
    bounds = tree.indptr.tolist()
    tokens: list[Tensor] = []
    parents: list[Tensor] = []
    for i in range(len(bounds) - 1):
        source, begin, end = (plain, i, i + 1) if i in bad else (tree, bounds[i], bounds[i + 1])
        tokens.append(source.tokens[begin:end])
        parents.append(source.parents[begin:end])
    ends = torch.tensor([0, *map(len, tokens)], device=tree.indptr.device).cumsum(0)
    return DraftTree(
        tokens=torch.cat(tokens), parents=torch.cat(parents), indptr=ends.to(torch.int32)
    )
