"""``python -m lmx bench``: tokens per second of a model's prompt and answer."""

import argparse
import math
import statistics
import time

import torch

from ..decode import Engine, Sampling
from ..decode.checks import require_int
from ..decode.forward import GRID
from ..protocols import LayeredModel
from .options import add_model_options, load_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_options(parser)
    parser.add_argument("--prompt-tokens", type=int, default=256, metavar="N")
    parser.add_argument("--new-tokens", type=int, default=32, metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    for name in ("prompt_tokens", "new_tokens", "repeats", "threads"):
        require_int(f"--{name.replace('_', '-')}", getattr(args, name), 1)
    torch.set_num_threads(args.threads)
    model = load_model(args)
    _time(model, args.prompt_tokens, 1)  # warm up
    runs = [_time(model, args.prompt_tokens, args.new_tokens) for _ in range(args.repeats)]
    prefill, decode = zip(*runs, strict=True)
    dtype = str(model.dtype).removeprefix("torch.")
    print(f"{args.model}, {dtype}, {args.device}, {args.threads} threads, {args.repeats} runs")
    _print_line("prefill", args.prompt_tokens, prefill)
    _print_line("decode", args.new_tokens, decode)
    num_bytes = getattr(model, "bytes_per_token", None)  # of models that lmx.load makes
    if num_bytes is not None:
        rate = num_bytes * args.new_tokens / min(decode) / 1e9
        print(f"weights  {num_bytes / 2**20:6.1f} MiB per token, read at {rate:.1f} GB/s")
    return 0


def _time(model: LayeredModel, prompt_tokens: int, new_tokens: int) -> tuple[float, float]:
    """Return the seconds until the first token, and those of ``new_tokens`` more."""
    no_end = Sampling(logit_bias=dict.fromkeys(model.eos_ids, -math.inf))
    engine = Engine(model, max_new_tokens=new_tokens + 1, sampling=no_end, max_seqs=1)
    engine.add([i % model.vocab_size for i in range(prompt_tokens)])
    started = time.perf_counter()
    for _ in range(-(-prompt_tokens // GRID)):
        engine.step()
    first = time.perf_counter()
    while engine.num_unfinished:
        engine.step()
    [generation] = engine.finished().values()
    if generation.error:
        raise ValueError(generation.error)
    return first - started, time.perf_counter() - first


def _print_line(name: str, tokens: int, seconds: tuple[float, ...]) -> None:
    best, median = min(seconds), statistics.median(seconds)
    print(
        f"{name:8} {tokens:6} tokens   min {best:8.3f} s {tokens / best:9.1f} tokens/s"
        f"   median {median:8.3f} s {tokens / median:9.1f} tokens/s"
    )
