"""The tokens of a request, kept in the forms that a step reads, so that none is made anew."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

_MIN_CAPACITY = 64


class History:
    """Tokens of prompt and answer; a token is added in constant time."""

    def __init__(self, prompt: Sequence[int], device: torch.device) -> None:
        """Take the tokens of a prompt."""
        self.tokens = list(prompt)
        self.num_prompt = len(prompt)
        self._seen = set(prompt)
        self._answer_counts: Counter[int] = Counter()
        self._buffer = torch.empty(0, dtype=torch.int64, device=device)
        self._num_copied = 0  # tokens that stand in the buffer

    @property
    def answer(self) -> list[int]:
        """Return the tokens after the prompt."""
        return self.tokens[self.num_prompt :]

    def append(self, token: int) -> None:
        """Add a token of the answer."""
        self.tokens.append(token)
        self._seen.add(token)
        self._answer_counts[token] += 1

    def seen(self, path: Sequence[int] = ()) -> Collection[int]:
        """Return the tokens of prompt and answer, each once, ``path`` drafted behind them."""
        return self._seen | set(path) if path else self._seen

    def answer_counts(self, path: Sequence[int] = ()) -> Mapping[int, int]:
        """Return how often each token stands in the answer, ``path`` drafted behind it."""
        return self._answer_counts + Counter(path) if path else self._answer_counts

    def tensor(self, path: Sequence[int] = ()) -> Tensor:
        """Return all tokens, ``[T]``, int64, ``path`` drafted behind them: callers own it.

        Only the tokens that are new since the last call are copied from the host, so a request
        that never asks pays nothing. The capacity doubles, so copying is linear in total.
        """
        length = len(self.tokens)
        if length > self._buffer.numel():
            grown = self._buffer.new_empty(max(_MIN_CAPACITY, 1 << (length - 1).bit_length()))
            grown[: self._num_copied] = self._buffer[: self._num_copied]
            self._buffer = grown
        fresh = self.tokens[self._num_copied :]
        if fresh:
            self._buffer[self._num_copied : length] = self._buffer.new_tensor(fresh)
        self._num_copied = length
        known = self._buffer[:length]
        return torch.cat((known, known.new_tensor(list(path)))) if path else known.clone()
