"""The room's ops in plain torch: slow, clear, safe in float64. Tests compare with these."""

import torch
from torch import Tensor


def allowed_tokens(
    logits: Tensor, token_bitmask: Tensor | None = None, mask_ids: Tensor | None = None
) -> Tensor:
    """Bool ``[num_rows, vocab_size]``."""
    num_rows, vocab_size = logits.shape
    if token_bitmask is None:
        return torch.ones(num_rows, vocab_size, dtype=torch.bool)
    bits = token_bitmask[..., None] >> torch.arange(32, dtype=torch.int32) & 1
    allowed = bits.bool().flatten(1)[:, :vocab_size]
    allowed = torch.nn.functional.pad(allowed, (0, vocab_size - allowed.shape[1]))
    if mask_ids is None:
        return allowed
    everything = torch.ones(1, vocab_size, dtype=torch.bool)
    return torch.cat([allowed, everything])[mask_ids.long()]


def masked(logits: Tensor, *mask: Tensor | None) -> Tensor:
    """The logits in float64, ``-inf`` where a token is not allowed."""
    return logits.double().masked_fill(~allowed_tokens(logits, *mask), -torch.inf)


def mask_apply_(logits: Tensor, token_bitmask: Tensor, mask_ids: Tensor | None = None) -> None:
    """See ``lmx.vocab.mask_apply_``."""
    logits.masked_fill_(~allowed_tokens(logits, token_bitmask, mask_ids), -torch.inf)


def argmax(logits: Tensor, *mask: Tensor | None) -> Tensor:
    """See ``lmx.vocab.argmax``."""
    x = masked(logits, *mask)
    best = x.amax(-1, keepdim=True)
    ids = torch.arange(x.shape[1]).expand_as(x)
    first = ids.masked_fill(x != best, x.shape[1]).amin(-1)
    return torch.where(best.isfinite() | (best == torch.inf), first[:, None], -1)[:, 0]


def softmax(
    logits: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    temperature: Tensor | None = None,
    top_k: Tensor | None = None,
    top_p: Tensor | None = None,
    min_p: Tensor | None = None,
) -> Tensor:
    """See ``lmx.vocab.softmax``; float64."""
    x = masked(logits, token_bitmask, mask_ids)
    if temperature is not None:
        greedy = temperature < 1e-3
        best = torch.arange(x.shape[1]) == argmax(x)[:, None]
        x = x.masked_fill(greedy[:, None] & ~best & ~x.isnan(), -torch.inf)
        x = x / torch.where(greedy, 1.0, temperature.double())[:, None]
    x, order = torch.sort(x, dim=-1, descending=True, stable=True)
    rank = torch.arange(x.shape[1])
    if top_k is not None:
        x = x.masked_fill((top_k > 0)[:, None] & (rank >= top_k[:, None]), -torch.inf)
    p = x.softmax(-1)
    if top_p is not None:
        before = p.cumsum(-1) - p
        x = x.masked_fill((top_p < 1)[:, None] & (before >= top_p[:, None].double()), -torch.inf)
    if min_p is not None:
        x = x.masked_fill(p < min_p[:, None].double() * p[:, :1] * (1 - 1e-12), -torch.inf)
    nothing = (x == -torch.inf).all(-1, keepdim=True)
    p = x.softmax(-1).masked_fill(nothing, 0.0)
    return torch.empty_like(p).scatter_(-1, order, p)


def lse(
    logits: Tensor,
    token_bitmask: Tensor | None = None,
    mask_ids: Tensor | None = None,
    temperature: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See ``lmx.vocab.lse``; float64."""
    t = 1.0 if temperature is None else temperature.double()[:, None]
    x = masked(logits, token_bitmask, mask_ids)
    return (logits.double() / t).logsumexp(-1), (x / t).logsumexp(-1)


def logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """See ``lmx.vocab.logprobs``; float64."""
    picked = logits.double().log_softmax(-1).gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return torch.where(targets < 0, 0.0, picked)


def sample(logits: Tensor, uniforms: Tensor, *options: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ``lmx.vocab.sample``; float64, so a draw within rounding of a border may differ."""
    p = softmax(logits, *options)
    cumulative = p.cumsum(-1)
    target = uniforms.double()[:, None] * cumulative[:, -1:]
    token = (cumulative <= target).sum(-1)
    nothing = ~(cumulative[:, -1] > 0)
    logprob = p.gather(1, token.clamp(max=p.shape[1] - 1)[:, None])[:, 0].log()
    return token.masked_fill(nothing, -1), logprob.masked_fill(nothing, torch.nan)


def uniform(
    seeds: Tensor,
    positions: Tensor,
    purpose: int,
    indices: Tensor | None = None,
    hi: Tensor | None = None,
) -> Tensor:
    """See ``lmx.vocab.uniform``: Philox4x32-10 in Python's integers."""
    low = (1 << 32) - 1
    zeros = [0] * len(seeds)
    numbers = zip(
        seeds.tolist(),
        positions.tolist(),
        zeros if indices is None else indices.tolist(),
        zeros if hi is None else hi.tolist(),
        strict=True,
    )
    result = []
    for seed, position, index, high in numbers:
        c = [position & low, purpose | position >> 32 << 8 & low, index // 4, high]
        k0, k1 = seed & low, seed >> 32 & low
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [p1 >> 32 ^ c[1] ^ k0, p1 & low, p0 >> 32 ^ c[3] ^ k1, p0 & low]
            k0, k1 = k0 + 0x9E3779B9 & low, k1 + 0xBB67AE85 & low
        result.append((c[index % 4] >> 8) * 2.0**-24)
    return torch.tensor(result, dtype=torch.float64)


def mask_from_bool(allowed: Tensor) -> Tensor:
    """See ``lmx.vocab.mask_from_bool``."""
    padded = torch.nn.functional.pad(allowed.long(), (0, -allowed.shape[1] % 32))
    words = (padded.view(len(padded), -1, 32) << torch.arange(32)).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def mask_to_bool(token_bitmask: Tensor, vocab_size: int) -> Tensor:
    """See ``lmx.vocab.mask_to_bool``."""
    return allowed_tokens(torch.empty(token_bitmask.shape[0], vocab_size), token_bitmask)


def mask_and_(token_bitmask: Tensor, other: Tensor) -> None:
    """See ``lmx.vocab.mask_and_``."""
    token_bitmask.bitwise_and_(other)


def mask_or_(token_bitmask: Tensor, other: Tensor) -> None:
    """See ``lmx.vocab.mask_or_``."""
    token_bitmask.bitwise_or_(other)


def mask_popcount(token_bitmask: Tensor, vocab_size: int = -1) -> Tensor:
    """See ``lmx.vocab.mask_popcount``."""
    size = 32 * token_bitmask.shape[1] if vocab_size < 0 else vocab_size
    empty = torch.empty(token_bitmask.shape[0], size)
    return allowed_tokens(empty, token_bitmask).sum(-1).int()


def mask_gather(
    pool: Tensor, mask_ids: Tensor, vocab_size: int = -1, *, status: Tensor | None = None
) -> Tensor:
    """See ``lmx.vocab.mask_gather``."""
    size = 32 * pool.shape[1] if vocab_size < 0 else vocab_size
    ones = mask_from_bool((torch.arange(32 * pool.shape[1]) < size)[None])
    return torch.cat((pool, ones))[mask_ids.long()]  # index -1 is the last row
