"""Several drafters as one: the union of their trees is verified in one pass."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..protocols import Drafter, DraftTree, Step
from .shapes import merge, prune


class Merged:
    """A drafter that proposes what any of its drafters does; all of them learn from the step."""

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        """Take two or more drafters, the ones whose children are to be tried first in front."""
        if len(drafters) < 2:
            raise ValueError(f"Merged: expected two or more drafters, got {len(drafters)}")
        self._drafters = tuple(drafters)
        self.taps: tuple[int, ...] = tuple(sorted({tap for d in drafters for tap in d.taps}))

    @property
    def name(self) -> str:
        """Return what statistics call it."""
        return "+".join(getattr(d, "name", type(d).__name__) for d in self._drafters)

    def propose(self, step: Step) -> DraftTree:
        """Return the union, cut to the nodes that a tree may have."""
        tree = merge([drafter.propose(step) for drafter in self._drafters])
        sizes = tree.indptr.diff().long()
        if not sizes.numel() or int(sizes.max()) <= step.max_nodes:
            return tree
        # Ids ascend from parents to children, so the first nodes of a tree are a tree.
        place = tree.parents.new_ones(tree.parents.shape).cumsum(0) - 1
        first = tree.indptr[:-1].long().repeat_interleave(sizes)
        return prune(tree, place - first < step.max_nodes)[0]

    def observe(
        self,
        step: Step,
        tree: DraftTree,
        logits: Tensor,
        path: Tensor,
        accept_length: Tensor,
        hidden: Mapping[int, Tensor],
    ) -> None:
        """Hand the step on."""
        for drafter in self._drafters:
            drafter.observe(step, tree, logits, path, accept_length, hidden)

    def observe_prompt(
        self, row: int, start: int, tokens: Tensor, hidden: Mapping[int, Tensor]
    ) -> None:
        """Hand a part of a prompt on."""
        for drafter in self._drafters:
            drafter.observe_prompt(row, start, tokens, hidden)
