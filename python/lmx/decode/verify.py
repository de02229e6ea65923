"""Which tokens follow: the law of each request, and one choice for all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import vocab
from .checks import status_fault
from .request import Request, isolate
from .sampling import draw, fetch


class Choice(NamedTuple):
    """What a request goes on with."""

    request: Request
    tokens: list[int]  # the last one may be -1: none could be chosen there
    fault: str  # what an operator says of the request's sampling; "" = nothing
    logits: Tensor  # [len(tokens), V], of the model
    edited: Tensor  # [len(tokens), V], what the tokens were chosen from


class _Law(NamedTuple):
    """The rows of a request, ready to be chosen from."""

    request: Request
    logits: Tensor  # [1, V]
    edited: Tensor
    mask: Tensor | None  # [1, ceil(V / 32)]


def verify(
    requests: Sequence[Request], logits: Tensor, status: Tensor
) -> tuple[list[Choice], list[int]]:
    """Choose the next token of each request.

    A request whose processors or constraint raise ends with its error and has no choice.

    Args:
        requests: R of them.
        logits: ``[R, V]``, float32, of the model: what follows each request's pending token.
        status: ``[B]``, int32, of the pass. It comes back as a list, in the same copy from the
            device.
    """
    laws: list[_Law] = []
    for i, request in enumerate(requests):
        with isolate(request):
            row = logits[i : i + 1]
            laws.append(_Law(request, row, request.edit(row), request.masks()))
    if not laws:
        return [], fetch(status)[0]
    is_plain = len(laws) == len(requests) and all(law.edited is law.logits for law in laws)
    edited = logits if is_plain else torch.cat([law.edited for law in laws])
    tokens, bits, faults = fetch(
        *draw(
            edited,
            stack_masks([law.mask for law in laws], [1] * len(laws), logits),
            [law.request.options.sampling for law in laws],
            [law.request.base_pos for law in laws],
        ),
        status,
    )
    choices = [
        Choice(law.request, [token], _draw_fault(bit), law.logits, law.edited)
        for law, token, bit in zip(laws, tokens, bits, strict=True)
    ]
    return choices, faults


def _draw_fault(bits: int) -> str:
    return f"no token can be drawn: {status_fault(bits)}" if bits else ""


def stack_masks(
    masks: Sequence[Tensor | None], sizes: Sequence[int], logits: Tensor
) -> Tensor | None:
    """Return one bitmask for all rows, or None if no row has one.

    Args:
        masks: of each request, ``[size, ceil(V / 32)]``, int32, or None.
        sizes: rows of each request.
        logits: ``[sum of sizes, V]``.
    """
    if all(mask is None for mask in masks):
        return None
    shape = (1, logits.shape[1])
    everything = vocab.mask_from_bool(torch.ones(shape, dtype=torch.bool, device=logits.device))
    pairs = zip(masks, sizes, strict=True)
    return torch.cat([everything.expand(n, -1) if mask is None else mask for mask, n in pairs])
