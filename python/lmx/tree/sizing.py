"""How large a tree pays: the step model of speculative decoding.

A step over n nodes takes c(n) times a plain step and emits E tokens, so it is worth ``E / c(n)``
plain steps. c(n) is measured; E is the acceptance of the nodes added up, the root's included.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .template import RANK_PROBABILITIES, Template

SIZES = (1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 32, 48, 64, 81)


@dataclass(frozen=True, slots=True)
class StepCosts:
    """What a step over n nodes takes, relative to a step over one."""

    sizes: tuple[int, ...]  # ascending from 1
    seconds: tuple[float, ...]  # of a step over so many nodes

    def __post_init__(self) -> None:
        """Check that it is a table that starts at 1."""
        rising = all(a < b for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        if not self.sizes or self.sizes[0] != 1 or not rising:
            raise ValueError(f"StepCosts: expected sizes ascending from 1, got {self.sizes}")
        if len(self.seconds) != len(self.sizes) or min(self.seconds) <= 0:
            raise ValueError(f"StepCosts: expected a time above 0 per size, got {self.seconds}")

    def __call__(self, size: float) -> float:
        """Return c(size), linear between the sizes that were measured and beyond the last."""
        if len(self.sizes) == 1:
            return 1.0
        right = min(max(bisect_left(self.sizes, size), 1), len(self.sizes) - 1)
        low, high = self.sizes[right - 1], self.sizes[right]
        share = (size - low) / (high - low)
        between = self.seconds[right - 1] * (1 - share) + self.seconds[right] * share
        return between / self.seconds[0]


def measure_costs(
    run: Callable[[int], object], sizes: Sequence[int] = SIZES, repeats: int = 3
) -> StepCosts:
    """Measure c(n): the least of ``repeats`` times of ``run(n)``, which waits until it is done."""
    times = {size: float("inf") for size in sizes}
    run(sizes[0])  # what is made on the first call
    for _ in range(repeats):
        for size in sizes:
            started = time.perf_counter()
            run(size)
            times[size] = min(times[size], time.perf_counter() - started)
    return StepCosts(tuple(sizes), tuple(times.values()))


def expected_tokens(template: Template, probabilities: Sequence[float]) -> list[float]:
    """Return the tokens that a step emits with the first 1, 2, ... nodes of a template.

    Args:
        template: the tree.
        probabilities: of each rank, that the next token is that candidate.
    """
    values, total, totals = [1.0], 1.0, [1.0]
    parents, ranks = template.parents.tolist(), template.ranks.tolist()
    for parent, rank in zip(parents[1:], ranks[1:], strict=True):
        values.append(values[parent] * probabilities[rank])
        total += values[-1]
        totals.append(total)
    return totals


def autosize(
    template: Template,
    costs: Callable[[float], float],
    probabilities: Sequence[float] = RANK_PROBABILITIES,
    most: int | None = None,
) -> int:
    """Return how many first nodes of a template emit the most tokens per time.

    Args:
        template: the tree, its likeliest nodes first (``likeliest``).
        costs: c(n), from ``measure_costs``.
        probabilities: of each rank.
        most: nodes at most; None: all of the template's.
    """
    totals = expected_tokens(template, probabilities)[:most]
    return max(range(len(totals)), key=lambda i: (totals[i] / costs(i + 1), -i)) + 1


class Sizer:
    """Chooses the size of a request's next tree by what its text has taken so far.

    How often candidate 0, 1, ... was taken is counted per request, older tokens counting less, from
    the probabilities of ``likeliest`` as a start. The sizes depend on measured times, so sampled
    text differs from run to run; greedy text does not.
    """

    def __init__(
        self, template: Template, costs: Callable[[float], float], *, memory: float = 40.0
    ) -> None:
        """Set what holds for all requests.

        Args:
            template: the tree, its likeliest nodes first.
            costs: c(n).
            memory: tokens after which an observation counts 1/e.
        """
        self._parents = template.parents.tolist()
        self._ranks = template.ranks.tolist()
        self._num_ranks = max(self._ranks) + 1
        self._costs = [costs(n) for n in range(1, template.num_nodes + 1)]
        self._keep = 1.0 - 1.0 / memory
        self._counts: dict[int, list[float]] = {}  # per row: taken as each rank, then in all

    def reset(self, row: int) -> None:
        """Forget a row's request."""
        self._counts.pop(row, None)

    def watch(self, row: int, ranks: Sequence[int]) -> None:
        """Count tokens by the rank at which they were among the candidates, -1 for not."""
        counts = self._counts.setdefault(row, self._prior())
        for rank in ranks:
            for i in range(len(counts)):
                counts[i] *= self._keep
            counts[-1] += 1.0
            if 0 <= rank < self._num_ranks:
                counts[rank] += 1.0

    def size(self, row: int, most: int) -> int:
        """Return how many nodes the row's next tree has, the root included."""
        counts = self._counts.get(row) or self._prior()
        taken = [count / counts[-1] for count in counts[:-1]]
        values, total, best, size = [1.0], 1.0, 1.0, 1
        for i in range(1, min(most, len(self._parents))):
            values.append(values[self._parents[i]] * taken[self._ranks[i]])
            total += values[-1]
            if total / self._costs[i] > best:
                best, size = total / self._costs[i], i + 1
        return size

    def _prior(self) -> list[float]:
        weight = 5.0
        known = [*RANK_PROBABILITIES, *[0.0] * self._num_ranks][: self._num_ranks]
        return [*(weight * p for p in known), weight]
