"""Typed faces of ``torch.ops.lmx.tree_*``.

Shared by all of them:

- Draft trees of a batch are packed: sequence ``b`` owns rows ``indptr[b] .. indptr[b + 1] - 1``,
  its node ``i`` is row ``indptr[b] + i``, and links between nodes are such local ids. Node 0 is
  the root, the pending token. ``indptr`` is int32 ``[num_seqs + 1]`` from 0; a sequence without
  rows takes no step, and rows at ``indptr[num_seqs]`` and beyond belong to nobody. A tree has at
  most 1,024 nodes.
- ``status``, int32 ``[num_seqs]``, receives bits (``csrc/common/status.h``) per bad sequence
  instead of an exception. A sequence with a bit, set before or by the op, counts as one without
  rows; the others are not touched.

Results are the same bits on every backend, instruction-set level, batch and thread count.

Raises, all of them: RuntimeError where a shape, dtype, device or stride is wrong, or a number is
out of its range; ValueError where a value inside a tensor is, and no ``status`` is given (CPU;
CUDA does not look).
"""

import torch
from torch import Tensor

from .._faces import forbid_grad, written


def prepare(
    parents: Tensor,
    indptr: Tensor,
    max_nodes: int,
    tokens: Tensor | None = None,
    vocab_size: int = 0,
    *,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Check trees, and derive what verification and attention read.

    Args:
        parents: int32 ``[num_rows]``: -1 at node 0, below the node's own id elsewhere. Siblings are
            tried in the order of their ids.
        indptr, status: see the module.
        max_nodes: nodes that a tree may have, at most 1,024.
        tokens: int64 ``[num_rows]``, checked to be in ``[0, vocab_size)``; None is not checked.
        vocab_size: number of tokens.

    Returns:
        ``depth``, ``first_child``, ``next_sibling``, int32 ``[num_rows]``, the links -1 for none,
        and ``ancestors``, int32 ``[num_rows, ceil(max_nodes / 32)]``: bit ``j % 32`` of word
        ``j // 32`` is 1 if node ``j`` is the row's node or above it. Rows of no sequence, and of
        bad ones, have depth 0, links -1 and no bits.

    Reference: ``lmx.tree.reference.prepare``.
    """
    return torch.ops.lmx.tree_prepare(parents, indptr, max_nodes, tokens, vocab_size, status)


def verify_greedy(
    tokens: Tensor,
    indptr: Tensor,
    first_child: Tensor,
    next_sibling: Tensor,
    target_ids: Tensor,
    max_depth: int,
    *,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk down from the root as long as a child holds its parent's argmax.

    What is emitted is greedy decoding's own text, given the same logits.

    Args:
        tokens: int64 ``[num_rows]``, one per node.
        indptr, status: see the module.
        first_child, next_sibling: int32 ``[num_rows]``, from `prepare`. Siblings may be linked in
            any order, but a child's id is above its parent's.
        target_ids: int64 ``[num_rows]``: the argmax of each node's logits; -1 where no token may
            follow.
        max_depth: accepted nodes at most, in [0, 1023].

    Returns:
        ``path``, int32 ``[num_seqs, max_depth + 1]``: node 0, the accepted nodes, then -1;
        ``accept_length``, int32 ``[num_seqs]``: the accepted nodes, the root not counted; and
        ``out_tokens``, int64 ``[num_seqs, max_depth + 1]``: the accepted tokens, one more, then -1.
        Where the walk comes to a node that no token may follow, the one more is -1, and status gets
        the bit of a bad token; what was accepted stays.

    Source: SpecInfer (arXiv 2305.09781), section 4.3. Reference:
    ``lmx.tree.reference.verify_greedy``.
    """
    return torch.ops.lmx.tree_verify_greedy(
        tokens, indptr, first_child, next_sibling, target_ids, max_depth, status
    )


def verify_target(
    tokens: Tensor,
    indptr: Tensor,
    first_child: Tensor,
    next_sibling: Tensor,
    target_probs: Tensor,
    u_node: Tensor,
    u_final: Tensor,
    max_depth: int,
    *,
    threshold_single: float = 1.0,
    threshold_acc: float = 1.0,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample from the target's law, trying the drafted children first.

    Lossless for every tree that was chosen without looking at the random numbers: a child is
    accepted with the probability that the target gives its token, and the last token is drawn from
    what the target leaves to the others. Equal siblings count once. Both thresholds at 1 are
    lossless; lower ones accept more and change the law.

    Args:
        tokens, indptr, first_child, next_sibling, max_depth, status: as in `verify_greedy`.
        target_probs: float32 ``[num_rows, vocab_size]``, at least 0 and finite; a row is
            normalised by its own sum. Only rows that the walk comes by are read.
        u_node: float32 ``[num_rows]``, in [0, 1): the coin of each node, purpose 0 of
            ``lmx.vocab.uniform`` with the node's local id as index.
        u_final: float32 ``[num_seqs]``, in [0, 1), purpose 1.
        threshold_single: accept a child with at least this probability, if below 1.
        threshold_acc: divides the children's running mass before it meets the coin; at least 1e-9.

    Returns:
        As `verify_greedy`; a row that sums to 0 is a node that no token may follow. At a row with
        NaN, inf or less than 0, or a coin outside [0, 1), the walk ends in the same way, with the
        bit of a bad value.

    Source: Leviathan et al. 2023 (arXiv 2211.17192), the argument of appendix A.1, for a draft that
    is certain. Reference: ``lmx.tree.reference.verify_target``.
    """
    forbid_grad("lmx.tree.verify_target", target_probs)
    return torch.ops.lmx.tree_verify_target(
        tokens,
        indptr,
        first_child,
        next_sibling,
        target_probs,
        u_node,
        u_final,
        max_depth,
        threshold_single,
        threshold_acc,
        status,
    )


def commit(
    path: Tensor,
    accept_length: Tensor,
    indptr: Tensor,
    block_table: Tensor,
    num_slots: Tensor,
    *,
    num_rows: int,
    page_size: int,
    num_pages: int,
    status: Tensor | None = None,
) -> Tensor:
    """Say where the accepted rows of a step go in the page pool, for ``kv_append``.

    Entry ``j`` of a path goes behind the ``num_slots`` slots that the sequence holds, in order; the
    pages must be there. A sequence that fails a check stores nothing.

    Args:
        path: int32 ``[num_seqs, width]``, from a verifier: ascending local ids from 0.
        accept_length: int32 ``[num_seqs]``: ``accept_length + 1`` entries are stored, none at -1.
            A caller that ends a text early passes less than the verifier gave.
        indptr, status: see the module.
        block_table: int32 ``[num_seqs, table_rows, max_pages]``; only the needed entries are read.
        num_slots: int32 ``[num_seqs, table_rows]``: slots in use.
        num_rows: rows of the step's keys and values.
        page_size: slots of a page.
        num_pages: pages of the pool; page 0 is nobody's.

    Returns:
        ``slot_mapping``, int64 ``[table_rows, num_rows]``: ``page * page_size + offset``, or -1 =
        do not store.

    Reference: ``lmx.tree.reference.commit``.
    """
    return torch.ops.lmx.tree_commit(
        path,
        accept_length,
        indptr,
        block_table,
        num_slots,
        num_rows,
        page_size,
        num_pages,
        status,
    )


def recycle_expand(
    matrix: Tensor,
    roots: Tensor,
    template_parent: Tensor,
    template_rank: Tensor,
    *,
    sizes: Tensor | None = None,
    matrix_ids: Tensor | None = None,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make draft trees by looking up, node for node, what came after a token last time.

    Args:
        matrix: int32 ``[num_matrices, vocab_size, k]``: the candidates after each token, the
            likeliest first, -1 = none; ``k`` at most 16.
        roots: int64 ``[num_seqs]``, the pending tokens.
        template_parent: int32 ``[num_nodes]``: -1, then parents below the node's own id; at most 32
            levels.
        template_rank: int32 ``[num_nodes]``: which candidate of its parent's token a node is.
        sizes: int32 ``[num_seqs]``: a sequence uses this many first nodes of the template.
        matrix_ids: int32 ``[num_seqs]``: which matrix a sequence uses. Without it there is one for
            all, or one per sequence.
        status: see the module.

    Returns:
        ``tokens`` (int64), ``parents``, ``indptr`` and ``nodes`` (int32) of packed trees; ``nodes``
        says which node of the template a row is. Nodes without a candidate, and what hangs below
        them, are left out. The operator returns as many rows as there could be, -1 behind the last
        tree; this function cuts them off, for which it waits for a GPU.

    Source: Token Recycling (Luo et al. 2024, arXiv 2408.08696), section 3. Reference:
    ``lmx.tree.reference.recycle_expand``.
    """
    tokens, parents, indptr, nodes = torch.ops.lmx.tree_recycle_expand(
        matrix, roots, template_parent, template_rank, sizes, matrix_ids, status
    )
    used = int(indptr[-1])
    return tokens[:used], parents[:used], indptr, nodes[:used]


def recycle_update(
    matrix: Tensor,
    tokens: Tensor,
    logits: Tensor,
    indptr: Tensor,
    *,
    path: Tensor | None = None,
    matrix_ids: Tensor | None = None,
    status: Tensor | None = None,
) -> None:
    """Store, for the token of every node, the k tokens with the largest logits after it, in place.

    Of equal logits the lower id comes first; -inf and NaN are no candidates. Of several rows with
    one token and matrix one writes: the largest, or with ``path`` the largest on it, if any is.

    Args:
        matrix, matrix_ids: as in `recycle_expand`.
        tokens: int64 ``[num_rows]``.
        logits: float32 ``[num_rows, vocab_size]``, contiguous.
        indptr, status: see the module.
        path: int32 ``[num_seqs, max_depth + 1]``, from a verifier.

    Source: as `recycle_expand`. Reference: ``lmx.tree.reference.recycle_update``.
    """
    forbid_grad("lmx.tree.recycle_update", logits)
    torch.ops.lmx.tree_recycle_update(matrix, tokens, logits, indptr, path, matrix_ids, status)
    written(matrix)
