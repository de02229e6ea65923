"""The files of an index: a header, a payload that begins at a page, checksums behind it.

Header, 4096 bytes, little-endian: magic ``LMXNGRM1``, format version, kind, element code, element
bytes (uint32 each), count and payload bytes (uint64), shard uuid (16 bytes), shard number,
vocabulary size, separator, trailer offset (uint64), zeros, and the crc32c of all before it in the
last 4 bytes. The trailer is a crc32c for every 16 MiB of payload.
"""

import contextlib
import fcntl
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _C
from ..errors import BuildInProgressError, CorruptIndexError, VersionError

MAGIC = b"LMXNGRM1"
FORMAT_VERSION = 1
HEADER_BYTES = 4096
BLOCK_BYTES = 16 << 20
KINDS = ("text", "sa", "lut", "skey", "docs", "meta", "metaoff")
MANIFEST = "manifest.json"
_FIELDS = struct.Struct("<8s4I2Q16s4Q")


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    kind: str
    elem_bytes: int
    count: int
    uuid: bytes
    shard: int
    vocab_size: int
    sep: int

    @property
    def payload_bytes(self) -> int:
        """The size of the payload."""
        return self.elem_bytes * self.count

    @property
    def file_bytes(self) -> int:
        """The size of the whole file."""
        return HEADER_BYTES + self.payload_bytes + 4 * -(-self.payload_bytes // BLOCK_BYTES)

    def encode(self) -> bytes:
        """Return the 4096 bytes."""
        fields = _FIELDS.pack(
            MAGIC,
            FORMAT_VERSION,
            KINDS.index(self.kind),
            self.elem_bytes,  # all elements are unsigned, so the code is the size
            self.elem_bytes,
            self.count,
            self.payload_bytes,
            self.uuid,
            self.shard,
            self.vocab_size,
            self.sep,
            HEADER_BYTES + self.payload_bytes,
        )
        body = fields.ljust(HEADER_BYTES - 4, b"\0")
        return body + struct.pack("<I", _C.ngram.crc32c(body))


def file_name(kind: str, shard: int) -> str:
    """Return a file's name: never taken from a manifest."""
    return f"{kind}.{shard}"


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class ReadLock:
    """A shared lock on a file, for as long as this object lives.

    It tells programs that change or truncate files in place, and ask for an exclusive lock before,
    that somebody maps them. A build does not ask: it publishes a new folder, and readers keep what
    they have mapped.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock; none where the file or the file system has none.

        Raises:
            BuildInProgressError: another program holds the file exclusively.
        """
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise BuildInProgressError(f"{path}: another program is changing the index") from None
        except OSError:  # no locks here
            self.release()

    def release(self) -> None:
        """Drop the lock."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    __del__ = release


def write_file(path: Path, header: Header, payload: "np.ndarray[Any, Any]") -> None:
    """Write header, payload and checksums, durably."""
    raw = np.ascontiguousarray(payload).reshape(-1).view(np.uint8)
    sums = []
    with open(path, "wb") as file:
        file.write(header.encode())
        for begin in range(0, len(raw), BLOCK_BYTES):
            block = raw[begin : begin + BLOCK_BYTES]
            sums.append(_C.ngram.crc32c(block))
            file.write(block.data)
        file.write(struct.pack(f"<{len(sums)}I", *sums))
        file.flush()
        os.fsync(file.fileno())


def _crc_of(content: dict[str, Any]) -> int:
    rest = {key: value for key, value in content.items() if key != "crc32c"}
    return _C.ngram.crc32c(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small file with its checksum, durably, under its name at once or not at all."""
    content = content | {"crc32c": _crc_of(content)}
    draft = path.with_name(path.name + ".new")
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """Read a manifest or a fragment; CorruptIndexError where it is none."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CorruptIndexError(f"{path}: not found: the folder holds no finished index") from None
    except (OSError, ValueError, RecursionError) as fault:
        raise CorruptIndexError(f"{path}: {fault}") from None
    if not isinstance(content, dict):
        raise CorruptIndexError(f"{path}: expected a JSON object")
    if content.pop("crc32c", None) != _crc_of(content):
        raise CorruptIndexError(f"{path}: the checksum is wrong")
    return content


def read_header(path: Path) -> Header:
    """Read and check a file's header and size."""
    try:
        with open(path, "rb") as file:
            raw = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as fault:
        raise CorruptIndexError(f"{path}: {fault.strerror}") from None
    if len(raw) < HEADER_BYTES:
        raise CorruptIndexError(f"{path}: expected a header of 4096 bytes, got {len(raw)}")
    magic, version, kind, code, elem, count, payload, uuid, shard, vocab, sep, trailer = (
        _FIELDS.unpack_from(raw)
    )
    if magic != MAGIC:
        raise VersionError(f"{path}: offset 0: expected {MAGIC!r}, got {magic!r}")
    if version != FORMAT_VERSION:
        swapped = version == int.from_bytes(FORMAT_VERSION.to_bytes(4, "little"), "big")
        what = "a big-endian file" if swapped else f"version {version}"
        raise VersionError(f"{path}: offset 8: expected version {FORMAT_VERSION}, got {what}")
    if struct.unpack_from("<I", raw, HEADER_BYTES - 4)[0] != _C.ngram.crc32c(raw[:-4]):
        raise CorruptIndexError(f"{path}: offset 0: the header's checksum is wrong")
    if kind >= len(KINDS) or code != elem or elem not in (1, 2, 4, 8):
        raise CorruptIndexError(f"{path}: offset 12: an unknown kind or element")
    header = Header(KINDS[kind], elem, count, uuid, shard, vocab, sep)
    if header.payload_bytes != payload or trailer != HEADER_BYTES + payload:
        raise CorruptIndexError(f"{path}: offset 32: sizes that contradict each other")
    if size != header.file_bytes:
        raise CorruptIndexError(f"{path}: expected {header.file_bytes} bytes, got {size}")
    return header


def check_sums(path: Path, header: Header) -> None:
    """Compare the payload with its checksums."""
    with open(path, "rb") as file:
        file.seek(HEADER_BYTES + header.payload_bytes)
        trailer = file.read()
        sums = struct.unpack(f"<{len(trailer) // 4}I", trailer)
        file.seek(HEADER_BYTES)
        left = header.payload_bytes
        for i, expected in enumerate(sums):
            block = file.read(min(BLOCK_BYTES, left))
            left -= len(block)
            if _C.ngram.crc32c(block) != expected:
                offset = HEADER_BYTES + i * BLOCK_BYTES
                raise CorruptIndexError(f"{path}: offset {offset}: a checksum is wrong")
