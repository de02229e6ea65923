"""A grammar as a Transformers' logits processor."""

from torch import Tensor

from .. import vocab
from ..grammar import CompiledGrammar, Matcher, new_bitmask
from .processors import LogitsProcessor


class GrammarLogitsProcessor(LogitsProcessor):
    """Only texts of a grammar, for ``model.generate(logits_processor=[...])``.

    Make one per call of ``generate``: the first call of the processor sees the prompt. A row that
    beam search has moved is read again from its beginning.
    """

    def __init__(self, compiled: CompiledGrammar) -> None:
        """Take the grammar, compiled for the model's tokenizer and number of logits."""
        self._compiled = compiled
        self._prompt_length = -1
        self._matchers: list[Matcher] = []
        self._read: list[list[int]] = []

    def edit(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores of tokens that the grammar does not allow to -inf.

        Raises:
            ValueError: a row has a token that the grammar does not allow.
        """
        if self._prompt_length < 0:
            self._prompt_length = input_ids.shape[1]
        while len(self._matchers) < len(input_ids):
            self._matchers.append(Matcher(self._compiled))
            self._read.append([])
        bitmask = new_bitmask(len(input_ids), self._compiled.vocabulary.size)
        for row, tokens in enumerate(input_ids[:, self._prompt_length :].tolist()):
            self._advance(row, tokens)
            self._matchers[row].fill(bitmask, row)
        vocab.mask_apply_(scores, bitmask.to(scores.device))
        return scores

    def _advance(self, row: int, tokens: list[int]) -> None:
        matcher, known = self._matchers[row], self._read[row]
        if tokens[: len(known)] != known:
            matcher.reset()
            known = []
        if matcher.is_terminated():  # padding behind the end
            return
        more = tokens[len(known) :]
        accepted = matcher.accept_many(more)
        if accepted < len(more) and not matcher.is_terminated():
            raise ValueError(f"row {row}: the grammar does not allow token {more[accepted]} there")
        self._read[row] = tokens
