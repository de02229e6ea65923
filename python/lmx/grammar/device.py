"""``DeviceAutomaton``: a regular grammar as tensors, so that decoding needs no host."""

import torch
from torch import Tensor

from .._C import grammar as _native
from . import ops
from .grammars import CompiledGrammar


def _tensor(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


class DeviceAutomaton:
    """An automaton over bytes with the mask of each state; its states are one int32 per row.

    ``masks`` and ``mask_ids(states)`` are the bitmask and mask ids of ``lmx.vocab``'s ops, so a
    step is ``vocab.sample(logits, u, automaton.masks, automaton.mask_ids(states))`` and
    ``automaton.step(states, tokens)``: nothing waits for the host.
    """

    def __init__(
        self,
        compiled: CompiledGrammar,
        *,
        device: torch.device | str = "cpu",
        max_states: int = 65_534,
    ) -> None:
        """Work out all states.

        Args:
            compiled: a grammar that has finitely many states, such as a regular expression.
            device: of all tensors.
            max_states: at most 65,534, with the one after a stop token.

        Raises:
            GrammarLimitError: there are more states, or infinitely many.
            GrammarError: the grammar has token edges.
        """
        if not 2 <= max_states <= 65_534:
            raise ValueError(f"max_states: expected 2 to 65534, got {max_states}")
        vocabulary = compiled.vocabulary
        states, transitions, classes, num_masks, masks, mask_ids = _native.device_tables(
            compiled, max_states
        )
        symbols, offsets = _native.device_vocabulary(vocabulary)
        self.num_states: int = states
        self.transitions = _tensor(transitions, torch.int16).view(states, -1).to(device)
        self.classes = _tensor(classes, torch.int16).to(device)
        self.symbols = _tensor(symbols, torch.int16).to(device)
        self.offsets = _tensor(offsets, torch.int32).to(device)
        words = vocabulary.num_words
        self.masks = _tensor(masks, torch.int32).view(num_masks, words)
        # The mask of state -1, last: nothing is allowed.
        self.masks = torch.cat((self.masks, torch.zeros(1, words, dtype=torch.int32))).to(device)
        ids = _tensor(mask_ids, torch.int32)
        self._mask_ids = torch.cat((ids, ids.new_tensor([num_masks]))).to(device)

    def start(self, num_rows: int) -> Tensor:
        """Return the states of new texts, int32 ``[num_rows]``."""
        return torch.zeros(num_rows, dtype=torch.int32, device=self.classes.device)

    def step(self, states: Tensor, tokens: Tensor, status: Tensor | None = None) -> Tensor:
        """Return the states after ``tokens [num_rows]``, int64; -1 after one not allowed."""
        tables = self.transitions, self.classes, self.symbols, self.offsets
        return ops.step(states, tokens, *tables, status=status)

    def mask_ids(self, states: Tensor) -> Tensor:
        """Return int32 ``[num_rows]``: which row of ``masks`` holds for each state."""
        return self._mask_ids[states.long()]  # index -1 is the last entry
