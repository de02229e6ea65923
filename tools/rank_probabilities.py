"""How often the next token is candidate 0, 1, ... of the one before it: for lmx.tree.template.

Plain greedy text of SmolLM2 over the bench's prompts; the matrix is made of the text so far.
Counted are tokens whose predecessor had candidates. A few minutes.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import lmx  # noqa: E402
from bench.prompts import KINDS  # noqa: E402

RANKS, TOKENS, PROMPTS = 8, 128, 2


class Counter:
    """A processor that watches a text."""

    def __init__(self, counts: list[int]) -> None:
        """Take what it adds to: tokens at each rank, then the others."""
        self._counts = counts
        self._matrix: dict[int, list[int]] = {}
        self._expected: list[int] | None = None

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Count the newest token; remember what may follow it."""
        token = int(tokens[-1])
        if self._expected is not None:
            known = token in self._expected
            self._counts[self._expected.index(token) if known else RANKS] += 1
        self._expected = self._matrix.get(token)
        self._matrix[token] = logits.topk(RANKS).indices.tolist()
        return logits


def main() -> int:
    """Print the shares of every kind of prompt, and of all."""
    torch.set_num_threads(1)
    model = lmx.load("smollm2", dtype=torch.bfloat16)
    total = [0] * (RANKS + 1)
    for kind, prompts in KINDS.items():
        counts = [0] * (RANKS + 1)
        for prompt in prompts[:PROMPTS]:
            chat, watch = [{"role": "user", "content": prompt}], Counter(counts)
            lmx.generate(model, [chat], max_new_tokens=TOKENS, processors=[watch])
        total = [a + b for a, b in zip(total, counts, strict=True)]
        for name, found in ((kind, counts), ("all so far", total)):
            shares = " ".join(f"{count / max(1, sum(found)):.3f}" for count in found)
            print(f"{name:20} {sum(found):5} tokens: {shares}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
