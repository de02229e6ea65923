"""The command line, ``python -m lmx``."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import Error
from . import bench, chat, generate, grammar, index, info
from .terminal import escape

_COMMANDS = {
    "generate": (generate, "answer prompts"),
    "chat": (chat, "talk with a model"),
    "bench": (bench, "measure tokens per second"),
    "index": (index, "build and query n-gram indexes"),
    "grammar": (grammar, "check a grammar"),
    "info": (info, "show versions and what this machine can do"),
}
_FAILED, _INTERRUPTED = 2, 130  # exit codes


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line, without the usage."""
        self.exit(_FAILED, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the words of the command line after the program's name; None takes the real ones.
    """
    parser = _Parser(prog="lmx", description="Decode with language models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, help_text) in _COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()  # here, where a reader that has gone can be told from an error
        return code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader has gone; nor must flushing at exit complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except (Error, ValueError, OSError, RuntimeError, ImportError, MemoryError) as fault:
        lines = str(fault).strip().splitlines() or [type(fault).__name__]
        print(f"lmx: {escape(lines[0])}", file=sys.stderr)
        return _FAILED
