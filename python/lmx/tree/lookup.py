"""Prompt lookup: where the last tokens occurred before, what followed them is drafted.

Saxena 2023, "Prompt lookup decoding"; Yang et al. 2023, arXiv 2304.04487. Good where the answer
repeats its prompt: summaries, edits, questions about a text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ..protocols import DraftTree, Step
from .shapes import from_tokens
from .sizing import Sizer


@dataclass(slots=True)
class _Text:
    """A request's tokens, and where each short run of them was last, or first, continued."""

    tokens: list[int] = field(default_factory=list)
    seen: dict[tuple[int, ...], int] = field(default_factory=dict)  # run -> where it goes on
    drafted: int = 0  # tokens of the last draft
    accepted: int = 0


class PromptLookup:
    """The drafter: a chain of what followed the longest run of last tokens that occurred before.

    A token costs a few dictionary entries when it is added, and a draft a few look-ups, however
    long the text is.
    """

    taps: tuple[int, ...] = ()

    def __init__(
        self,
        *,
        max_ngram: int = 3,
        min_ngram: int = 1,
        num_draft: int = 10,
        match: Literal["first", "last"] = "last",
        sizer: Sizer | None = None,
    ) -> None:
        """Set what holds for all requests.

        Args:
            max_ngram, min_ngram: lengths of the runs that are looked up, the longest first.
            num_draft: tokens to draft at most.
            match: which of several occurrences goes on; the common libraries take the first.
            sizer: chooses for every request how many tokens, over ``from_chain(num_draft)``.

        Raises:
            ValueError: an argument is out of range.
        """
        if not 1 <= min_ngram <= max_ngram or num_draft < 1 or match not in ("first", "last"):
            raise ValueError(
                "PromptLookup: expected 1 <= min_ngram <= max_ngram, num_draft >= 1 and match first"
                f" or last, got {min_ngram}, {max_ngram}, {num_draft}, {match!r}"
            )
        self._lengths = range(min_ngram, max_ngram + 1)
        self._num_draft = num_draft
        self._keeps_first = match == "first"
        self._sizer = sizer
        self._texts: dict[int, _Text] = {}

    @property
    def name(self) -> str:
        """Return what statistics call it."""
        return f"lookup:{self._num_draft}" if self._sizer is None else "lookup:auto"

    def propose(self, step: Step) -> DraftTree:
        """Return one chain per request."""
        pending, base_pos = step.pending.tolist(), step.base_pos.tolist()
        drafts = []
        for row, token, position in zip(step.rows, pending, base_pos, strict=True):
            text = self._texts.setdefault(row, _Text())
            del text.tokens[position + 1 :]
            if len(text.tokens) == position:
                self._append(text, token)
            self._watch(row, text)
            draft = self._draft(text, min(self._num_draft, step.max_nodes - 1))
            if self._sizer is not None:
                draft = draft[: self._sizer.size(row, len(draft) + 1) - 1]
            text.drafted = len(draft)
            drafts.append(draft)
        return from_tokens(step.pending, drafts)

    def observe(
        self,
        step: Step,
        tree: DraftTree,
        logits: Tensor,
        path: Tensor,
        accept_length: Tensor,
        hidden: Mapping[int, Tensor],
    ) -> None:
        """Add the accepted tokens to the texts."""
        nodes, starts = path.tolist(), tree.indptr.tolist()
        tokens = tree.tokens.tolist()
        for i, (row, count) in enumerate(zip(step.rows, accept_length.tolist(), strict=True)):
            text = self._texts.setdefault(row, _Text())
            text.accepted = count
            for node in nodes[i][1 : count + 1]:
                self._append(text, tokens[starts[i] + node])

    def observe_prompt(
        self, row: int, start: int, tokens: Tensor, hidden: Mapping[int, Tensor]
    ) -> None:
        """Add a part of a prompt."""
        if start == 0:
            self._texts[row] = _Text()
            if self._sizer is not None:
                self._sizer.reset(row)
        for token in tokens.tolist():
            self._append(self._texts[row], token)

    def _append(self, text: _Text, token: int) -> None:
        """Add a token: the runs before it now go on."""
        end = len(text.tokens)
        for length in self._lengths:
            if length > end:
                break
            run = tuple(text.tokens[end - length :])
            if self._keeps_first:
                text.seen.setdefault(run, end)
            else:
                text.seen[run] = end
        text.tokens.append(token)

    def _draft(self, text: _Text, most: int) -> list[int]:
        end = len(text.tokens)
        for length in reversed(self._lengths):
            if length <= end:
                start = text.seen.get(tuple(text.tokens[end - length :]))
                if start is not None:
                    return text.tokens[start : start + most]
        return []

    def _watch(self, row: int, text: _Text) -> None:
        """Tell the sizer how far the last draft was right."""
        if self._sizer is not None and text.drafted:
            missed = [-1] if text.accepted < text.drafted else []
            self._sizer.watch(row, [0] * text.accepted + missed)
        text.drafted = text.accepted = 0
