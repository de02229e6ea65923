"""Write docs/composition.md from the table that the tests of option pairs run."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write the page."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "python")]
    page = importlib.import_module("decode.composition").page
    (ROOT / "docs" / "composition.md").write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
