"""Perplexity of SmolLM2 on held-back standard-library code, with and without the index.

    python -m bench.ngram_perplexity [windows]

Every 40th file is kept out of the index. Half of the windows tune the two weights, the other half
is measured. Exit code 1 unless the relative improvement is at least 20 %.
"""

import math
import sys

import torch

import lmx
from lmx.ngram import relative_improvement, tune_lambda

from . import ngram_corpus as data

WINDOW = 256  # tokens
GATE = 20.0  # percent


def windows(count: int) -> list[list[int]]:
    """The first tokens of held-back files that are long enough, spread over all of them."""
    held = [d for i, d in enumerate(data.documents()) if i % data.HELD_BACK == 0]
    long = [d for d in held if len(d) >= WINDOW]
    step = max(1, len(long) // count)
    return [d[:WINDOW].tolist() for d in long[::step][:count]]


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    texts = windows(count)
    model = lmx.load("smollm2")
    by_model = torch.stack(lmx.score(model, texts)).double().exp()
    scores = data.library_index(False).score(texts)
    by_index = scores.prob.view(-1, WINDOW)[:, 1:].clamp(min=0)
    sparse = scores.sparse.view(-1, WINDOW)[:, 1:]
    tuned, measured = slice(0, None, 2), slice(1, None, 2)
    lams = [
        tune_lambda(by_index[tuned][mask], by_model[tuned][mask])
        for mask in (sparse[tuned], ~sparse[tuned])
    ]
    lam = torch.where(sparse, *map(torch.tensor, lams))
    mixed = lam * by_index + (1 - lam) * by_model
    alone, together = (math.exp(-p[measured].log().mean()) for p in (by_model, mixed))
    gain = relative_improvement(together, alone)
    right = (by_index > 0.5).double().mean()
    print(f"{len(texts)} windows of {WINDOW} tokens, half to tune, half to measure")
    print(f"lambda sparse {lams[0]:.3f}, dense {lams[1]:.3f}; sparse {sparse.double().mean():.1%}")
    print(f"the index agrees with {right:.1%} of tokens")
    print(f"perplexity {alone:.3f} alone, {together:.3f} mixed: {gain:.1f} % better")
    return 0 if gain >= GATE else 1


if __name__ == "__main__":
    sys.exit(main())
