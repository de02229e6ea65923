"""The tokens of a request, kept in the forms that a step reads, so that none is made anew."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

_MIN_CAPACITY = 64


class History:
    """Tokens of prompt and answer; a token is added in constant time."""

    def __init__(self, prompt: Sequence[int], device: torch.device) -> None:
        """Take the tokens of a prompt."""
        self.tokens = list(prompt)
        self.seen = set(prompt)
        self.answer_counts: Counter[int] = Counter()
        self._num_prompt = len(prompt)
        self._buffer = torch.empty(0, dtype=torch.int64, device=device)
        self._num_copied = 0  # tokens that stand in the buffer

    @property
    def answer(self) -> list[int]:
        """Return the tokens after the prompt."""
        return self.tokens[self._num_prompt :]

    def append(self, token: int) -> None:
        """Add a token of the answer."""
        self.tokens.append(token)
        self.seen.add(token)
        self.answer_counts[token] += 1

    def tensor(self) -> Tensor:
        """Return all tokens, ``[T]``, int64: a view that callers must not write to.

        Only the tokens that are new since the last call are copied, so a request that never asks
        pays nothing. The capacity doubles, so copying is linear in total.
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
        return self._buffer[:length]
