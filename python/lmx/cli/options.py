"""Command-line options that several commands share."""

import argparse
from typing import Any

import torch

from ..decode import Sampling
from ..decode.drafters import FORMS as DRAFTERS
from ..models import load
from ..protocols import LayeredModel

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``load_model`` reads."""
    parser.add_argument("--model", default="smollm2", help="smollm2 or a folder (default: smollm2)")
    parser.add_argument(
        "--dtype", choices=_DTYPES, help="default: float32, or bfloat16 with other weights"
    )
    parser.add_argument(
        "--weights",
        choices=("model", "file", "int8"),
        default="model",
        help="how weights are kept: in --dtype (default), as the GGUF file has them, or in int8",
    )
    parser.add_argument("--device", default="cpu", help="default: cpu")


def load_model(args: argparse.Namespace) -> LayeredModel:
    """Load the model that the command line names."""
    dtype = _DTYPES[args.dtype] if args.dtype else None
    return load(args.model, dtype=dtype, device=args.device, weights=args.weights)


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``decoding_options`` reads."""
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="0 is off (default)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="1 is off (default)")
    parser.add_argument("--min-p", type=float, default=0.0, metavar="P", help="0 is off (default)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="repeatable")
    forms = '"json", "regex:PATTERN", "ebnf:FILE" or "schema:FILE"'
    parser.add_argument("--constraint", help=forms)
    parser.add_argument("--drafter", help=f"proposes tokens: {DRAFTERS}")
    parser.add_argument("--cache", help='eviction policy, e.g. "h2o:0.2"')
    parser.add_argument("--depth", help="layers to skip; no policy is built in yet")


def decoding_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return keyword arguments of ``lmx.generate``."""
    sampling = Sampling(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        seed=args.seed,
    )
    return {
        "max_new_tokens": args.max_new_tokens,
        "sampling": sampling,
        "stop": args.stop,
        "constraint": args.constraint,
        "drafter": args.drafter,
        "cache": args.cache,
        "depth": args.depth,
    }
