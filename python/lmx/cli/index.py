"""``python -m lmx index``: build, inspect and query n-gram indexes of text."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import ngram
from ..models.checkpoint import read_tokenizer
from ..ngram import BuildOptions, build_bytes
from .terminal import escape

_BYTES_PER_TOKEN = 3.4  # of English text and code, for estimates alone
_MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the three commands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="index_command")
    build = commands.add_parser("build", help="build an index of files")
    build.add_argument("paths", nargs="+", metavar="PATH", help="files, or folders with files")
    build.add_argument("--out", required=True, metavar="NAME.lmxn")
    build.add_argument("--tokenizer", default="bytes", help='"bytes", "smollm2" or a folder')
    build.add_argument("--workers", type=int, default=1, metavar="N")
    build.add_argument("--memory", type=int, default=0, metavar="MIB", help="0: no limit")
    build.add_argument("--resume", action="store_true", help="go on with an interrupted build")
    build.add_argument("--overwrite", action="store_true", help="replace an index of that name")
    info = commands.add_parser("info", help="what an index holds")
    info.add_argument("path")
    query = commands.add_parser("query", help="count a text and show what follows")
    query.add_argument("path")
    query.add_argument("text")
    query.add_argument("--top", type=int, default=10, metavar="K", help="next tokens to show")
    query.add_argument("--docs", type=int, default=3, metavar="K", help="documents to show")
    query.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    commands = {"build": _build, "info": _info, "query": _query}
    return commands[args.index_command](args)


# ---- text ----------------------------------------------------------------------------------------


class Text:
    """From text to tokens and back. "bytes": UTF-8."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tokenizer: Any = None
        self.vocab_size, self.eos_id = 255, None
        if name == "bytes":
            return
        if name == "smollm2":
            import torch

            from ..models.smollm2 import cached_folder

            self._tokenizer = read_tokenizer(cached_folder(torch.float32))
        else:
            self._tokenizer = read_tokenizer(Path(name))
        if self._tokenizer is None:
            raise ValueError(f"{name}: no tokenizer.json; expected bytes, smollm2 or a folder")
        self.vocab_size = len(self._tokenizer)
        self.eos_id = self._tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """Return the tokens, without special ones around them."""
        if self._tokenizer is None:
            return list(text.encode())
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens."""
        if self._tokenizer is None:
            return bytes(tokens).decode(errors="replace")
        return str(self._tokenizer.decode(tokens))


def _files(paths: list[str]) -> list[Path]:
    found: list[Path] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"{name}: not found")
    return found


def _documents(files: list[Path]) -> Iterator[tuple[str, str]]:
    """Texts and their metadata: a file each, or a line each of ``.jsonl`` files."""
    for path in files:
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            print(f"lmx: {escape(str(path))} is no UTF-8 text: left out", file=sys.stderr)
            continue
        if path.suffix != ".jsonl":
            yield content, json.dumps({"path": str(path)})
            continue
        for number, line in enumerate(content.splitlines()):
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{path}: line {number + 1}: expected an object with text"
                ) from None
            yield str(text), json.dumps({"path": str(path), "line": number})


# ---- commands ------------------------------------------------------------------------------------


def _progress() -> Callable[[str, float], None]:
    """A bar on a terminal, else nothing."""
    started = time.monotonic()

    def show(what: str, share: float) -> None:
        if not sys.stderr.isatty():
            return
        spent = time.monotonic() - started
        left = f", {spent / share - spent:.0f} s left" if 0.02 < share < 1 else ""
        filled = int(30 * share)
        bar = "#" * filled + "-" * (30 - filled)
        end = "\n" if share == 1 else ""
        print(f"\r[{bar}] {share:4.0%} {what}{left}   ", end=end, file=sys.stderr, flush=True)

    return show


def _build(args: argparse.Namespace) -> int:
    text, files = Text(args.tokenizer), _files(args.paths)
    size = sum(path.stat().st_size for path in files)
    options = BuildOptions(
        vocab_size=text.vocab_size,
        eos_id=text.eos_id,
        workers=args.workers,
        mem_bytes=args.memory * _MIB,
        tokenizer=args.tokenizer,
    )
    tokens = size if args.tokenizer == "bytes" else int(size / _BYTES_PER_TOKEN)
    width = options.numpy_dtype(0).itemsize + 4.2
    memory = build_bytes(min(tokens, options.fitting_shard_tokens), text.vocab_size)
    print(
        f"{len(files)} files, {size / _MIB:.1f} MiB: about {tokens:,} tokens; "
        f"{width * tokens / _MIB:.0f} MiB on disk, "
        f"{args.workers * memory / _MIB:.0f} MiB of memory",
        file=sys.stderr,
    )
    notes: list[str] = []

    def rows() -> Iterator[list[int]]:
        for content, note in _documents(files):
            notes.append(note)
            yield text.encode(content)

    def metadata() -> Iterator[str]:
        while True:  # asked for behind each document
            yield notes.pop(0)

    report = ngram.build(
        rows(),
        args.out,
        options,
        metadata=metadata(),
        resume=args.resume,
        overwrite=args.overwrite,
        progress=_progress(),
    )
    print(
        f"{escape(args.out)}: {report.num_docs} documents, {report.num_tokens:,} tokens, "
        f"{report.num_shards} shards, {report.seconds:.1f} s"
    )
    return 0


def _info(args: argparse.Namespace) -> int:
    index = ngram.open(args.path)
    [manifest] = index.manifests
    size = sum(sum(shard["files"].values()) for shard in manifest["shards"])
    facts = {
        "documents": f"{index.num_docs:,}",
        "tokens": f"{index.num_tokens:,}",
        "vocabulary": f"{index.vocab_size:,} ({manifest['token_dtype']})",
        "end of text": index.eos_id,
        "tokenizer": manifest["tokenizer"],
        "shards": len(manifest["shards"]),
        "bytes": f"{size:,} ({size / max(1, index.num_tokens):.2f} a token)",
    }
    for name, fact in facts.items():
        print(f"{name:12} {escape(str(fact))}")
    return 0


def _query(args: argparse.Namespace) -> int:
    index = ngram.open(args.path)
    [manifest] = index.manifests
    text = Text(manifest["tokenizer"])
    if text.vocab_size > index.vocab_size:
        raise ValueError(
            f"tokenizer {text.name} has {text.vocab_size} tokens, the index {index.vocab_size}"
        )
    query = text.encode(args.text)
    print(f"{index.count(query):,} times, {len(query)} tokens")
    found = index.infgram_ntd(query)
    counts, total = found.counts(), int(found.den[0])
    length = int(found.suffix_len[0])
    shown = text.decode(query[len(query) - length :])
    print(f"next, behind {length} tokens, {_quoted(shown)}, {total:,} times:")
    for token, count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[: args.top]:
        name = "(end)" if token in (-1, index.eos_id) else _quoted(text.decode([token]))
        print(f"{count / total:9.4f} {count:12,} {name}")
    if query:
        for snippet in index.sample_docs(query, args.docs, seed=args.seed, context=40):
            where = json.loads(snippet.metadata or "{}").get("path", "")
            shown = _quoted(text.decode(snippet.tokens))
            print(f"document {snippet.doc} {escape(str(where))}: {shown}")
    return 0


def _quoted(text: str) -> str:
    """On one line, with nothing that moves the cursor."""
    return escape(json.dumps(text, ensure_ascii=False))
