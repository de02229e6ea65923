"""What may be written to a terminal."""

import unicodedata

# Control characters (an escape sequence cannot do without one), format characters (the marks that
# change the direction of text, and those without width), line and paragraph separators, and
# surrogates, which no encoding takes: a model must not move the cursor or hide what it says.
_UNSAFE = ("Cc", "Cf", "Zl", "Zp", "Cs")


def escape(text: str) -> str:
    r"""Return ``text`` with every unsafe character spelled out, ``\x1b`` or ``\u202e``."""
    return "".join(c if _is_safe(c) else _spell(ord(c)) for c in text)


def _is_safe(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in _UNSAFE


def _spell(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
