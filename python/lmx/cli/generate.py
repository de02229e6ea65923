"""``python -m lmx generate``: answer prompts from the command line or standard input."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..decode import Generation, generate
from ..decode.options import Prompt
from ..protocols import LayeredModel
from .options import add_decoding_options, add_model_options, decoding_options, load_model
from .terminal import escape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_options(parser)
    parser.add_argument("--prompt", action="append", help="repeatable (default: standard input)")
    parser.add_argument("--raw", action="store_true", help="continue the text; no chat template")
    parser.add_argument("--json", action="store_true", help="one JSON object per prompt")
    add_decoding_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command. A single answer is written as it comes, several at the end."""
    texts = args.prompt or [sys.stdin.read().removesuffix("\n")]  # echo's and editors' last one
    if not all(texts):
        raise ValueError("no prompt: expected --prompt or text on standard input")
    options = decoding_options(args)
    model = load_model(args)
    prompts = [_prompt(model, text, args.raw) for text in texts]
    is_streaming = len(prompts) == 1 and not args.json
    generations = generate(model, prompts, stream=_write if is_streaming else None, **options)
    for i, generation in enumerate(generations):
        if args.json:
            print(json.dumps(_as_dict(generation)))
        elif is_streaming:
            print()
        else:
            print(f"[{i}] {escape(generation.text)}")
    return _report(generations)


def _prompt(model: LayeredModel, text: str, raw: bool) -> Prompt:
    if raw or not getattr(model.tokenizer, "chat_template", None):
        return text
    return [{"role": "user", "content": text}]


def _as_dict(generation: Generation) -> dict[str, Any]:
    """Return every field, and the properties of the statistics beside theirs."""
    fields, stats = asdict(generation), generation.stats
    fields["stats"] |= {"mean_accepted": stats.mean_accepted, "tokens_per_s": stats.tokens_per_s}
    return fields


def _write(index: int, piece: str) -> None:
    print(escape(piece), end="", flush=True)


def _report(generations: Sequence[Generation]) -> int:
    """Say on standard error how it went; return the exit code."""
    for i, generation in enumerate(generations):
        stats = generation.stats
        how = f"{stats.tokens} tokens, {stats.tokens_per_s:.1f} tokens/s, "
        if stats.drafter is not None:
            how += f"{stats.mean_accepted:.2f} tokens a step by {stats.drafter}, "
        how += generation.error or generation.finish_reason
        print(f"lmx: [{i}] {escape(how)}", file=sys.stderr)
    return 2 if any(generation.error for generation in generations) else 0
