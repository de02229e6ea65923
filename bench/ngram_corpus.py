"""What benches of lmx.ngram run on: the standard library's sources in SmolLM2's tokens."""

import subprocess
import sys
import sysconfig
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from lmx.models.smollm2 import cached_folder
from lmx.ngram import BuildOptions, Index, build, from_documents
from lmx.ngram import open as open_index

VOCAB, EOS = 49_152, 2
CACHE = Path(tempfile.gettempdir()) / "lmx-bench-ngram"
HELD_BACK = 40  # every 40th file is kept out of the index


def sources() -> list[str]:
    """The standard library's files, in order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = ("site-packages", "dist-packages")
    files = (p for p in sorted(root.rglob("*.py")) if not set(skip) & set(p.parts))
    return [p.read_text(encoding="utf-8", errors="replace") for p in files]


@lru_cache(maxsize=1)
def documents() -> list[np.ndarray]:
    """Their tokens, uint16; tokenised once and kept in the temporary folder."""
    kept = CACHE / "stdlib.npz"
    if not kept.exists():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(cached_folder(torch.float32) / "tokenizer.json"))
        rows = [np.array(e.ids, dtype=np.uint16) for e in tokenizer.encode_batch(sources())]
        CACHE.mkdir(exist_ok=True)
        sizes = np.array([len(row) for row in rows])
        np.savez(kept.with_suffix(".new.npz"), text=np.concatenate(rows), sizes=sizes)
        kept.with_suffix(".new.npz").rename(kept)
    data = np.load(kept)
    return np.split(data["text"], np.cumsum(data["sizes"])[:-1])


def options(**others) -> BuildOptions:
    return BuildOptions(vocab_size=VOCAB, eos_id=EOS, **others)


@lru_cache(maxsize=1)
def corpus(smoke: bool) -> list[np.ndarray]:
    """The documents of the index: ten million tokens; a few of made-up ones for a smoke run."""
    if smoke:
        draw = np.random.default_rng(0)
        return [draw.integers(0, 30, n).astype(np.uint16) for n in (200, 0, 900)]
    return [doc for i, doc in enumerate(documents()) if i % HELD_BACK]


@lru_cache(maxsize=1)
def library_index(smoke: bool) -> Index:
    """In memory, as an opened index with mode "ram" is."""
    if smoke:
        return from_documents(corpus(smoke), options())
    path = CACHE / "stdlib.lmxn"
    if not path.exists():
        build(corpus(smoke), path, options())
    return open_index(path, mode="ram")


def infini_gram_folder(smoke: bool) -> Path:
    """The same documents as infini-gram's own tool indexes them, on one core; made once."""
    path = CACHE / ("peer-smoke" if smoke else "peer")
    if not (path / "table.0").exists():
        path.mkdir(parents=True, exist_ok=True)
        write_tokenized(corpus(smoke), path)
        index_with_infini_gram(path)
    return path


def write_tokenized(docs: list[np.ndarray], path: Path) -> None:
    """The files that infini-gram's tool sorts: a separator before every document."""
    sep = np.array([0xFFFF], dtype=np.uint16)
    np.concatenate([piece for doc in docs for piece in (sep, doc)]).tofile(path / "tokenized.0")
    starts = np.cumsum([0, *(2 * (len(doc) + 1) for doc in docs)])[:-1]
    starts.astype(np.uint64).tofile(path / "offset.0")


def index_with_infini_gram(path: Path, cpus: int = 1) -> None:
    """Run infini-gram's indexing over tokenised files."""
    command = [sys.executable, "-m", "infini_gram.indexing", "--version", "4"]
    command += ["--data_dir", str(path), "--save_dir", str(path), "--temp_dir", str(path)]
    command += ["--token_dtype", "u16", "--cpus", str(cpus), "--mem", "8", "--ulimit", "1024"]
    subprocess.run(command, check=True, capture_output=True)


def made_up(num_tokens: int) -> list[np.ndarray]:
    """Documents of an order-3 model of the library's tokens, with a fixed seed.

    A token is that behind a random one of the places where the three tokens before it stand in the
    library. The state is a place, of which the table knows all with the same three tokens; 1024
    documents are written in step.
    """
    text = np.concatenate(corpus(False))
    wide = text.astype(np.int64)
    keys = (wide[:-3] * VOCAB + wide[1:-2]) * VOCAB + wide[2:-1]
    order = np.argsort(keys, kind="stable").astype(np.int32)
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    first, count = (np.empty(len(order), dtype=np.int32) for _ in range(2))
    first[order], count[order] = np.repeat(starts, sizes), np.repeat(sizes, sizes)
    draw = np.random.default_rng(0)
    lanes, last = 1024, len(order) - 1
    place = draw.integers(0, last, lanes)
    out = np.empty((num_tokens // lanes, lanes), dtype=np.uint16)
    for row in out:
        same = order[first[place] + (draw.random(lanes) * count[place]).astype(np.int32)]
        row[:] = text[same + 3]
        place = np.where(same < last, same + 1, 0)
    return [np.ascontiguousarray(doc) for doc in out.T]
