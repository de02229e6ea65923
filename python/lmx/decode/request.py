"""One prompt being answered: its tokens, cache, constraint and text."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .. import vocab
from ..errors import Error
from ..grammar import Grammar
from ..protocols import Constraint, DraftTree, LayeredModel
from .cache import KVBuffer
from .checks import prompt_fault
from .forward import chunk_end, forward
from .generation import FinishReason, Generation, Stats, TokenLogprob
from .history import History
from .options import Options, Processor
from .sampling import edit_logits
from .text import AnswerText

_logger = logging.getLogger("lmx")


class RequestFault(Error):
    """What ends one request and leaves the others alone."""


@contextmanager
def _blame(culprit: str) -> Iterator[None]:
    """Turn an exception of the caller's code into the fault of one request."""
    try:
        yield
    except Exception as fault:
        raise RequestFault(f"{culprit} failed: {type(fault).__name__}: {fault}") from fault


class Request:
    """State between steps. ``advance``, ``law`` and ``accept`` make one step, in this order.

    The first two change nothing that counts, so a step that was interrupted can be run again.
    """

    def __init__(
        self, model: LayeredModel, index: int, prompt: list[int], options: Options
    ) -> None:
        """Take the tokens of a prompt. A bad prompt ends the request at once."""
        self.index = index
        self.options = options
        self.finish_reason: FinishReason | None = None
        self._model = model
        self._history = History(prompt, model.device)  # its last token is pending
        self._error: str | None = None
        self._cache = KVBuffer(model)
        self._constraint: Constraint | None = None
        self._text = AnswerText(model.tokenizer, options.stop_strings)
        self._pieces: list[str] = []
        self._unsent: deque[str] = deque()
        self._logprobs: list[TokenLogprob] = []
        self._stats = Stats(prompt_tokens=len(prompt))
        self._started = 0.0  # 0 while the request waits
        if fault := prompt_fault(prompt, model.vocab_size, model.max_positions):
            self.fail(fault)

    @property
    def base_pos(self) -> int:
        """Return the position of the pending token."""
        return len(self._history.tokens) - 1

    def advance(self) -> Tensor | None:
        """Run the next chunk of the prompt, or the pending token.

        Returns:
            Logits ``[V]``, float32, that the next token is to be chosen from, or None in the
            middle of the prompt.

        Raises:
            RequestFault: the constraint did not start.
        """
        if not self._started:
            self._start()
        start, known = self._cache.length, self._history.tokens
        end = chunk_end(start, len(known))
        tokens = torch.tensor(known[start:end], device=self._model.device)
        hidden = forward(self._model, self._cache, tokens)
        self._stats.layers_run += self._model.num_layers
        if end < len(known):
            self._cache.commit(end - start)
            return None
        return self._model.norm_head(hidden[-1:])[0]

    def law(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the row to choose from, and its bitmask if the constraint has one.

        Args:
            logits: ``[V]``, float32, of the model; they stay as they are.

        Raises:
            RequestFault: a processor or the constraint raised, or nothing is left to choose.
        """
        sampling, row = self.options.sampling, logits
        if sampling.edits_logits:
            row = edit_logits(row, sampling, self._history.seen, self._history.answer_counts)
        for i, processor in enumerate(self.options.processors):
            name = getattr(processor, "__name__", type(processor).__name__)
            with _blame(f"processor {i} ({name})"):
                row = self._process(processor, row)
        if row is not logits and bool(torch.isneginf(row).all()):
            raise RequestFault("no token is allowed: bias and processors forbid all of them")
        return row, self._mask()

    def accept(self, token: int, logits: Tensor) -> None:
        """Take in the chosen token.

        Args:
            token: its id, or -1 if none could be chosen.
            logits: ``[V]`` of the model, as ``advance`` returned them.

        Raises:
            RequestFault: none could be chosen, or the constraint raised.
        """
        try:
            self._accept(token, logits)
        except KeyboardInterrupt:  # the one place that cannot be run again
            self.fail("interrupted while a token was taken in")
            raise

    def _accept(self, token: int, logits: Tensor) -> None:
        if token < 0:
            has_nan = bool(logits.isnan().any())
            raise RequestFault("the model's logits hold NaN" if has_nan else "no token is allowed")
        if self.options.sampling.logprobs is not None:
            self._logprobs.append(_logprob(token, logits, self.options.sampling.logprobs))
        if self._constraint is not None:
            with _blame("constraint"), self._masking():
                self._constraint.advance((token,))
        self._cache.commit(len(self._history.tokens) - self._cache.length)
        self._history.append(token)
        self._stats.steps += 1
        self._stats.tokens += 1
        if token in self._model.eos_ids:
            self._finish("eos")
            return
        self._emit(self._text.push(token))
        if self._text.stopped:
            self._finish("stop")
        elif self._stats.tokens == self.options.max_new_tokens or self._positions_used_up():
            self._finish("length")

    def fail(self, error: str) -> None:
        """End with an error."""
        _logger.info("request %d: %s", self.index, error)
        self._error = error
        self._finish("error")

    def deliver(self) -> None:
        """Hand new text to the caller's stream."""
        while self.options.stream is not None and self._unsent:
            self.options.stream(self.index, self._unsent.popleft())

    def generation(self) -> Generation:
        """Return the answer of a request that has ended."""
        assert self.finish_reason is not None
        wants_logprobs = self.options.sampling.logprobs is not None
        return Generation(
            tokens=self._history.answer,
            text="".join(self._pieces),
            finish_reason=self.finish_reason,
            error=self._error,
            logprobs=self._logprobs if wants_logprobs else None,
            stats=self._stats,
        )

    def _start(self) -> None:
        """Start the constraint and the clock."""
        constraint = self.options.constraint
        if constraint is not None and not isinstance(constraint, str | Grammar):
            with _blame("constraint"):
                self._constraint = constraint.start()
        self._started = time.perf_counter()

    def _process(self, processor: Processor, row: Tensor) -> Tensor:
        edited = processor(self._history.tensor().clone(), row.clone())  # both are its own
        if not isinstance(edited, Tensor) or edited.shape != row.shape:
            got = list(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise ValueError(f"expected logits of shape {list(row.shape)} back, got {got}")
        if bool(edited.isnan().any()) and not bool(row.isnan().any()):
            raise ValueError("the logits that came back hold NaN")
        return edited.to(row)  # another device would fail for all rows once they are stacked

    def _mask(self) -> Tensor | None:
        """Return the constraint's bits for the next token, ``[1, ceil(V / 32)]``, or None."""
        if self._constraint is None:
            return None
        device = self._model.device
        tree = DraftTree(
            tokens=torch.tensor(self._history.tokens[-1:], device=device),
            parents=torch.tensor([-1], dtype=torch.int32, device=device),
            indptr=torch.tensor([0, 1], dtype=torch.int32, device=device),
        )
        with _blame("constraint"), self._masking():
            mask = self._constraint.masks(tree)
            expected = (1, -(-self._model.vocab_size // 32))
            if mask is not None and (mask.dtype != torch.int32 or mask.shape != expected):
                got = f"{mask.dtype} {list(mask.shape)}"
                raise ValueError(f"expected masks of int32 {list(expected)}, got {got}")
        return mask if mask is None else mask.to(device)

    @contextmanager
    def _masking(self) -> Iterator[None]:
        """Count the time spent in the constraint."""
        started = time.perf_counter()
        yield
        self._stats.mask_time += time.perf_counter() - started

    def _positions_used_up(self) -> bool:
        return len(self._history.tokens) > self._model.max_positions

    def _emit(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self._unsent.append(piece)

    def _finish(self, reason: FinishReason) -> None:
        self._emit(self._text.finish())
        if self._text.stopped and reason != "error":
            reason = "stop"
        self._stats.seconds = time.perf_counter() - self._started if self._started else 0.0
        self.finish_reason = reason


def _logprob(token: int, logits: Tensor, num_top: int) -> TokenLogprob:
    """Return the log-probabilities of ``token`` and of the most likely tokens under ``logits``."""
    logprobs = logits - vocab.lse(logits[None])[0]
    values, ids = logprobs.topk(num_top)
    top = sorted(zip(ids.tolist(), values.tolist(), strict=True), key=lambda t: (-t[1], t[0]))
    return TokenLogprob(token, float(logprobs[token]), tuple(top))
