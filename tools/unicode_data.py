"""Write csrc/grammar/host/unicode_data.cpp from the tables of the `regex` package.

    python tools/unicode_data.py

A set is a string of numbers: gap, length, gap, length, ...; each is written in groups of five
bits, low ones first, a group being a letter of ALPHABET, with 32 added where more groups follow.
"""

import string
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import regex

ROOT = Path(__file__).resolve().parents[1]
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase + "+-"
CHARS = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
BINARY = (
    "Alphabetic ASCII_Hex_Digit Hex_Digit Lowercase Uppercase White_Space ID_Start ID_Continue "
    "XID_Start XID_Continue Math Dash Diacritic Ideographic Emoji Emoji_Presentation "
    "Extended_Pictographic Cased"
)
HEAD = """// grammar/host/unicode_data.cpp: made by tools/unicode_data.py; not to be edited.
#include "unicode_data.h"

// clang-format off
namespace lmx::grammar {
"""


def varint(n: int) -> str:
    text = ""
    while n >= 32:
        text += ALPHABET[n % 32 + 32]
        n //= 32
    return text + ALPHABET[n]


def code(position: int) -> int:
    """The code point at a position of CHARS."""
    return position if position < 0xD800 else position + 0x800


def encoded(ranges: Iterable[tuple[int, int]]) -> str:
    text, at = "", 0
    for lo, hi in ranges:
        text += varint(lo - at) + varint(hi - lo)
        at = hi + 1
    return text


def ranges_of(pattern: str) -> list[tuple[int, int]]:
    spans = [m.span() for m in regex.finditer(f"(?:{pattern})+", CHARS)]
    return [(code(a), code(b - 1)) for a, b in spans]


def literal(text: str, taken: int) -> str:
    """Strings of C++ whose lines have 100 columns, `taken` of them gone in the first one."""
    first = 94 - taken
    pieces = [text[:first]] + [text[i : i + 97] for i in range(first, len(text), 97)]
    return "\n".join(f'"{p}"' for p in pieces)


def sets() -> dict[str, str]:
    core: Any = regex._regex_core
    groups = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co"
    found = {name: encoded(ranges_of(rf"\p{{{name}}}")) for name in groups.split()}
    scripts = core.PROPERTIES["SCRIPT"][1]
    by_id: dict[int, str] = {}
    for name, number in scripts.items():
        if len(name) > len(by_id.get(number, "")):
            by_id[number] = name
    for name in sorted(by_id.values()):
        ranges = ranges_of(rf"\p{{Script={name}}}")
        if ranges and name != "UNKNOWN":
            found[name.lower()] = encoded(ranges)
    for name in BINARY.split():
        found[name.lower()] = encoded(ranges_of(rf"\p{{{name}}}"))
    return found


def case_pairs() -> str:
    """Code points and their partners by simple case mapping, in order: gap, partner."""
    text, at = "", 0
    for c in CHARS:
        partners = {p for p in (c.lower(), c.upper(), c.title(), c.casefold()) if len(p) == 1} - {c}
        for p in sorted(partners):
            text += varint(ord(c) - at) + varint(ord(p))
            at = ord(c)
    return text


def main() -> int:
    lines = [HEAD, "const UnicodeSet kUnicodeSets[] = {"]
    lines += [f'{{"{n}", {literal(text, len(n) + 5)}}},' for n, text in sets().items()]
    lines += ["{nullptr, nullptr},\n};", "", "const char* const kCasePairs ="]
    lines += [f"{literal(case_pairs(), 0)};", "}  // namespace lmx::grammar", ""]
    (ROOT / "csrc/grammar/host/unicode_data.cpp").write_text("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
