"""How the next token is chosen from a row of logits."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .. import vocab
from .checks import as_float32, require, require_int, require_number

_NODE_DRAW = 1  # purposes of speculative decoding's random numbers: the draw of a node ...
_BRANCH_SEED = 4  # ... and, beyond the four that decoding steps use, the seed of a branch
_LARGEST = 1e6  # what is far beyond any use, but keeps logits finite in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Settings of one request. The defaults are greedy decoding.

    With logits ``z``, ``seen`` the tokens of prompt and answer so far and ``c(t)`` how often token
    t stands in the answer so far, the law is made in this order::

        z(t) += logit_bias[t]
        z(t)  = z(t) / repetition_penalty if z(t) > 0 else z(t) * repetition_penalty   # t in seen
        z(t) -= presence_penalty * (c(t) > 0) + frequency_penalty * c(t)
        z     = each processor in turn; tokens that the constraint forbids drop out
        p     = softmax(z / temperature), cut by top_k, then top_p, then min_p, renormalised

    The repetition penalty is Transformers' (Keskar et al. 2019, arXiv 1909.05858, section 4.1),
    presence and frequency penalty and bias are those of the OpenAI API.
    """

    temperature: float = 0.0  # 0 takes the most likely token, the lowest id among equals
    top_k: int = 0  # keep the k most likely tokens; 0 keeps all
    top_p: float = 1.0  # keep the fewest most likely tokens that hold this much mass
    min_p: float = 0.0  # keep tokens at least this likely relative to the most likely one
    seed: int = 0  # the random numbers of a request depend on its seed and positions alone
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # -inf forbids a token
    logprobs: int | None = None  # alternatives to report beside each chosen token's log-probability
    n: int = 1  # answers per prompt; branch b draws from a seed of its own

    def __post_init__(self) -> None:
        """Check every field."""
        require_number("temperature", self.temperature, 0, _LARGEST)
        require_int("top_k", self.top_k, 0, 2**31 - 1)
        require_number("top_p", self.top_p, 0, 1)
        require(as_float32(self.top_p) > 0, "top_p", "a number above 0 in float32", self.top_p)
        require_number("min_p", self.min_p, 0, 1)
        require_int("seed", self.seed, 0, 2**63 - 1)
        require_number("repetition_penalty", self.repetition_penalty, 1 / _LARGEST, _LARGEST)
        require_number("presence_penalty", self.presence_penalty, -_LARGEST, _LARGEST)
        require_number("frequency_penalty", self.frequency_penalty, -_LARGEST, _LARGEST)
        for token, bias in self.logit_bias.items():
            require_int("logit_bias: token", token, 0)
            if bias != -math.inf:
                require_number("logit_bias", bias, -_LARGEST, _LARGEST)
        if self.logprobs is not None:
            require_int("logprobs", self.logprobs, 0)
        require_int("n", self.n, 1)
        is_varied = self.n == 1 or as_float32(self.temperature) > 0
        require(is_varied, "n", "1 at temperature 0, where all answers are equal", self.n)

    @property
    def edits_logits(self) -> bool:
        """Whether ``edit_logits`` changes anything."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return bool(self.logit_bias) or penalties != (1.0, 0.0, 0.0)


GREEDY = Sampling()


def branches(sampling: Sampling) -> list[Sampling]:
    """Split ``n`` answers into requests of one answer; branch 0 keeps the seed of the request."""
    if sampling.n == 1:
        return [sampling]
    branch = torch.arange(sampling.n).repeat_interleave(3)
    seeds = torch.full_like(branch, sampling.seed)
    index = torch.arange(3).repeat(sampling.n)
    words = vocab.uniform(seeds, branch, _BRANCH_SEED, index).double().mul(2**24).long().view(-1, 3)
    derived = (words[:, 0] << 39 | words[:, 1] << 15 | words[:, 2] >> 9).tolist()  # 63 bits
    return [replace(sampling, n=1, seed=seed) for seed in [sampling.seed, *derived[1:]]]


def edit_logits(
    row: Tensor, sampling: Sampling, seen: Collection[int], counts: Mapping[int, int]
) -> Tensor:
    """Return logits ``row [V]`` after bias and penalties; ``row`` itself stays as it is.

    Args:
        row: the logits.
        sampling: holds bias and penalties.
        seen: the tokens that prompt and answer hold so far, each once.
        counts: how often each token stands in the answer so far.
    """
    row = row.clone()
    if sampling.logit_bias:
        row[list(sampling.logit_bias)] += row.new_tensor(list(sampling.logit_bias.values()))
    if sampling.repetition_penalty != 1.0:
        ids, penalty = list(seen), sampling.repetition_penalty
        row[ids] = torch.where(row[ids] > 0, row[ids] / penalty, row[ids] * penalty)
    if counts and (sampling.presence_penalty or sampling.frequency_penalty):
        penalties = [
            sampling.presence_penalty + sampling.frequency_penalty * count
            for count in counts.values()
        ]
        row[list(counts)] -= row.new_tensor(penalties)
    return row


def draw(
    logits: Tensor, bitmask: Tensor | None, samplings: Sequence[Sampling], base_pos: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Choose a token from each row of logits.

    A row with a bad value has a status and no token; it leaves the other rows alone.

    Args:
        logits: ``[R, V]``, float32.
        bitmask: ``[R, ceil(V / 32)]``, int32, bits of tokens that may be chosen, or None.
        samplings: R settings; their penalties and bias are taken to be in ``logits`` already.
        base_pos: R positions of the tokens that the rows follow: they select the random numbers.

    Returns:
        Token ids ``[R]``, int64, -1 where no token is allowed, or a NaN is among the allowed ones;
        and status values ``[R]``, int32, 0 or bits that ``checks.status_fault`` puts into words.
    """
    status = torch.zeros(len(samplings), dtype=torch.int32, device=logits.device)
    if all(s.temperature == 0 for s in samplings):
        return vocab.argmax(logits, bitmask, status=status), status
    return _sample(logits, bitmask, samplings, base_pos, status), status


def fetch(*tensors: Tensor) -> list[list[int]]:
    """Return integer vectors as lists: one copy from the device for all."""
    values = torch.cat([tensor.long() for tensor in tensors]).tolist()
    lists, start = [], 0
    for tensor in tensors:
        lists.append(values[start : start + tensor.numel()])
        start += tensor.numel()
    return lists


def _sample(
    logits: Tensor,
    bitmask: Tensor | None,
    samplings: Sequence[Sampling],
    base_pos: Sequence[int],
    status: Tensor,
) -> Tensor:
    device = logits.device
    seeds = torch.tensor([s.seed for s in samplings], device=device)
    uniforms = vocab.uniform(seeds, torch.tensor(base_pos, device=device), _NODE_DRAW)
    tokens, _ = vocab.sample(
        logits,
        uniforms,
        bitmask,
        temperature=torch.tensor([float(s.temperature) for s in samplings], device=device),
        top_k=torch.tensor([s.top_k for s in samplings], dtype=torch.int32, device=device),
        top_p=torch.tensor([float(s.top_p) for s in samplings], device=device),
        min_p=torch.tensor([float(s.min_p) for s in samplings], device=device),
        status=status,
    )
    return tokens
