"""From tokens to text, piece by piece: incremental detokenisation and stop strings."""

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what decoders write for a character cut in the middle
_CONTEXT = 4  # tokens: more than special tokens, which have no text, stand in a row


class Detokenizer:
    """Turns tokens into text as they come; a character is given out once all its bytes are there.

    All pieces together are ``tokenizer.decode(tokens, skip_special_tokens=True)``. The text of a
    token is what it adds to that of the few tokens before it, because tokenizers of the
    SentencePiece kind drop the space before the first token they are given.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Take a Transformers tokenizer."""
        self._tokenizer = tokenizer
        self._window: list[int] = []  # the newest tokens, decoded together
        self._known = 0  # tokens of the window whose text has been given out

    def push(self, token: int) -> str:
        """Take the next token; return the text that is now certain."""
        self._window.append(token)
        return self._advance(final=False)

    def finish(self) -> str:
        """Return what was held back."""
        return self._advance(final=True)

    def _advance(self, final: bool) -> str:
        before, after = self._decode(self._window[: self._known]), self._decode(self._window)
        if after.endswith(_INCOMPLETE) and not final:
            return ""
        self._window = self._window[-_CONTEXT:]
        self._known = len(self._window)
        return after[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


class StopText:
    """Cuts text before the first stop string, wherever the pieces it comes in are cut.

    The stop string that is complete first decides; of several that end together, the longest.
    Text that may still become part of a stop string is held back.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        """Take the stop strings, none of them empty."""
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Take more text; return what is certainly before any stop string."""
        text = self._held + piece
        found = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        self.stopped = bool(found)
        certain = min(found)[1] if found else len(text) - self._longest_start(text)
        self._held = "" if found else text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """Return what was held back: no stop string has come of it."""
        held, self._held = self._held, ""
        return held

    def _longest_start(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that a stop string starts with."""
        longest = max((len(s) for s in self._stop), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        ends = (size for size in sizes if any(s.startswith(text[-size:]) for s in self._stop))
        return next(ends, 0)


class AnswerText:
    """The text of an answer: detokenised, cut before a stop string, in pieces."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        """Take a Transformers tokenizer, or None for answers without text, and stop strings."""
        self._detokenizer = Detokenizer(tokenizer) if tokenizer is not None else None
        self._stop_text = StopText(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stop_text.stopped

    def push(self, token: int) -> str:
        """Take the next token; return the text that is now certain."""
        return self._stop_text.push(self._detokenizer.push(token)) if self._detokenizer else ""

    def finish(self) -> str:
        """Return what was held back: there are no more tokens."""
        if self._detokenizer is None or self.stopped:
            return ""
        piece = self._stop_text.push(self._detokenizer.finish())
        return piece + self._stop_text.finish()
