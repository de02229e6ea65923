"""Suffix-array indexes of a corpus: counts, infinity-gram language models, documents."""

from . import fakes  # noqa: F401  (registers them)
from .build import BuildOptions, BuildReport, build, build_bytes
from .index import Distribution, Index, Prob, Scores, Snippet
from .index import open_index as open
from .memory import from_documents
from .ops import (
    find,
    locate,
    longest_prefix,
    longest_suffix,
    mix,
    next_prob,
    ntd,
    ntd_dense,
    ntd_topk,
    sa_build,
    score,
)
from .tensors import IndexTensors, ragged
from .tuning import relative_improvement, tune_lambda

__all__ = [
    "BuildOptions",
    "BuildReport",
    "Distribution",
    "Index",
    "IndexTensors",
    "Prob",
    "Scores",
    "Snippet",
    "build",
    "build_bytes",
    "find",
    "from_documents",
    "locate",
    "longest_prefix",
    "longest_suffix",
    "mix",
    "next_prob",
    "ntd",
    "ntd_dense",
    "ntd_topk",
    "open",
    "ragged",
    "relative_improvement",
    "sa_build",
    "score",
    "tune_lambda",
]
