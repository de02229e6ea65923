"""One prompt being answered: its tokens, place in the cache, constraint and text."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .. import vocab
from ..errors import Error
from ..grammar import Grammar
from ..protocols import Constraint, DraftTree, LayeredModel
from .checks import prompt_fault
from .forward import chunk_end
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


@contextmanager
def isolate(request: "Request") -> Iterator[None]:
    """Let a fault end ``request`` alone."""
    try:
        yield
    except RequestFault as fault:
        request.fail(str(fault))


class Request:
    """State between steps.

    ``edit`` and ``masks`` change nothing that counts: an interrupted step can be run again.
    """

    def __init__(
        self,
        model: LayeredModel,
        index: int,
        prompt: list[int],
        options: Options,
        leader: "Request | None" = None,
    ) -> None:
        """Take the tokens of a prompt. A bad prompt ends the request at once.

        Args:
            model: the model.
            index: the request's id.
            prompt: tokens.
            options: of this request.
            leader: an earlier request with the same prompt, whose pages it may fork.
        """
        self.index = index
        self.options = options
        self.finish_reason: FinishReason | None = None
        self.leader = leader
        self.handle: int | None = None  # of its sequence in the cache, once it has one
        self.row = -1  # of the cache's tables, while it has a handle
        self.cached = 0  # tokens whose keys and values are in pages
        self.is_swapped = False  # its pages are out
        self.first_logits: Tensor | None = None  # [1, V], behind the prompt, once a fork has them
        self.stats = Stats(prompt_tokens=len(prompt))
        self._model = model
        self._history = History(prompt, model.device)  # its last token is pending
        self._error: str | None = None
        self._constraint: Constraint | None = None
        self._text = AnswerText(model.tokenizer, options.stop_strings)
        self._pieces: list[str] = []
        self._unsent: deque[str] = deque()
        self._logprobs: list[TokenLogprob] = []
        self._started = 0.0  # 0 while the request waits
        self._first_chosen = 0.0  # 0 until there is a token
        if fault := prompt_fault(prompt, model.vocab_size, model.max_positions):
            self.fail(fault)

    @property
    def tokens(self) -> list[int]:
        """Return the tokens of prompt and answer, not to be changed."""
        return self._history.tokens

    @property
    def prompt_length(self) -> int:
        """Return the number of tokens of the prompt."""
        return self._history.num_prompt

    @property
    def is_decoding(self) -> bool:
        """Whether the whole prompt is in pages."""
        return self.cached >= self._history.num_prompt

    @property
    def base_pos(self) -> int:
        """Return the position of the pending token."""
        return len(self._history.tokens) - 1

    @property
    def next_end(self) -> int:
        """Return where the rows of the next pass end: a chunk of the prompt, or one token."""
        return chunk_end(self.cached, len(self._history.tokens))

    def start(self) -> None:
        """Start the constraint and the clock.

        Raises:
            RequestFault: the constraint did not start.
        """
        self._started = time.perf_counter()
        constraint = self.options.constraint
        if constraint is not None and not isinstance(constraint, str | Grammar):
            with _blame("constraint"):
                self._constraint = constraint.start()

    def edit(self, logits: Tensor, tree: DraftTree | None = None) -> Tensor:
        """Return the rows to choose from: after bias, penalties and processors.

        Args:
            logits: ``[n, V]``, float32, of the model; they stay as they are. Row i follows node i.
            tree: of this request alone; None is the pending token.

        Raises:
            RequestFault: a processor raised.
        """
        if not (self.options.sampling.edits_logits or self.options.processors):
            return logits
        rows = [self._edit(row, path) for row, path in zip(logits, paths(tree), strict=True)]
        return torch.stack(rows)

    def accept(self, tokens: Sequence[int], logits: Tensor, edited: Tensor) -> None:
        """Take in what a step has chosen, up to the end of the answer if that is among it.

        Args:
            tokens: ids in order; the last may be -1: none could be chosen there.
            logits: ``[len(tokens), V]`` of the model, a row for each token.
            edited: ``[len(tokens), V]``, what they were chosen from.

        Raises:
            RequestFault: none could be chosen, or the constraint raised.
        """
        try:
            self.first_logits = None
            self.stats.steps += 1
            for i, token in enumerate(tokens):
                self._accept(token, logits[i], edited[i])
                if self.finish_reason is not None:
                    return
        except KeyboardInterrupt:  # the one place that cannot be run again
            self.fail("interrupted while a token was taken in")
            raise

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
            stats=self.stats,
        )

    def _edit(self, row: Tensor, path: Sequence[int]) -> Tensor:
        """Return ``row [V]`` after bias, penalties and processors, as if ``path`` were text."""
        sampling, history = self.options.sampling, self._history
        if sampling.edits_logits:
            row = edit_logits(row, sampling, history.seen(path), history.answer_counts(path))
        for i, processor in enumerate(self.options.processors):
            name = getattr(processor, "__name__", type(processor).__name__)
            with _blame(f"processor {i} ({name})"):
                row = _process(processor, history.tensor(path), row)
        return row

    def masks(self, tree: DraftTree | None = None) -> Tensor | None:
        """Return the constraint's bits for what follows each node, ``[n, ceil(V / 32)]``.

        Args:
            tree: of this request alone; None is the pending token.

        Raises:
            RequestFault: the constraint raised.
        """
        if self._constraint is None:
            return None
        device = self._model.device
        tree = tree or one_node(self._history.tokens[-1], device)
        with _blame("constraint"), self._masking():
            masks = self._constraint.masks(tree)
            expected = (tree.tokens.numel(), -(-self._model.vocab_size // 32))
            if masks is not None and (masks.dtype != torch.int32 or masks.shape != expected):
                got = f"{masks.dtype} {list(masks.shape)}"
                raise ValueError(f"expected masks of int32 {list(expected)}, got {got}")
        return masks if masks is None else masks.to(device)

    def _accept(self, token: int, logits: Tensor, edited: Tensor) -> None:
        if token < 0:
            raise RequestFault(_no_choice(logits, edited))
        if self.options.sampling.logprobs is not None:
            self._logprobs.append(_logprob(token, logits, self.options.sampling.logprobs))
        if self._constraint is not None:
            with _blame("constraint"), self._masking():
                self._constraint.advance((token,))
        self._history.append(token)
        self.stats.tokens += 1
        self._first_chosen = self._first_chosen or time.perf_counter()
        if token in self._model.eos_ids:
            self._finish("eos")
            return
        self._emit(self._text.push(token))
        if self._text.stopped:
            self._finish("stop")
        elif self.stats.tokens == self.options.max_new_tokens or self._positions_used_up():
            self._finish("length")

    @contextmanager
    def _masking(self) -> Iterator[None]:
        """Count the time spent in the constraint."""
        started = time.perf_counter()
        yield
        self.stats.mask_time += time.perf_counter() - started

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
        now = time.perf_counter()
        self.stats.seconds = now - self._started if self._started else 0.0
        self.stats.decode_seconds = now - self._first_chosen if self._first_chosen else 0.0
        self.finish_reason = reason


def one_node(token: int, device: torch.device) -> DraftTree:
    """Return the tree of the pending token alone."""
    return DraftTree(
        tokens=torch.tensor([token], device=device),
        parents=torch.tensor([-1], dtype=torch.int32, device=device),
        indptr=torch.tensor([0, 1], dtype=torch.int32, device=device),
    )


def paths(tree: DraftTree | None) -> list[list[int]]:
    """Return the tokens from the root, which is left out, to each node of one tree."""
    if tree is None:
        return [[]]
    found: list[list[int]] = []
    for token, parent in zip(tree.tokens.tolist(), tree.parents.tolist(), strict=True):
        found.append([*found[parent], token] if parent >= 0 else [])
    return found


def _process(processor: Processor, tokens: Tensor, row: Tensor) -> Tensor:
    edited = processor(tokens, row.clone())  # both are its own
    if not isinstance(edited, Tensor) or edited.shape != row.shape:
        got = list(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
        raise ValueError(f"expected logits of shape {list(row.shape)} back, got {got}")
    if bool(edited.isnan().any()) and not bool(row.isnan().any()):
        raise ValueError("the logits that came back hold NaN")
    return edited.to(row)  # another device would fail for all rows once they are stacked


def _no_choice(logits: Tensor, edited: Tensor) -> str:
    """Say why no token could be chosen from ``edited [V]``, made of the model's ``logits [V]``."""
    if bool(logits.isnan().any()):
        return "the model's logits hold NaN"
    if bool(torch.isneginf(edited).all()) and not bool(torch.isneginf(logits).all()):
        return "no token is allowed: bias and processors forbid all of them"
    return "no token is allowed"


def _logprob(token: int, logits: Tensor, num_top: int) -> TokenLogprob:
    """Return the log-probabilities of ``token`` and of the most likely tokens under ``logits``."""
    logprobs = logits - vocab.lse(logits[None])[0]
    values, ids = logprobs.topk(num_top)
    top = sorted(zip(ids.tolist(), values.tolist(), strict=True), key=lambda t: (-t[1], t[0]))
    return TokenLogprob(token, float(logprobs[token]), tuple(top))
