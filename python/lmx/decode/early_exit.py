"""Early exit as a drafter: the model's own first layers guess what all of them will say.

Self-speculative decoding without an adapter: the logits of a draft are those of the model's head on
the rows after layer ``layers`` (Elhoushi et al. 2024, LayerSkip, arXiv 2404.16710, section 4.3). On
models that were not trained for it the guesses are poor; the text is the model's in any case.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from .. import vocab
from ..protocols import DraftTree, Step
from ..tree import from_tokens
from .forward import Runner, chains


class EarlyExit:
    """The drafter: a chain of ``num_draft`` tokens per request, by the first ``layers`` layers.

    Keys and values of committed tokens are the engine's own; those of a draft are made anew in
    each of its passes, and thrown away.
    """

    taps: tuple[int, ...] = ()

    def __init__(self, *, layers: int, num_draft: int = 4) -> None:
        """Take how many layers run, and how many tokens they draft.

        Raises:
            ValueError: a number is below 1.
        """
        if layers < 1 or num_draft < 1:
            raise ValueError(
                f"EarlyExit: expected layers and num_draft >= 1, got {layers}, {num_draft}"
            )
        self._layers = layers
        self._num_draft = num_draft
        self._runner: Runner | None = None

    @property
    def name(self) -> str:
        """Return what statistics call it."""
        return f"early-exit:{self._layers}"

    def attach(self, runner: Runner) -> None:
        """Take the engine's model and pages.

        Raises:
            ValueError: the model has no layer to leave out.
        """
        if self._layers >= runner.model.num_layers:
            raise ValueError(
                f"EarlyExit: expected layers below the model's {runner.model.num_layers}, got "
                f"{self._layers}"
            )
        self._runner = runner

    def propose(self, step: Step) -> DraftTree:
        """Return one chain per request."""
        if self._runner is None:
            raise RuntimeError("EarlyExit: not attached to an engine")
        starts = step.base_pos.tolist()
        room = [self._runner.model.max_positions - 1 - start for start in starts]
        texts = [[token] for token in step.pending.tolist()]
        for length in range(1, min(self._num_draft, step.max_nodes - 1) + 1):
            open_ = [i for i, text in enumerate(texts) if len(text) == length <= room[i]]
            if not open_:
                break
            drafted = self._next([(step.rows[i], starts[i], texts[i]) for i in open_])
            for i, token in zip(open_, drafted, strict=True):
                if token >= 0:
                    texts[i].append(token)
        return from_tokens(step.pending, [text[1:] for text in texts])

    def observe(
        self,
        step: Step,
        tree: DraftTree,
        logits: Tensor,
        path: Tensor,
        accept_length: Tensor,
        hidden: Mapping[int, Tensor],
    ) -> None:
        """Learn nothing."""

    def observe_prompt(
        self, row: int, start: int, tokens: Tensor, hidden: Mapping[int, Tensor]
    ) -> None:
        """Learn nothing."""

    def _next(self, parts: list[tuple[int, int, list[int]]]) -> list[int]:
        """Return the likeliest token after each chain that follows what is in pages."""
        assert self._runner is not None
        runner = self._runner
        most = int(runner.cache.num_slots.max())
        rows = chains(parts, runner.num_rows, most, runner.model.device)
        hidden = runner.forward(rows, layers=range(self._layers)).hidden
        last = torch.tensor([len(tokens) for _, _, tokens in parts]).cumsum(0) - 1
        return vocab.argmax(runner.model.norm_head(hidden[last])).tolist()
