"""Weights of an interpolation, by the likelihood of held-back text."""

from torch import Tensor

ROUNDS, TOLERANCE = 200, 1e-6


def tune_lambda(prob_index: Tensor, prob_model: Tensor) -> float:
    """The weight lambda that makes ``lambda p + (1 - lambda) q`` most likely, by EM.

    The likelihood is concave in lambda, so the fixed point is the optimum. Call it once for sparse
    estimates and once for the others.

    Args:
        prob_index: ``[N]``, the index's probability of each token.
        prob_model: ``[N]``, the model's.

    Returns:
        A weight in [0, 1]; 0 where the index gives nothing.

    Raises:
        ValueError: shapes differ, or a value is no probability.

    Source: infini-gram (arXiv 2401.17377), section 5.
    """
    if prob_index.shape != prob_model.shape or prob_index.dim() != 1:
        shapes = f"{list(prob_index.shape)} and {list(prob_model.shape)}"
        raise ValueError(f"tune_lambda: expected two vectors of one size, got {shapes}")
    p, q = prob_index.double(), prob_model.double()
    if not bool(((p >= 0) & (p <= 1) & (q >= 0) & (q <= 1)).all()):
        raise ValueError("tune_lambda: expected probabilities in [0, 1]")
    informative = (p > 0) | (q > 0)
    p, q = p[informative], q[informative]
    if not bool((p > 0).any()):
        return 0.0
    lam = 0.5
    for _ in range(ROUNDS):
        share = lam * p
        new = float((share / (share + (1 - lam) * q)).mean())
        if abs(new - lam) < TOLERANCE:
            return new
        lam = new
    return lam


def relative_improvement(perplexity: float, without: float) -> float:
    """How much of ``without - 1`` a perplexity takes away, in percent."""
    return (1 - (perplexity - 1) / (without - 1)) * 100
