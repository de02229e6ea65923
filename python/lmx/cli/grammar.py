"""``python -m lmx grammar check FILE``: read a grammar or schema and say what is wrong."""

import argparse
import sys
from pathlib import Path

from ..grammar import Compiler, Grammar, Matcher, TokenizerInfo
from ..grammar.schema import explain
from .terminal import escape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("action", choices=["check"], help="what to do")
    parser.add_argument("file", help='EBNF, a JSON schema (*.json), or "-" for standard input')
    parser.add_argument("--schema", action="store_true", help="it is a JSON schema")
    parser.add_argument("--order", choices=["schema", "any"], default="schema", help="of members")
    parser.add_argument("--root", default="root", help="the rule to begin with (default: root)")
    parser.add_argument("--print", action="store_true", help="print the grammar as it was read")
    parser.add_argument("--text", action="append", default=[], help="is it in the language?")


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 if the grammar is right and every text is in its language, else 1."""
    source = sys.stdin.read() if args.file == "-" else Path(args.file).read_text(encoding="utf-8")
    if args.schema or args.file.endswith(".json"):
        problems = explain(source, order=args.order)
        for problem in problems:
            print(f"not supported: {escape(problem)}")
        if problems:
            return 1
        grammar = Grammar.from_json_schema(source, order=args.order)
    else:
        grammar = Grammar.from_ebnf(source, args.root)
    compiled = Compiler(TokenizerInfo([bytes([b]) for b in range(256)])).compile(grammar)
    rules = grammar.native.num_rules
    print(f"{escape(args.file)}: " + (f"{rules} rules" if rules else "a schema, all supported"))
    for warning in grammar.warnings:
        print(f"warning: {escape(warning)}")
    if args.print:
        print(escape(str(grammar)), end="")
    verdicts = [_check(Matcher(compiled), text) for text in args.text]
    return 0 if all(verdicts) else 1


def _check(matcher: Matcher, text: str) -> bool:
    """Print whether a text is in the language, and where it leaves it."""
    data = text.encode()
    read = matcher.accept_many(list(data))  # token b is byte b
    if read < len(data):
        print(f"no: {escape(text)}: byte {read} is not allowed")
        return False
    if not matcher.is_completed():
        print(f"no: {escape(text)}: it must go on")
        return False
    print(f"yes: {escape(text)}")
    return True
