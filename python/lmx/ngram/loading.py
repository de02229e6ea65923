"""From the files of an index to its tensors."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _C
from ..errors import CorruptIndexError, VersionError
from .build import ORDER
from .files import (
    FORMAT_VERSION,
    HEADER_BYTES,
    MANIFEST,
    Header,
    ReadLock,
    check_sums,
    file_name,
    read_header,
    read_json,
)
from .tensors import SHARD_COLUMNS, IndexTensors

TOKEN_BYTES = {"u8": 1, "u16": 2, "u32": 4}
_TORCH = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MAIN = ("text", "sa", "lut", "skey", "docs")
_ELEMENT = {"sa": 4, "lut": 8, "skey": 8, "docs": 8, "meta": 1, "metaoff": 8}


@dataclass(frozen=True)
class Part:
    """One folder's manifest and headers."""

    path: Path
    manifest: dict[str, Any]
    headers: list[dict[str, Header]]  # by shard
    sign: int
    lock: ReadLock  # on the manifest, while files are read or mapped


def read_part(path: str | os.PathLike[str], sign: int) -> Part:
    """Read and compare a folder's manifest and headers; file names are ours, not the manifest's."""
    folder = Path(path)
    where = folder / MANIFEST
    lock = ReadLock(where)
    manifest = read_json(where)
    if manifest.get("format") != "lmxn":
        raise VersionError(f"{where}: expected format lmxn, got {manifest.get('format')!r}")
    if manifest.get("version") != FORMAT_VERSION or manifest.get("order") != ORDER:
        got = f"{manifest.get('version')!r}, {manifest.get('order')!r}"
        raise VersionError(f"{where}: expected version {FORMAT_VERSION}, {ORDER}, got {got}")
    headers = []
    try:
        for number, shard in enumerate(manifest["shards"]):
            headers.append(_headers(folder, number, shard, manifest))
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise CorruptIndexError(f"{where}: {type(fault).__name__}: {fault}") from None
    return Part(folder, manifest, headers, sign, lock)


def _headers(
    folder: Path, number: int, shard: dict[str, Any], manifest: dict[str, Any]
) -> dict[str, Header]:
    kinds = [*_MAIN, *(("meta", "metaoff") if "meta" in shard["files"] else ())]
    n, m, d = (int(shard[name]) for name in ("num_tokens", "num_suffixes", "num_docs"))
    vocab, elem = int(manifest["vocab_size"]), TOKEN_BYTES[manifest["token_dtype"]]
    counts = {"text": n, "sa": m, "lut": vocab + 2, "skey": -(-m // 64), "docs": d + 1}
    headers = {}
    for kind in kinds:
        path = folder / file_name(kind, number)
        header = headers[kind] = read_header(path)
        expected = Header(
            kind,
            elem if kind == "text" else _ELEMENT[kind],
            counts.get(kind, header.count),
            bytes.fromhex(shard["uuid"]),
            number,
            vocab,
            2 ** (8 * elem) - 1,
        )
        if header != expected or header.file_bytes != shard["files"][kind]:
            raise CorruptIndexError(f"{path}: offset 8: the header and the manifest disagree")
    return headers


def load(parts: Sequence[Part], ram: bool) -> IndexTensors:
    """Map or read the files of all parts."""
    first = parts[0].manifest
    vocab, elem = int(first["vocab_size"]), TOKEN_BYTES[first["token_dtype"]]
    shards = [(part, i) for part in parts for i in range(len(part.headers))]
    big: dict[str, tuple[Tensor, list[int]]] = {}
    for kind in ("text", "sa", "skey"):
        pieces = []
        for part, i in shards:
            header = part.headers[i][kind]
            path = str(part.path / file_name(kind, i))
            pieces.append((path, HEADER_BYTES, header.payload_bytes))
        try:
            mapping = _C.ngram.Mapping(pieces, ram)
        except RuntimeError as fault:
            raise CorruptIndexError(str(fault)) from None
        width = elem if kind == "text" else _ELEMENT[kind]
        big[kind] = (tensor_of(mapping, _TORCH[width]), [o // width for o in mapping.offsets])
    lut = [_small(part, i, "lut") for part, i in shards]
    docs = [_small(part, i, "docs") for part, i in shards]
    rows, doc_off = [], 0
    for s, (part, i) in enumerate(shards):
        fragment = part.manifest["shards"][i]
        n, m, d = (fragment[name] for name in ("num_tokens", "num_suffixes", "num_docs"))
        offsets = (big[kind][1][s] for kind in ("text", "sa", "skey"))
        text_off, sa_off, skey_off = offsets
        rows.append([text_off, n, sa_off, m, skey_off, doc_off, d, part.sign])
        doc_off += d + 1
    eos = first["eos_id"]
    return IndexTensors(
        text=big["text"][0],
        sa=big["sa"][0],
        lut=torch.from_numpy(np.stack(lut))
        if lut
        else torch.empty(0, vocab + 2, dtype=torch.int64),
        skey=big["skey"][0],
        docs=torch.from_numpy(np.concatenate(docs)) if docs else torch.empty(0, dtype=torch.int64),
        shards=torch.tensor(rows, dtype=torch.int64).reshape(-1, SHARD_COLUMNS),
        vocab_size=vocab,
        eos_id=-1 if eos is None else int(eos),
    )


def tensor_of(mapping: "_C.ngram.Mapping", dtype: torch.dtype) -> Tensor:
    """The memory of a mapping as a tensor, which keeps it."""
    if len(memoryview(mapping)) == 0:
        return torch.empty(0, dtype=dtype)
    array = np.frombuffer(memoryview(mapping), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the memory is read-only, and nobody writes
        return torch.from_numpy(array).view(dtype)


def _small(part: Part, shard: int, kind: str) -> "np.ndarray[Any, Any]":
    header = part.headers[shard][kind]
    path = part.path / file_name(kind, shard)
    values = np.fromfile(path, dtype=np.int64, count=header.count, offset=HEADER_BYTES)
    if len(values) != header.count:
        raise CorruptIndexError(f"{path}: the file became shorter")
    return values


def verify(parts: Sequence[Part], tensors: IndexTensors, level: str) -> None:
    """Compare contents with what they should be: "quick" samples them, "full" reads everything."""
    arrays = [t.numpy() for t in (tensors.text, tensors.sa, tensors.skey)]
    lut, docs = tensors.lut.numpy(), tensors.docs.numpy()
    s = 0
    for part in parts:
        for i, headers in enumerate(part.headers):
            if level == "full":
                for kind, header in headers.items():
                    check_sums(part.path / file_name(kind, i), header)
            row = tensors.shards[s].tolist()
            text_off, n, sa_off, m, skey_off, doc_off, d, _ = row
            text, sa, skey = arrays
            samples = 0 if level == "full" else 256
            wrong, where = _C.ngram.check_tables(
                text[text_off : text_off + n],
                text.itemsize,
                tensors.vocab_size,
                sa[sa_off : sa_off + m],
                lut[s],
                skey[skey_off : skey_off + -(-m // 64)],
                samples,
                s,
            )
            if wrong:
                raise CorruptIndexError(f"{part.path / file_name('sa', i)}: entry {where}: {wrong}")
            _check_docs(
                part, i, docs[doc_off : doc_off + d + 1], text[text_off : text_off + n], level
            )
            s += 1


def _check_docs(
    part: Part,
    shard: int,
    docs: "np.ndarray[Any, Any]",
    text: "np.ndarray[Any, Any]",
    level: str,
) -> None:
    path = part.path / file_name("docs", shard)
    n = len(text)
    rises = bool((np.diff(docs) > 0).all()) and int(docs[0]) == 0 and int(docs[-1]) == n - 1
    if not rises:
        raise CorruptIndexError(f"{path}: the starts of documents do not rise to the end")
    sep = text[0]  # check_tables has seen to it
    if level == "full" and not (text[docs] == sep).all():
        raise CorruptIndexError(f"{path}: a document that does not begin at a separator")
    if "meta" in part.headers[shard]:
        ends = _small(part, shard, "metaoff")
        size = part.headers[shard]["meta"].count
        ok = len(ends) == len(docs) and int(ends[0]) == 0 and int(ends[-1]) == size
        if not ok or not (np.diff(ends) >= 0).all():
            raise CorruptIndexError(f"{part.path / file_name('metaoff', shard)}: wrong offsets")
