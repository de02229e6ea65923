"""From tokens to text, piece by piece: incremental detokenisation and stop strings."""

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what decoders write for a character cut in the middle
_MAX_CUT = 3  # bytes, so tokens at most, of a character that is not complete: UTF-8 takes up to 4
_CONTEXT = 4  # tokens: more than special tokens, which have no text, stand in a row
_ROOM = 16  # tokens of the window before it is cut, so that not every token pays for a cut ...
_LIMIT = 32  # ... and where it is cut although text is held back, or no good place is found


class Detokenizer:
    """Turns tokens into text as they come; a character is given out once all its bytes are there.

    All pieces together are ``tokenizer.decode(tokens, skip_special_tokens=True)``, as long as text
    does not depend on tokens further away than the window. The newest tokens are decoded together,
    because tokenizers of the SentencePiece kind drop the space before the first token they are
    given. Bytes that make no character are given out as well, at most three characters late.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Take a Transformers tokenizer."""
        self._tokenizer = tokenizer
        self._window: list[int] = []  # the newest tokens
        self._given = 0  # characters of the window's text that have been given out
        self._num_held = 0  # tokens since text last ended with a complete character

    def push(self, token: int) -> str:
        """Take the next token; return the text that is now certain."""
        self._window.append(token)
        self._num_held += 1
        text = self._decode(self._window)
        piece = text[self._given : self._certain(text)]
        self._given += len(piece)
        return piece + self._shorten(text)

    def finish(self) -> str:
        """Return what was held back."""
        text = self._decode(self._window)
        piece = text[self._given :]
        self._given += len(piece)
        return piece

    def _certain(self, text: str) -> int:
        """Return how many characters of the window's text further tokens do not change."""
        num_cut = len(text) - len(text.rstrip(_INCOMPLETE))
        if num_cut == 0:
            self._num_held = 0
            return len(text)
        if self._num_held <= _MAX_CUT:  # it may all be one character
            return self._given
        return len(text) - min(num_cut, _MAX_CUT)  # decoders write one mark per byte, or fewer

    def _shorten(self, text: str) -> str:
        """Drop old tokens once there are many. Return text that can then be held back no longer."""
        num_held_back = max(0, len(text) - self._given)
        if len(self._window) <= (_LIMIT if num_held_back else _ROOM):
            return ""
        # One of these places is not within a character, where each token is a byte. Where tokens
        # are cut differently, bytes at the front may be left over: marks, which are no text.
        for size in range(_CONTEXT, 2 * _CONTEXT + 1):
            rest = self._decode(self._window[-size:])
            kept = rest if text.endswith(rest) else rest.lstrip(_INCOMPLETE)
            if kept and text.endswith(kept) and len(kept) >= num_held_back:
                self._window, self._given = self._window[-size:], len(rest) - num_held_back
                return ""
        if len(self._window) <= _LIMIT:
            return ""
        self._window = self._window[-_CONTEXT:]
        piece, self._given = text[self._given :], len(self._decode(self._window))
        return piece

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
