"""What the ops mean, in plain Python: matchers stand in for handles."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .matcher import NO_TOKEN, PARTIAL, TERMINATED, Matcher


def mask(matcher: Matcher) -> Tensor:
    """Which tokens may come next, ``[mask_words]``: each one is tried on a fork."""
    vocabulary = matcher.compiled.vocabulary
    words = torch.zeros(vocabulary.num_words, dtype=torch.int64)
    for token in range(vocabulary.size):
        if matcher.fork().accept(token):
            words[token // 32] |= 1 << token % 32
    return torch.where(words < 2**31, words, words - 2**32).int()


def fill(
    matchers: Sequence[Matcher],
    bitmask: Tensor,
    status: Tensor,
    rows: Tensor | None = None,
    num_threads: int = 1,
) -> None:
    """See ``lmx.grammar.fill``. Takes an all-allowed mask for a partial one."""
    for i, matcher in enumerate(matchers):
        words = mask(matcher)
        bitmask[i if rows is None else int(rows[i])] = words
        is_empty = not bool(words.any())
        status[i] = TERMINATED if matcher.is_terminated() else NO_TOKEN if is_empty else PARTIAL


def accept(matchers: Sequence[Matcher], tokens: Tensor) -> Tensor:
    """See ``lmx.grammar.accept``."""
    pairs = zip(matchers, tokens.tolist(), strict=True)
    return torch.tensor([matcher.accept(token) for matcher, token in pairs], dtype=torch.bool)


def fill_tree(
    matcher: Matcher,
    parents: Tensor,
    tokens: Tensor,
    bitmask: Tensor,
    valid: Tensor,
    root_is_current: bool = False,
) -> None:
    """See ``lmx.grammar.fill_tree``: every path from the start, on a fork of its own."""
    for i in range(len(parents)):
        path, node = [], i
        while node >= 0 and not (root_is_current and node == 0):
            path.append(int(tokens[node]))
            node = int(parents[node])
        fork = matcher.fork()
        valid[i] = all(fork.accept(token) for token in reversed(path))
        bitmask[i] = mask(fork) if valid[i] else 0


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
    """See ``lmx.grammar.step``; tables and values are taken to be in order."""
    following = states.clone()
    for row, token in enumerate(tokens.tolist()):
        for symbol in symbols[int(offsets[token]) : int(offsets[token + 1])].tolist():
            if following[row] >= 0:
                target = int(transitions[following[row], classes[symbol]]) & 0xFFFF
                following[row] = -1 if target == 0xFFFF else target
    return following
