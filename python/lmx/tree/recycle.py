"""Token Recycling: what came after a token last time is drafted next time.

Luo et al. 2024, arXiv 2408.08696. A matrix holds, for every token, the ``k`` likeliest tokens after
its last occurrence; a template of ranks makes a tree of them. Every node of a verified tree,
accepted or not, gives its token's row anew. Nothing is trained, and drafting costs a few lookups.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..protocols import DraftTree, Step
from . import ops
from .sizing import Sizer
from .template import Template, token_recycling

_FORMAT = "lmx.tree.recycle 1"


class TokenRecycling:
    """The drafter. Its matrices are per request, so that a text does not depend on other texts."""

    taps: tuple[int, ...] = ()

    def __init__(
        self,
        vocab_size: int,
        *,
        template: Template | None = None,
        sizer: Sizer | None = None,
        k: int = 8,
        hot: Tensor | None = None,
        init: Literal["none", "zeros"] = "none",
        conflict: Literal["last", "accepted"] = "last",
        shared: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Set what holds for all requests.

        Args:
            vocab_size: columns of the model's logits.
            template: the tree's shape; None is the published one of 80 nodes.
            sizer: chooses for every request how many first nodes of the template it uses; None:
                all.
            k: candidates per token, 1 to 16.
            hot: ``[vocab_size, k]``, int32: the matrix that a request starts with; each has a copy.
            init: without ``hot``, start with no candidates, or with token 0 as every candidate, as
                the published code does. Greedy text is the same.
            conflict: which of several rows with one token is stored: the last, or the last on the
                accepted path if there is one.
            shared: one matrix for all requests, kept from one to the next. It learns more, but what
                is drafted, and with it sampled text, depends on the other requests.
            device: of the model.

        Raises:
            ValueError: an argument is out of range, or ``hot`` is of another vocabulary.
        """
        self._template = (template or token_recycling()).to(torch.device(device))
        if not 1 <= k <= 16 or int(self._template.ranks.max()) >= k:
            raise ValueError(f"TokenRecycling: expected k in [1, 16] above every rank, got {k}")
        if init not in ("none", "zeros") or conflict not in ("last", "accepted"):
            raise ValueError(f"TokenRecycling: init={init!r} or conflict={conflict!r} is unknown")
        start = -1 if init == "none" else 0
        if hot is None:
            hot = torch.full((vocab_size, k), start, dtype=torch.int32, device=device)
        _check_matrix(hot, vocab_size, k)
        self._hot = hot.to(device).contiguous()
        self._sizer = sizer
        self._accepted_first = conflict == "accepted"
        self._shared = shared
        self._matrices = (
            self._hot[None].clone() if shared else self._hot.new_empty(0, vocab_size, k)
        )
        self._fresh: set[int] = set()  # rows that hold a request's own matrix
        self._last: dict[int, list[int]] = {}  # candidates after the last token before the pending

    @property
    def name(self) -> str:
        """Return what statistics call it."""
        drafts = self._template.num_nodes - 1
        return f"recycle:{drafts}" if self._sizer is None else "recycle:auto"

    @property
    def sizer(self) -> Sizer | None:
        """Return what chooses the size of trees."""
        return self._sizer

    def matrix(self, row: int = 0) -> Tensor:
        """Return the matrix ``[vocab_size, k]`` of a request's row, or the shared one."""
        return self._matrices[0 if self._shared else row]

    def propose(self, step: Step) -> DraftTree:
        """Return one tree per request."""
        ids = self._matrix_ids(step)
        most = min(step.max_nodes, self._template.num_nodes)
        sizes = None
        if self._sizer is not None:
            for row, token in zip(step.rows, step.pending.tolist(), strict=True):
                self._watch(row, self._last.pop(row, [-1]), token)
            chosen = [self._sizer.size(row, most) for row in step.rows]
            sizes = torch.tensor(chosen, dtype=torch.int32, device=ids.device)
        elif most < self._template.num_nodes:
            sizes = torch.full_like(ids, most)
        tokens, parents, indptr, _ = ops.recycle_expand(
            self._matrices,
            step.pending,
            self._template.parents,
            self._template.ranks,
            sizes=sizes,
            matrix_ids=ids,
        )
        return DraftTree(tokens=tokens, parents=parents, indptr=indptr)

    def observe(
        self,
        step: Step,
        tree: DraftTree,
        logits: Tensor,
        path: Tensor,
        accept_length: Tensor,
        hidden: Mapping[int, Tensor],
    ) -> None:
        """Store the likeliest tokens after every node."""
        ids = self._matrix_ids(step)
        if self._sizer is not None:
            self._watch_step(step, tree, path, accept_length)
        ops.recycle_update(
            self._matrices,
            tree.tokens,
            logits,
            tree.indptr,
            path=path if self._accepted_first else None,
            matrix_ids=ids,
        )

    def observe_prompt(
        self, row: int, start: int, tokens: Tensor, hidden: Mapping[int, Tensor]
    ) -> None:
        """Forget what another request left in the row; the prompt itself teaches nothing."""
        if start == 0:
            self._fresh.discard(row)
            self._last.pop(row, None)
            if self._sizer is not None:
                self._sizer.reset(row)

    def save(self, path: str | Path, row: int = 0) -> None:
        """Write a matrix as safetensors, for ``load_matrix``."""
        from safetensors.torch import save_file

        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        save_file({"matrix": self.matrix(row).cpu()}, partial, metadata={"format": _FORMAT})
        partial.replace(target)

    def _matrix_ids(self, step: Step) -> Tensor:
        """Return which matrix each request uses, made on its first step."""
        if self._shared:
            return torch.zeros(len(step.rows), dtype=torch.int32, device=self._hot.device)
        if step.rows and max(step.rows) >= len(self._matrices):
            count = max(2 * len(self._matrices), max(step.rows) + 1)
            grown = self._hot.new_empty(count, *self._hot.shape)
            grown[: len(self._matrices)] = self._matrices
            self._matrices = grown
        for row in step.rows:
            if row not in self._fresh:
                self._matrices[row] = self._hot
                self._fresh.add(row)
        return torch.tensor(step.rows, dtype=torch.int32, device=self._hot.device)

    def _watch_step(self, step: Step, tree: DraftTree, path: Tensor, accept_length: Tensor) -> None:
        """Look, before the matrix is updated, which candidates the accepted tokens were."""
        nodes, lengths, starts = path.tolist(), accept_length.tolist(), tree.indptr.tolist()
        for i, row in enumerate(step.rows):
            accepted = [starts[i] + node for node in nodes[i][: lengths[i] + 1]]
            text = tree.tokens[accepted]
            *candidates, self._last[row] = self.matrix(row)[text].tolist()
            for known, token in zip(candidates, text[1:].tolist(), strict=True):
                self._watch(row, known, token)

    def _watch(self, row: int, candidates: list[int], token: int) -> None:
        """Tell the sizer, unless there was no candidate and so no draft to pay for."""
        if self._sizer is not None and candidates[0] >= 0:
            self._sizer.watch(row, [candidates.index(token) if token in candidates else -1])


def load_matrix(path: str | Path, vocab_size: int, k: int = 8) -> Tensor:
    """Read a matrix that ``TokenRecycling.save`` wrote.

    Raises:
        ValueError: the file holds none, or one of another vocabulary; names the file.
    """
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        if (file.metadata() or {}).get("format") != _FORMAT or set(file.keys()) != {"matrix"}:
            raise ValueError(f"{path}: not a matrix of recycled tokens")
        matrix = file.get_tensor("matrix")
    try:
        _check_matrix(matrix, vocab_size, k)
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from None
    return matrix


def _check_matrix(matrix: Tensor, vocab_size: int, k: int) -> None:
    if matrix.dtype != torch.int32 or matrix.shape != (vocab_size, k):
        raise ValueError(
            f"expected a matrix of int32 [{vocab_size}, {k}] for this vocabulary, got "
            f"{matrix.dtype} {list(matrix.shape)}"
        )
    if matrix.numel() and not -1 <= int(matrix.min()) <= int(matrix.max()) < vocab_size:
        raise ValueError(f"expected candidates in [-1, {vocab_size}), got others")
