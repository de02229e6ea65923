"""``python -m lmx chat``: a conversation. Ctrl-C stops an answer, Ctrl-D leaves."""

import argparse
import sys

from ..decode import generate
from .options import add_decoding_options, add_model_options, decoding_options, load_model
from .terminal import escape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_options(parser)
    parser.add_argument("--system", help="a message that goes before the conversation")
    add_decoding_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    options = decoding_options(args)
    model = load_model(args)
    messages = [{"role": "system", "content": args.system}] if args.system else []
    while True:
        try:
            question = input("> ")
        except EOFError:
            print()
            return 0
        if not question.strip():
            continue
        messages.append({"role": "user", "content": question})
        pieces: list[str] = []

        def write(index: int, piece: str, pieces: list[str] = pieces) -> None:
            pieces.append(piece)
            print(escape(piece), end="", flush=True)

        try:
            [generation] = generate(model, [messages], stream=write, **options)
        except KeyboardInterrupt:
            generation = None  # what has been said stays in the conversation
        print()
        if generation is not None and generation.error:
            print(f"lmx: {escape(generation.error)}", file=sys.stderr)
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": "".join(pieces)})
