"""Draft trees: verification, commit, and the drafters of speculative decoding."""

from . import fakes  # noqa: F401  (registers them)
from .lookup import PromptLookup
from .merged import Merged
from .ops import (
    commit,
    prepare,
    recycle_expand,
    recycle_update,
    verify_greedy,
    verify_target,
)
from .recycle import TokenRecycling, load_matrix
from .shapes import (
    Retrieve,
    from_mask,
    from_padded,
    from_tokens,
    merge,
    prune,
    reorder_dfs,
    to_dense_mask,
    to_retrieve,
)
from .sizing import Sizer, StepCosts, autosize, expected_tokens, measure_costs
from .template import Template, from_chain, from_paths, likeliest, token_recycling

__all__ = [
    "Merged",
    "PromptLookup",
    "Retrieve",
    "Sizer",
    "StepCosts",
    "Template",
    "TokenRecycling",
    "autosize",
    "commit",
    "expected_tokens",
    "from_chain",
    "from_mask",
    "from_padded",
    "from_paths",
    "from_tokens",
    "likeliest",
    "load_matrix",
    "measure_costs",
    "merge",
    "prepare",
    "prune",
    "recycle_expand",
    "recycle_update",
    "reorder_dfs",
    "to_dense_mask",
    "to_retrieve",
    "token_recycling",
    "verify_greedy",
    "verify_target",
]
