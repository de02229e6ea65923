"""What may be written to a terminal."""

import re

# Control characters but tab and newline (an escape sequence cannot do without one), and the marks
# that change the direction of text: a model must not move the cursor or hide what it says.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    r"""Return ``text`` with every unsafe character spelled out, ``\x1b`` or ``\u202e``."""
    return _UNSAFE.sub(_spell, text)


def _spell(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
