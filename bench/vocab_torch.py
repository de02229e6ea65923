"""The ops of lmx.vocab as torch's own ops do them: what bench/vocab.py compares with.

Ways that draw take our uniforms and give our law, unless their name says otherwise.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .race import Way

NEG_INF = float("-inf")


def softmax(x: Tensor, temperature: float | None = None) -> Tensor:
    if temperature is not None:
        x = x.float() / temperature
    return torch.softmax(x, -1, dtype=torch.float32)


# ---- log of a sum of exponentials ----------------------------------------------------------------


def lse_by_log_softmax(x: Tensor) -> Tensor:
    """A pass of vectorised exp, which torch.logsumexp does not have."""
    return x[:, 0] - torch.log_softmax(x, -1, dtype=torch.float32)[:, 0]


def lse_by_exp(x: Tensor) -> Tensor:
    top = x.amax(-1, keepdim=True)
    return (x.float() - top).exp_().sum(-1).log_() + top[:, 0]


LSE: dict[str, Way] = {
    "logsumexp": lambda x: torch.logsumexp(x.float(), -1),
    "log_softmax": lse_by_log_softmax,
    "exp+sum": lse_by_exp,
}
LOGPROBS: dict[str, Way] = {
    "log_softmax+gather": lambda x, t: torch.log_softmax(x, -1, dtype=torch.float32).gather(
        1, t[:, None]
    ),
    "logsumexp+gather": lambda x, t: x.gather(1, t[:, None])[:, 0] - torch.logsumexp(x.float(), -1),
    "softmax+gather": lambda x, t: softmax(x).gather(1, t[:, None]).log_(),
    "cross_entropy": lambda x, t: -F.cross_entropy(x.float(), t, reduction="none"),
}
ARGMAX: dict[str, Way] = {
    "argmax": lambda x: torch.argmax(x, -1),
    "max": lambda x: torch.max(x, -1).indices,
    "topk": lambda x: torch.topk(x, 1, -1, sorted=False).indices[:, 0],
}

# ---- draws ---------------------------------------------------------------------------------------


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    sums = probs.cumsum(-1)
    return torch.searchsorted(sums, (uniforms * sums[:, -1])[:, None], right=True)[:, 0]


def gumbel(probs: Tensor) -> Tensor:
    """A race of exponential clocks; the first to ring is drawn."""
    return (probs / torch.empty_like(probs).exponential_()).argmax(-1)


def dense(temperature: float | None) -> dict[str, Way]:
    return {
        "softmax+cumsum+searchsorted": lambda x, u: draw(softmax(x, temperature), u),
        "softmax+multinomial (own draw)": lambda x, u: torch.multinomial(
            softmax(x, temperature), 1
        ),
        "softmax+exponential (own draw)": lambda x, u: gumbel(softmax(x, temperature)),
    }


def cut(probs: Tensor, top_p: float, min_p: float) -> Tensor:
    """Put 0 at what top-p and min-p drop; `probs` in descending order."""
    if top_p < 1:
        before = probs.cumsum(-1) - probs
        probs = probs.masked_fill(before >= top_p, 0)
    return probs.masked_fill_(probs < min_p * probs[:, :1], 0) if min_p > 0 else probs


def draw_sorted(x: Tensor, u: Tensor, ids: Tensor, top_p: float, min_p: float) -> Tensor:
    at = draw(cut(softmax(x), top_p, min_p), u)
    return ids.gather(1, at[:, None])[:, 0]


def truncated(top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> dict[str, Way]:
    """Sort and cut; draw in sorted order, or scatter back to the order of ids first."""

    def by_sort(x: Tensor, u: Tensor) -> Tensor:
        x, ids = x.sort(-1, descending=True)
        if top_k:
            x, ids = x[:, :top_k], ids[:, :top_k]
        return draw_sorted(x, u, ids, top_p, min_p)

    def by_sort_and_scatter(x: Tensor, u: Tensor) -> Tensor:
        x, ids = x.sort(-1, descending=True)
        if top_k:
            x[:, top_k:] = NEG_INF
        probs = cut(softmax(x), top_p, min_p)
        return draw(torch.empty_like(probs).scatter_(1, ids, probs), u)

    def by_topk(x: Tensor, u: Tensor) -> Tensor:
        x, ids = x.topk(top_k, -1)
        return draw_sorted(x, u, ids, top_p, min_p)

    def by_threshold(x: Tensor, u: Tensor) -> Tensor:
        probs = softmax(x)
        return draw(probs.masked_fill_(probs < min_p * probs.amax(-1, keepdim=True), 0), u)

    ways: dict[str, Way] = {"sort (ids by rank)": by_sort, "sort+scatter": by_sort_and_scatter}
    if top_k:
        ways["topk (ids by rank)"] = by_topk
    if not top_k and top_p == 1:
        ways["softmax+threshold"] = by_threshold
    return ways


# The arguments of lmx.vocab.sample, and the torch ways of (logits, uniforms) for them.
SAMPLING: dict[str, tuple[dict[str, Any], dict[str, Way]]] = {
    "plain": ({}, dense(None)),
    "temperature": ({"temperature": 0.8}, dense(0.8)),
    "greedy": (
        {"temperature": 0.0},
        {name: lambda x, _, way=way: way(x) for name, way in ARGMAX.items()},
    ),
    "top_k": ({"top_k": 50}, truncated(top_k=50)),
    "top_p": ({"top_p": 0.9}, truncated(top_p=0.9)),
    "top_k+top_p": ({"top_k": 50, "top_p": 0.9}, truncated(top_k=50, top_p=0.9)),
    "min_p": ({"min_p": 0.05}, truncated(min_p=0.05)),
}

# ---- masks ---------------------------------------------------------------------------------------


def hide(x: Tensor, allowed: Tensor) -> Tensor:
    return torch.where(allowed, x, NEG_INF)


def pack(allowed: Tensor) -> Tensor:
    """Bools to words: bit j of word i is element 32 i + j."""
    bits = F.pad(allowed, (0, -allowed.shape[1] % 32)).view(allowed.shape[0], -1, 32)
    powers = torch.ones(32, dtype=torch.int32, device=allowed.device) << torch.arange(
        32, dtype=torch.int32, device=allowed.device
    )
    return (bits * powers).sum(-1, dtype=torch.int32)


def unpack(bitmask: Tensor, vocab_size: int) -> Tensor:
    shifts = torch.arange(32, dtype=torch.int32, device=bitmask.device)
    bits = (bitmask[:, :, None] >> shifts).bitwise_and_(1).view(bitmask.shape[0], -1)
    return bits[:, :vocab_size].to(torch.bool)


def popcount(bitmask: Tensor) -> Tensor:
    """Sums of neighbours in ever wider fields (Warren, Hacker's Delight, section 5-1)."""
    x = bitmask - ((bitmask >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).sum(-1, dtype=torch.int32)


def popcount_by_table(bitmask: Tensor, table: Tensor) -> Tensor:
    """`table[i]`: the number of ones in i, for the 2^16 values of half a word."""
    halves = bitmask.view(torch.int16).int() & 0xFFFF
    return table[halves].sum(-1, dtype=torch.int32)
