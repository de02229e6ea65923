"""The one attention: query rows over what a sequence has in pages and over the keys of a step."""

from . import fakes  # noqa: F401  (registers them)
from .ops import merge, paged, rope

__all__ = ["merge", "paged", "rope"]
