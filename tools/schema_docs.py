"""Write the table of JSON Schema's keywords in docs/grammar.md from the rows that the tests hold."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- keywords: tools/schema_docs.py -->\n", "<!-- end -->\n"


def main() -> int:
    """Replace what stands between the marks."""
    sys.path.insert(0, str(ROOT / "tests"))
    from grammar.schema_rows import table

    path = ROOT / "docs" / "grammar.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
