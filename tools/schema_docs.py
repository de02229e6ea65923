"""Write docs/grammar.md's table of JSON Schema's keywords from the rows that the tests hold."""

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- keywords: tools/schema_docs.py -->\n", "<!-- end -->\n"


def main() -> int:
    """Replace what stands between the marks."""
    sys.path.insert(0, str(ROOT / "tests"))
    table = import_module("grammar.schema_rows").table
    path = ROOT / "docs" / "grammar.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
