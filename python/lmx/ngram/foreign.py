"""Reading infini-gram's directories (index version 4) as they are.

Files ``tokenized.K table.K offset.K [metadata.K metaoff.K]``, little-endian: tokens with a
separator (all ones) before every document, pointers in bytes to every position, in the order of the
bytes from there to the end of the file. Version 5 (documents reversed) and 6 (another layout) are
refused. ``count([])`` counts separators too, as there.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import _C
from ..errors import CorruptIndexError, VersionError
from .build import BuildOptions, BuildReport, build
from .index import Index
from .loading import tensor_of
from .tensors import SHARD_COLUMNS, IndexTensors

WIDTHS = {"u8": 1, "u16": 2, "u32": 4}
_TORCH = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def read_infini_gram(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    eos_id: int | None,
    vocab_size: int | None = None,
    token_dtype: str = "u16",
    ram: bool = False,
    strict: bool = True,
) -> Index:
    """Open directories that ``infini_gram.indexing`` has made.

    Args:
        paths: one directory, or several whose counts are added.
        eos_id: the token under which ends of documents are reported.
        vocab_size: tokens are below it; default: all but the separator.
        token_dtype: "u8", "u16" or "u32".
        ram: read the files instead of mapping them.
        strict: see ``Index``.

    Raises:
        CorruptIndexError, VersionError: naming the file.
    """
    if token_dtype not in WIDTHS:
        raise ValueError(f"expected token_dtype u8, u16 or u32, got {token_dtype!r}")
    width = WIDTHS[token_dtype]
    folders = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    shards = [shard for folder in folders for shard in _shards(Path(folder))]
    if not shards:
        raise CorruptIndexError(f"{folders[0] if folders else ''}: no tokenized.0")
    sizes = [_sizes(shard, width) for shard in shards]
    widths = {size[2] for size in sizes}
    if len(widths) > 1:
        raise ValueError(
            f"shards whose pointers have {sorted(widths)} bytes: convert them one by one"
        )
    texts = _map(
        [(s["tokenized"], n * width) for s, (n, _, _) in zip(shards, sizes, strict=True)], ram
    )
    tables = _map([(s["table"], n * p) for s, (n, _, p) in zip(shards, sizes, strict=True)], ram)
    starts = [np.fromfile(s["offset"], dtype=np.uint64) for s in shards]
    rows, docs, at = [], [], 0
    for i, (n, num_docs, _) in enumerate(sizes):
        _check_starts(shards[i]["offset"], starts[i], n, width)
        docs.append(np.append(starts[i].astype(np.int64) // width, n))
        rows.append([texts.offsets[i] // width, n, tables.offsets[i], n, 0, at, num_docs, 1])
        at += num_docs + 1
    sep = 2 ** (8 * width) - 1
    tensors = IndexTensors(
        text=tensor_of(texts, _TORCH[width]),
        sa=tensor_of(tables, torch.uint8),
        lut=torch.empty(0, 0, dtype=torch.int64),
        skey=torch.empty(0, dtype=torch.int64),
        docs=torch.from_numpy(np.concatenate(docs)),
        shards=torch.tensor(rows, dtype=torch.int64).reshape(-1, SHARD_COLUMNS),
        vocab_size=sep if vocab_size is None else min(vocab_size, sep),
        eos_id=-1 if eos_id is None else eos_id,
        ptr_bytes=widths.pop(),
    )
    return Index(tensors, strict=strict)


def _shards(folder: Path) -> Iterator[dict[str, Path]]:
    if (folder / "tokenized").exists() or (folder / "text_data.0").exists():
        raise VersionError(f"{folder}: an infini-gram index of a version other than 4")
    number = 0
    while (folder / f"tokenized.{number}").exists():
        shard = {kind: folder / f"{kind}.{number}" for kind in ("tokenized", "table", "offset")}
        for path in shard.values():
            if not path.is_file():
                raise CorruptIndexError(f"{path}: not found")
        yield shard
        number += 1


def _sizes(shard: dict[str, Path], width: int) -> tuple[int, int, int]:
    """Tokens, documents, and bytes of a pointer."""
    text, table, offset = (shard[k].stat().st_size for k in ("tokenized", "table", "offset"))
    if text == 0 or text % width:
        raise CorruptIndexError(f"{shard['tokenized']}: {text} bytes are no tokens of {width}")
    tokens = text // width
    if table % tokens or not 1 <= table // tokens <= 8 or 256 ** (table // tokens) < text:
        raise CorruptIndexError(f"{shard['table']}: {table} bytes for {tokens} tokens")
    if offset % 8:
        raise CorruptIndexError(f"{shard['offset']}: {offset} bytes are no offsets")
    return tokens, offset // 8, table // tokens


def _map(files: list[tuple[Path, int]], ram: bool) -> "_C.ngram.Mapping":
    try:
        return _C.ngram.Mapping([(str(path), 0, size) for path, size in files], ram)
    except RuntimeError as fault:
        raise CorruptIndexError(str(fault)) from None


def _check_starts(path: Path, starts: "np.ndarray[Any, Any]", tokens: int, width: int) -> None:
    ok = len(starts) > 0 and int(starts[0]) == 0 and int(starts[-1]) < tokens * width
    if not ok or (starts % width).any() or (np.diff(starts.astype(np.int64)) <= 0).any():
        raise CorruptIndexError(
            f"{path}: the starts of documents do not rise from 0 within the text"
        )


def convert(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: BuildOptions,
    *,
    overwrite: bool = False,
) -> BuildReport:
    """Build an index of our own from the documents of an infini-gram directory.

    Args:
        path: the directory (version 4); its token type is ``options.token_dtype``.
        out, options, overwrite: see ``build``.
    """
    index = read_infini_gram(path, eos_id=options.eos_id, token_dtype=options.dtype)
    documents = (index.get_doc(i) for i in range(index.num_docs))
    return build(documents, out, options, overwrite=overwrite)
