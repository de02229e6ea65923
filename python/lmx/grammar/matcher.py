"""``Matcher`` and ``BatchMatcher``: where texts stand in a grammar, and what may come next."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._C import grammar as _native

Matcher = _native.Matcher
PendingFill = _native.PendingFill

# Statuses of a fill, by row.
PARTIAL, ALL_ALLOWED, TERMINATED, NO_TOKEN, LIMIT = range(5)


def new_bitmask(num_rows: int, vocab_size: int) -> Tensor:
    """Return a bitmask ``[num_rows, ceil(vocab_size / 32)]``, int32, that allows everything."""
    return torch.full((num_rows, (vocab_size + 31) // 32), -1, dtype=torch.int32)


class BatchMatcher:
    """The same call for many matchers; masks are spread over threads of the native pool."""

    def __init__(self, threads: int = 1) -> None:
        """Set the number of threads, the caller's included."""
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        self.threads = threads

    def fill(
        self, matchers: Sequence[Matcher], bitmask: Tensor, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Write each matcher's mask into its row of ``bitmask [num_rows, mask_words]``, int32.

        Args:
            matchers: each at most once.
            bitmask: on the CPU, contiguous; other rows stay as they are.
            rows: one per matcher; default: the first rows.

        Returns:
            int32 ``[len(matchers)]``: PARTIAL, ALL_ALLOWED, TERMINATED (stop tokens only),
            NO_TOKEN (the text could go on, but no token spells it: zeros) or LIMIT (zeros).
        """
        status = _native.fill_batch(list(matchers), bitmask, rows, self.threads)
        return torch.tensor(status, dtype=torch.int32)

    def fill_async(
        self, matchers: Sequence[Matcher], bitmask: Tensor, rows: Sequence[int] | None = None
    ) -> PendingFill:
        """Start ``fill`` on the native pool; its ``wait()`` returns the statuses.

        Until then neither the matchers nor the bitmask may be used.
        """
        return _native.fill_async(list(matchers), bitmask, rows, self.threads)

    def accept(self, matchers: Sequence[Matcher], tokens: Sequence[int] | Tensor) -> Tensor:
        """Give each matcher its token; return bool ``[len(matchers)]``: which were allowed."""
        ids = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        pairs = zip(matchers, ids, strict=True)
        return torch.tensor([matcher.accept(token) for matcher, token in pairs], dtype=torch.bool)

    def rollback(self, matchers: Sequence[Matcher], steps: int | Sequence[int]) -> None:
        """Undo the last steps of each matcher."""
        counts = [steps] * len(matchers) if isinstance(steps, int) else list(steps)
        for matcher, count in zip(matchers, counts, strict=True):
            matcher.rollback(count)

    def fill_tree(
        self,
        matcher: Matcher,
        parents: Tensor,
        tokens: Tensor,
        bitmask: Tensor,
        *,
        root_is_current: bool = False,
        max_ms: int = 0,
    ) -> Tensor:
        """Write what may follow each node of a draft tree; the matcher stays as it is.

        Args:
            matcher: where the tree begins.
            parents: ``[N]``, integer; ``parents[i] < i``, -1 at a root.
            tokens: ``[N]``, integer.
            bitmask: ``[at least N, mask_words]``, int32; row ``i`` is for node ``i``, zeros where
                it may not follow.
            root_is_current: the matcher has read the token of node 0.
            max_ms: stop after that time, 0 = never.

        Returns:
            int32 ``[N]``: 1; 0 for a node that may not follow, or is below one; 2 where the time
            was up.
        """
        links, ids = parents.tolist(), tokens.tolist()
        valid = matcher.fill_tree(links, ids, bitmask, root_is_current, max_ms)
        return torch.tensor(valid, dtype=torch.int32)


Encode = Callable[[str], list[int]]
