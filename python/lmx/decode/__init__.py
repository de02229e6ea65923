"""The decode loop, over any ``LayeredModel``."""

from .early_exit import EarlyExit
from .engine import Engine
from .generation import EngineStats, Generation, Stats, TokenLogprob
from .infgram import InfgramMix
from .loop import generate
from .sampling import Sampling, branches
from .scoring import score

__all__ = [
    "EarlyExit",
    "Engine",
    "EngineStats",
    "Generation",
    "InfgramMix",
    "Sampling",
    "Stats",
    "TokenLogprob",
    "branches",
    "generate",
    "score",
]
