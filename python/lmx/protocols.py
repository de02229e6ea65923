"""What the rooms of lmx ask of one another: five protocols, each with a neutral default.

| protocol | says | default |
|---|---|---|
| ``LayeredModel`` | what each layer computes | (the caller's model) |
| ``Drafter`` | which tokens to verify in one pass | ``NoDrafter``: only the pending one |
| ``Constraint`` | which tokens are legal | ``NoConstraint``: all |
| ``DepthPolicy`` | which rows a sub-layer still computes | ``FullDepth``: all |
| ``EvictionPolicy`` | which cached tokens are dropped | ``KeepAll``: none |

Letters in shapes: ``T`` packed rows over all sequences of a call, ``B`` sequences, ``Hq`` and
``Hkv`` query and key/value heads, ``D`` their width, ``V`` vocabulary, ``NL`` layers, ``R`` rows
of a cache table per sequence. Token ids are int64; tree links, positions and counts int32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

# How weights are stored.
Format: TypeAlias = Literal["dense", "int8", "q8_0", "q4_0", "q4_1"]

# ---- models ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """The operands of a linear layer, ``x @ weight.T + bias``, as ``lmx.layerskip.gemm`` takes it.

    ``format`` says how ``weight`` is stored: "dense" floats ``[out, in]``; "int8", of which row
    ``n`` is multiplied by ``scale[n]``; or uint8 rows of GGUF blocks, "q8_0", "q4_0" or "q4_1",
    ``[out, bytes of a row]``.
    """

    weight: Tensor
    bias: Tensor | None = None  # [out]
    format: Format = "dense"
    scale: Tensor | None = None  # [out], float32; for "int8" alone


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rope:
    """Rotary embedding (Su et al. 2021, arXiv 2104.09864), any scaling folded in.

    Pair ``i`` of the first ``rotary_dim`` elements of a head is rotated by
    ``position * inv_freq[i]``; the rest passes unchanged.
    """

    theta: float  # base of the unscaled frequencies, kept to describe the model
    rotary_dim: int  # even, at most head_dim
    inv_freq: Tensor  # [rotary_dim / 2], float32: radians per position
    attention_factor: float = 1.0  # multiplies cos and sin
    interleaved: bool = False  # pairs are (2i, 2i + 1), else (i, i + rotary_dim / 2)

    def cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of ``positions``.

        Angles are float32, as Transformers computes them, so that both produce the same text.

        Args:
            positions: ``[T]``, integer.

        Returns:
            Two tensors ``[T, rotary_dim / 2]``, float32, on the device of ``positions``.
        """
        angles = positions[:, None].float() * self.inv_freq.to(positions.device)
        return angles.cos() * self.attention_factor, angles.sin() * self.attention_factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Positions are embeddings that ``embed`` adds; attention does nothing about them."""

    num_positions: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Alibi:
    """Scores get ``-slopes[h] * distance`` (Press et al. 2021, arXiv 2108.12409)."""

    slopes: Tensor  # [Hq], float32, positive


Position: TypeAlias = Rope | Learned | Alibi

# attend(layer, query [T, Hq, D], key [T, Hkv, D], value [T, Hkv, D]) -> [T, Hq, D]. The rows are
# not rotated; rotation, cache, window and softmax_scale are the callee's business.
Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class LayeredModel(Protocol):
    """A decoder-only language model seen as layers, over packed rows without a batch axis.

    The whole forward pass is ::

        hidden = model.embed(tokens, positions)
        for i in range(model.num_layers):
            hidden = model.attn(i, hidden, positions, attend)
            hidden = model.mlp(i, hidden)
        logits = model.norm_head(hidden[rows])
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int  # columns of the logits
    max_positions: int  # positions 0 .. max_positions - 1 are legal
    position: Position
    softmax_scale: float  # multiplies attention scores
    tokenizer: Any  # a Transformers tokenizer, or None
    eos_ids: tuple[int, ...]  # any of them ends a text
    dtype: torch.dtype  # of hidden rows
    device: torch.device

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return hidden rows ``[T, hidden]`` of tokens ``[T]`` int64 at positions ``[T]`` int32."""
        ...

    def attn(self, i: int, hidden: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Run the attention half of layer ``i``: norm, projections, ``attend``, output, residual.

        Args:
            i: layer, ``0 <= i < num_layers``.
            hidden: ``[T, hidden]``, left unchanged.
            positions: ``[T]``, int32.
            attend: called once, with this layer's unrotated rows.

        Returns:
            New hidden rows ``[T, hidden]``.
        """
        ...

    def mlp(self, i: int, hidden: Tensor) -> Tensor:
        """Run the feed-forward half of layer ``i``, norm and residual inside."""
        ...

    def norm_head(self, hidden_rows: Tensor) -> Tensor:
        """Return logits ``[rows, V]``, always float32, of ``hidden_rows [rows, hidden]``."""
        ...

    def weights(self, i: int, name: str) -> Linear:
        """Return the linear layer ``name`` of layer ``i``, sharing the model's memory."""
        ...

    def window(self, i: int) -> int:
        """Return how many positions, its own included, a row of layer ``i`` sees; -1 = all."""
        ...


# ---- drafts ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DraftTree:
    """Tokens to verify in one pass: a tree per sequence, all trees packed one after another.

    Node 0 of a tree is the pending token: emitted, but not yet in the cache. Siblings are tried
    in index order. A plain decode step is the tree of one node.
    """

    tokens: Tensor  # [T], int64
    parents: Tensor  # [T], int32, ids local to the sequence; -1 at node 0, else parents[i] < i
    indptr: Tensor  # [B + 1], int32: sequence b owns rows indptr[b] .. indptr[b + 1] - 1
    kind: Literal["deterministic", "wor", "iid"] = "deterministic"  # how children were chosen
    probs: Tensor | None = None  # [T, V], float32: law of each node's children; "wor" and "iid"
    start_layer: int = 0  # layers below it were run while drafting
    hidden: Tensor | None = None  # [T, hidden]: input rows of start_layer, if it is above 0
    fresh_kv: Tensor | None = None  # [start_layer, 2, T, Hkv, D]: their keys and values, unrotated


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """What a drafter sees of the requests that take part in a step."""

    rows: tuple[int, ...]  # B request rows; a request keeps its row for life
    pending: Tensor  # [B], int64: the last emitted tokens, roots of the trees
    base_pos: Tensor  # [B], int32: positions of the pending tokens
    seeds: tuple[int, ...]  # B seeds of the requests
    max_nodes: int  # nodes that a tree may have, its root included


class Drafter(Protocol):
    """Proposes tokens; a lossless verifier makes the text independent of how good they are."""

    taps: tuple[int, ...]  # layers whose output rows observe and observe_prompt want

    def propose(self, step: Step) -> DraftTree:
        """Return one tree per request of ``step``, in the order of ``step.rows``."""
        ...

    def observe(
        self,
        step: Step,
        tree: DraftTree,
        logits: Tensor,
        path: Tensor,
        accept_length: Tensor,
        hidden: Mapping[int, Tensor],
    ) -> None:
        """Learn from a verified step.

        Args:
            step: the step that ``tree`` was proposed for.
            tree: the verified tree.
            logits: ``[T, V]``, float32; row i predicts the token after node i.
            path: ``[B, max_depth + 1]``, int32: node 0, then the accepted nodes, then -1.
            accept_length: ``[B]``, int32: accepted nodes, the root not counted.
            hidden: rows ``[T, hidden]`` after each layer of ``taps``.
        """
        ...

    def observe_prompt(
        self, row: int, start: int, tokens: Tensor, hidden: Mapping[int, Tensor]
    ) -> None:
        """Learn from a part of the prompt of request ``row``: ``tokens [T]`` and its tapped rows.

        Args:
            row: the request's row.
            start: position of the part's first token. At 0 whatever ``row`` held is forgotten.
            tokens: ``[T]``, int64.
            hidden: rows ``[T, hidden]`` after each layer of ``taps``.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoDrafter:
    """Plain decoding: every tree is its root."""

    taps: tuple[int, ...] = ()

    def propose(self, step: Step) -> DraftTree:
        """Return trees of one node."""
        num_seqs, device = step.pending.numel(), step.pending.device
        return DraftTree(
            tokens=step.pending,
            parents=torch.full((num_seqs,), -1, dtype=torch.int32, device=device),
            indptr=torch.arange(num_seqs + 1, dtype=torch.int32, device=device),
        )

    def observe(
        self,
        step: Step,
        tree: DraftTree,
        logits: Tensor,
        path: Tensor,
        accept_length: Tensor,
        hidden: Mapping[int, Tensor],
    ) -> None:
        """Learn nothing."""

    def observe_prompt(
        self, row: int, start: int, tokens: Tensor, hidden: Mapping[int, Tensor]
    ) -> None:
        """Learn nothing."""


# ---- constraints -------------------------------------------------------------------------


class Constraint(Protocol):
    """Decides which tokens may follow. ``start`` makes a state; a state serves one request."""

    def start(self) -> "Constraint":
        """Return a fresh state for a request, before its first generated token."""
        ...

    def masks(self, tree: DraftTree) -> Tensor | None:
        """Return what may follow each node of a tree, without changing the state.

        Args:
            tree: the tree of this request alone. Its root is the request's last token, which
                ``advance`` has already been told, or which ends the prompt.

        Returns:
            ``[num_nodes, ceil(V / 32)]``, int32: bit j of word i of a row is set if token
            32 i + j may follow the node, bits from V on are 0; of a row of zeros nothing may
            follow, not even the end. None stands for "everything may follow everywhere".
        """
        ...

    def advance(self, path_tokens: Sequence[int]) -> None:
        """Consume the tokens that a step has emitted, in order."""
        ...


@dataclass(frozen=True, slots=True)
class NoConstraint:
    """Every token is legal everywhere."""

    def start(self) -> "NoConstraint":
        """Return itself: there is no state."""
        return self

    def masks(self, tree: DraftTree) -> Tensor | None:
        """Allow everything."""
        return None

    def advance(self, path_tokens: Sequence[int]) -> None:
        """Remember nothing."""


# ---- depth -------------------------------------------------------------------------------


class DepthPolicy(Protocol):
    """Decides which rows run a half layer; the others pass it unchanged."""

    def active(self, layer: int, sub: Literal["attn", "mlp"], hidden: Tensor) -> Tensor | None:
        """Return ``[T]`` bool for rows ``hidden [T, hidden]``, or None if all rows are active."""
        ...


@dataclass(frozen=True, slots=True)
class FullDepth:
    """Every row runs every layer."""

    def active(self, layer: int, sub: Literal["attn", "mlp"], hidden: Tensor) -> Tensor | None:
        """Keep all rows."""
        return None


# ---- eviction ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CacheView:
    """What an eviction policy sees of the cache, per sequence and table row.

    A sequence has R rows: 1 in scope "seq", NL in "layer", NL * Hkv in "head".
    """

    num_live: Tensor  # [B, R], int32: slots that hold a token
    pos: Tensor  # [B, R, slots], int32: position of the token in a slot, -1 = none
    cur_pos: Tensor  # [B], int32: position of the newest token
    score: Tensor | None = None  # [B, R, slots], float32, if the policy keeps one
    aux: Tensor | None = None  # [B, R, slots], float32, likewise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvictPlan:
    """What to drop: a budget, by which the cache selects by score, or an explicit keep mask."""

    budget: Tensor | None = None  # [B, R], int32: slots to keep; None: keep decides
    num_sinks: int = 0  # positions below it are never dropped
    num_recent: int = 0  # nor are that many newest positions
    score: Tensor | None = None  # [B, R, slots], float32: the lowest go first, NaN before all
    keep: Tensor | None = None  # [B, R, slots], bool


class EvictionPolicy(Protocol):
    """Decides which cached tokens are dropped, between the commit of a step and the next draft.

    A method that returns None drops nothing.
    """

    scope: Literal["seq", "layer", "head"]  # what shares one set of kept tokens
    key_store: Literal["post_rope", "pre_rope"]
    positions: Literal["orig", "rank", "clamp"]  # which positions the rotation uses
    stats: frozenset[str]  # wanted: "colsum", "colsum_window:w", "surprisal", "k_norm", "gate"

    def capacity(self, layer: int, head: int, prompt_len: int) -> int | None:
        """Return the slots that a row needs at most, new tokens included; None = no limit."""
        ...

    def on_prefill(self, view: CacheView, stats: Mapping[str, Tensor]) -> EvictPlan | None:
        """Plan after a chunk of the prompt, with the wanted ``stats`` of that chunk."""
        ...

    def on_decode(self, view: CacheView, stats: Mapping[str, Tensor]) -> EvictPlan | None:
        """Plan after the commit of a decoding step."""
        ...

    def before_append(self, view: CacheView, num_new: int) -> EvictPlan | None:
        """Plan before up to ``num_new`` tokens are appended to each row."""
        ...

    def on_turn_end(self, view: CacheView) -> None:
        """Take note that a turn of a dialogue is over."""
        ...


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Nothing is ever dropped."""

    scope: Literal["seq", "layer", "head"] = "seq"
    key_store: Literal["post_rope", "pre_rope"] = "post_rope"
    positions: Literal["orig", "rank", "clamp"] = "orig"
    stats: frozenset[str] = field(default_factory=frozenset)

    def capacity(self, layer: int, head: int, prompt_len: int) -> int | None:
        """Set no limit."""
        return None

    def on_prefill(self, view: CacheView, stats: Mapping[str, Tensor]) -> EvictPlan | None:
        """Keep everything."""
        return None

    def on_decode(self, view: CacheView, stats: Mapping[str, Tensor]) -> EvictPlan | None:
        """Keep everything."""
        return None

    def before_append(self, view: CacheView, num_new: int) -> EvictPlan | None:
        """Keep everything."""
        return None

    def on_turn_end(self, view: CacheView) -> None:
        """Note nothing."""
