"""The step for draft trees: one packed pass over them, one verification, one commit."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import tree as trees
from .. import vocab
from ..protocols import DraftTree
from .checks import status_fault
from .drafting import Draft
from .forward import Rows, Runner
from .request import Request, isolate
from .sampling import fetch
from .scheduler import Work
from .verify import Choice, stack_masks

_COIN, _LAST_DRAW = 0, 1  # purposes of random numbers


class Verdict(NamedTuple):
    """What a verification says."""

    choices: list[Choice]
    faults: list[int]  # the status of the pass
    path: Tensor  # [R, max_depth + 1], int32
    accept_length: Tensor  # [R], int32
    nodes: list[list[int]]  # of each draft's request, the accepted nodes from the root on


# ---- the pass ------------------------------------------------------------------------------


def forest(
    works: Sequence[Work], draft: Draft, num_rows: int, max_slots: int, device: torch.device
) -> Rows:
    """Pack the trees of a draft and the chunks of prompts that run beside them.

    Args:
        works: all of the step, by row; those of requests with a tree have one token each.
        draft: the trees.
        num_rows: rows of the cache's tables.
        max_slots: most slots in use of any sequence in the tables.
        device: where the model is.
    """
    lengths, starts = [0] * num_rows, [0] * num_rows
    tokens: list[Tensor] = []
    parents: list[Tensor] = []
    place = {request: i for i, request in enumerate(draft.requests)}
    bounds = draft.tree.indptr.tolist()
    for request, start, end in works:
        if end == start:
            continue
        starts[request.row] = start
        if request in place:
            begin, stop = bounds[place[request]], bounds[place[request] + 1]
            tokens.append(draft.tree.tokens[begin:stop])
            parents.append(draft.tree.parents[begin:stop])
        else:
            tokens.append(torch.tensor(request.tokens[start:end], device=device))
            chain = torch.arange(-1, end - start - 1, dtype=torch.int32, device=device)
            parents.append(chain)
        lengths[request.row] = tokens[-1].numel()
    offsets = torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0)
    offsets = offsets.to(torch.int32)
    longest = max(lengths)
    packed = parents[0] if len(parents) == 1 else torch.cat(parents)
    depth, _, _, ancestors = trees.prepare(packed, offsets, longest)
    first = torch.tensor(starts, dtype=torch.int32, device=device)
    counts = torch.tensor(lengths, device=device)
    return Rows(
        tokens=tokens[0] if len(tokens) == 1 else torch.cat(tokens),
        positions=depth + first.repeat_interleave(counts),
        cu_seqlens=offsets,
        ancestors=ancestors if longest > 1 else None,
        max_q=longest,
        max_slots=max_slots,
    )


def commit_slots(
    works: Sequence[Work],
    draft: Draft,
    verdict: Verdict,
    rows: Rows,
    runner: Runner,
    status: Tensor,
) -> tuple[list[Work], Tensor]:
    """Return the works as far as they are accepted, and where their rows go."""
    place = {request: i for i, request in enumerate(draft.requests)}
    paths: list[list[int]] = [[] for _ in range(runner.num_rows)]
    done = []
    for work in works:
        request, start, end = work
        if request in place:
            paths[request.row] = verdict.nodes[place[request]]
            done.append(Work(request, start, start + len(paths[request.row])))
        else:
            paths[request.row] = list(range(end - start))
            done.append(work)
    width = max(1, max(map(len, paths)))
    padded = [path + [-1] * (width - len(path)) for path in paths]
    device, cache = rows.tokens.device, runner.cache
    slots = trees.commit(
        torch.tensor(padded, dtype=torch.int32, device=device),
        torch.tensor([len(path) - 1 for path in paths], dtype=torch.int32, device=device),
        rows.cu_seqlens,
        cache.block_table,
        cache.num_slots,
        num_rows=rows.tokens.numel(),
        page_size=cache.page_size,
        num_pages=cache.kv_pages.shape[0],
        status=status,
    )
    return done, slots[0]


# ---- verification --------------------------------------------------------------------------


def verify_trees(draft: Draft, logits: Tensor, status: Tensor) -> Verdict:
    """Choose what each request goes on with: a path of its tree and one more token.

    Args:
        draft: the trees.
        logits: ``[T, V]``, float32, of the model, a row per node.
        status: ``[B]``, int32, of the pass.
    """
    requests, tree, sizes = draft.requests, draft.tree, draft.sizes
    edited, is_sound = _edited(draft, logits)
    masks = stack_masks(draft.masks, sizes, logits)
    depth = max(draft.depths)
    links = (tree.tokens, tree.indptr, draft.first_child, draft.next_sibling)
    row_status = torch.zeros(len(logits), dtype=torch.int32, device=logits.device)
    seq_status = torch.zeros(len(requests), dtype=torch.int32, device=logits.device)
    if all(request.options.sampling.temperature == 0 for request in requests):
        target = vocab.argmax(edited, masks, status=row_status)
        path, length, out = trees.verify_greedy(*links, target, depth, status=seq_status)
    else:
        law = _Law(requests, sizes, logits.device)
        probs = law.probs(edited, masks, row_status)
        coins = (law.coins(tree), law.last_draws())
        path, length, out = trees.verify_target(*links, probs, *coins, depth, status=seq_status)
    walked, counts, chosen, bits, faults = fetch(
        path.flatten(), length, out.flatten(), row_status, status
    )
    choices, nodes, begin = [], [], 0
    for i, request in enumerate(requests):
        count, at = counts[i] + 1, i * (depth + 1)
        own = walked[at : at + count]
        nodes.append(own)
        if is_sound[i]:
            rows = slice(begin, begin + 1) if count == 1 else [begin + node for node in own]
            fault = next((bits[begin + node] for node in own if bits[begin + node]), 0)
            words = f"no token can be drawn: {status_fault(fault)}" if fault else ""
            tokens = chosen[at : at + count]
            choices.append(Choice(request, tokens, words, logits[rows], edited[rows]))
        begin += sizes[i]
    return Verdict(choices, faults, path, length, nodes)


def _edited(draft: Draft, logits: Tensor) -> tuple[Tensor, list[bool]]:
    """Return what tokens are chosen from, and which requests' processors have not failed."""
    pieces = logits.split(draft.sizes)
    edited = list(pieces)
    for i, request in enumerate(draft.requests):
        with isolate(request):
            edited[i] = request.edit(pieces[i], draft.own(i))
    is_plain = all(a is b for a, b in zip(edited, pieces, strict=True))
    is_sound = [request.finish_reason is None for request in draft.requests]
    return logits if is_plain else torch.cat(edited), is_sound


class _Law:
    """The laws and random numbers of a batch, some of whose requests may be greedy."""

    def __init__(
        self, requests: Sequence[Request], sizes: Sequence[int], device: torch.device
    ) -> None:
        """Take the requests and how many rows each has."""
        self._samplings = [request.options.sampling for request in requests]
        self._positions = [request.base_pos for request in requests]
        self._sizes = torch.tensor(sizes, device=device)
        self._device = device

    def probs(self, edited: Tensor, masks: Tensor | None, status: Tensor) -> Tensor:
        """Return the probabilities of all rows; of greedy ones 1 at the argmax."""
        float_ = torch.float32
        return vocab.softmax(
            edited,
            masks,
            temperature=self._rows([float(s.temperature) for s in self._samplings], float_),
            top_k=self._rows([s.top_k for s in self._samplings], torch.int32),
            top_p=self._rows([float(s.top_p) for s in self._samplings], float_),
            min_p=self._rows([float(s.min_p) for s in self._samplings], float_),
            status=status,
        )

    def coins(self, tree: DraftTree) -> Tensor:
        """Return the coin of each node: by its request's seed and position, and its local id."""
        starts = tree.indptr[:-1].long().repeat_interleave(self._sizes)
        seeds = self._rows([s.seed for s in self._samplings], torch.int64)
        positions = self._rows(self._positions, torch.int64)
        node = torch.arange(starts.numel(), device=self._device) - starts
        return vocab.uniform(seeds, positions, _COIN, node)

    def last_draws(self) -> Tensor:
        """Return the number for the last token of each request."""
        seeds = torch.tensor([s.seed for s in self._samplings], device=self._device)
        positions = torch.tensor(self._positions, device=self._device)
        return vocab.uniform(seeds, positions, _LAST_DRAW)

    def _rows(self, values: Sequence[float], dtype: torch.dtype) -> Tensor:
        per_request = torch.tensor(values, dtype=dtype, device=self._device)
        return per_request.repeat_interleave(self._sizes)
