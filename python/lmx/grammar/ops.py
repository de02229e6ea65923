"""Typed faces of ``torch.ops.lmx.grammar_*``.

A handle is the number of a live matcher (``Matcher.handle``); operators on handles run on the CPU.
``grammar_step`` needs no host: it walks an automaton that lies in tensors, on the CPU and on CUDA.

Raises, all of them: RuntimeError where a shape, dtype or device is wrong; ValueError where a value
is out of its range, a handle's matcher is gone, or two entries name one matcher or row.
"""

import torch
from torch import Tensor


def fill(
    handles: Tensor,
    bitmask: Tensor,
    status: Tensor,
    rows: Tensor | None = None,
    num_threads: int = 1,
) -> None:
    """Write each matcher's mask into its row of ``bitmask``.

    Args:
        handles: int64 ``[num_matchers]``.
        bitmask: int32 ``[num_rows, mask_words]``; rows that no matcher has stay as they are.
        status: int32 ``[num_matchers]``, receives PARTIAL (0), ALL_ALLOWED (1), TERMINATED (2),
            NO_TOKEN (3) or LIMIT (4); of the last two the row is zeros.
        rows: int32 ``[num_matchers]``; None stands for 0, 1, ...
        num_threads: threads of the native pool to use, the caller's included.

    Reference: ``lmx.grammar.reference.fill``.
    """
    torch.ops.lmx.grammar_fill(handles, bitmask, status, rows, num_threads)


def accept(handles: Tensor, tokens: Tensor) -> Tensor:
    """Give each matcher its token.

    Args:
        handles: int64 ``[num_matchers]``.
        tokens: int64 ``[num_matchers]``.

    Returns:
        bool ``[num_matchers]``: whether it was allowed; else the matcher stays as it was.

    Reference: ``lmx.grammar.reference.accept``.
    """
    return torch.ops.lmx.grammar_accept(handles, tokens)


def fill_tree(
    handle: Tensor,
    parents: Tensor,
    tokens: Tensor,
    bitmask: Tensor,
    valid: Tensor,
    root_is_current: bool = False,
) -> None:
    """Write what may follow each node of a draft tree; the matcher stays as it is.

    Args:
        handle: int64 ``[1]``.
        parents: int32 ``[N]``, ``parents[i] < i``, -1 at a root.
        tokens: int64 ``[N]``.
        bitmask: int32 ``[N, mask_words]``; zeros where a node may not follow.
        valid: int32 ``[N]``, receives 1, or 0 for a node that may not follow or is below one.
        root_is_current: the matcher has read the token of node 0.

    Reference: ``lmx.grammar.reference.fill_tree``.
    """
    torch.ops.lmx.grammar_fill_tree(handle, parents, tokens, bitmask, valid, root_is_current)


def step(
    states: Tensor,
    tokens: Tensor,
    transitions: Tensor,
    classes: Tensor,
    symbols: Tensor,
    offsets: Tensor,
    *,
    status: Tensor | None = None,
) -> Tensor:
    """Take one token through an automaton: see ``DeviceAutomaton``, which holds the tables.

    Args:
        states: int32 ``[num_rows]``; -1 is the state that no token leaves.
        tokens: int64 ``[num_rows]``.
        transitions: ``[num_states, num_classes]``, int16 whose bits are uint16; 0xFFFF = no way.
        classes: int16 ``[258]``: of each byte, of "no byte" and of "stop".
        symbols: int16 ``[num_symbols]``: bytes, 256 or 257, those of token 0 first.
        offsets: int32 ``[vocab_size + 1]``, into ``symbols``.
        status: int32 ``[num_rows]``, receives bits of ``csrc/common/status.h`` for rows with a bad
            token, state or table entry, whose next state is -1.

    Returns:
        int32 ``[num_rows]``: next states.

    Reference: ``lmx.grammar.reference.step``.
    """
    return torch.ops.lmx.grammar_step(
        states, tokens, transitions, classes, symbols, offsets, status
    )
