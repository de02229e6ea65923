"""How one does in torch what lmx.layerskip does."""

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_mm(x: Tensor, w: Tensor, ends: Tensor) -> Tensor:
    """Rows sorted by group, ``ends`` the end of each group."""
    return F.grouped_mm(x, w.transpose(1, 2), offs=ends)


def loop_of_linears(x: Tensor, w: Tensor, ends: Tensor) -> Tensor:
    """The same, a linear a group."""
    bounds = [0, *ends.tolist()]
    parts = [F.linear(x[a:b], w[g]) for g, (a, b) in enumerate(zip(bounds, bounds[1:]))]  # noqa: B905
    return torch.cat(parts)


def picked_linear(x: Tensor, w: Tensor, rows: Tensor, out: Tensor) -> Tensor:
    """Some rows only: index_select, linear, index_copy."""
    return out.index_copy_(0, rows, F.linear(x.index_select(0, rows), w))


def whole_linear(x: Tensor, w: Tensor, active: Tensor, out: Tensor) -> Tensor:
    """Some rows only: all of them, and a choice afterwards."""
    return torch.where(active[:, None], F.linear(x, w), out)


def swiglu(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """Two linears and what joins them."""
    return F.silu(F.linear(x, gate)) * F.linear(x, up)


def rms_norm(x: Tensor, gamma: Tensor) -> Tensor:
    """torch's own."""
    return F.rms_norm(x, x.shape[1:], gamma, 1e-6)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """torch's own."""
    return F.layer_norm(x, x.shape[1:], gamma, beta)
