"""Read a GGUF file: check everything that its header claims, then let Transformers dequantise it.

Layout: "GGUF", version, counts, metadata (key, type, value), one record per tensor (name, shape,
type, offset), then the tensors' bytes. Source: the format's description in ggml, docs/gguf.md.
"""

import contextlib
import importlib.util
import io
import math
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch

from . import memory

ARCHITECTURES = ("llama", "qwen2", "qwen3")
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9  # kinds of metadata values; the others are numbers, as struct spells them:
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_MAX_DIMS = 4


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies; its bytes are all in the file."""

    shape: tuple[int, ...]  # rows come first, as torch has it
    kind: str  # as ggml calls it: F32, Q4_1, ...
    start: int  # in the file
    num_bytes: int

    @property
    def num_values(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the loader wants to know before it reads weights."""

    metadata: dict[str, Any]  # arrays left out
    tensors: dict[str, GgufTensor]  # by name


def read_header(path: Path) -> GgufHeader:
    """Return the header of a GGUF file after checking every length and offset in it.

    Raises:
        ValueError: it is no GGUF file, or damaged; the message says where.
    """
    if path.stat().st_size < 4:
        raise ValueError(f"{path} is not a GGUF file: it has {path.stat().st_size} bytes")
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        try:
            return _Reader(data).header()
        except (struct.error, OverflowError, ValueError) as error:
            raise ValueError(f"{path} is damaged or not a GGUF file: {error}") from error


def load_gguf(path: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Dequantise a GGUF file into a Transformers model of ``dtype`` on the CPU.

    Returns:
        The model and its tokenizer.

    Raises:
        ValueError: the file is damaged, or its architecture or rotary scaling is not supported.
        MemoryError: the weights do not fit, here or on ``device``.
        ModuleNotFoundError: a package that Transformers reads GGUF files with is missing.
    """
    header = read_model_header(path)
    num_bytes = sum(tensor.num_values for tensor in header.tensors.values()) * dtype.itemsize
    for place in {torch.device("cpu"), device}:
        memory.require(num_bytes, place, str(path))
    from transformers import AutoModelForCausalLM, GgufConfig

    with quiet_without_terminal():
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            local_files_only=True,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
        )
    return model, read_tokenizer(path, header)


def read_model_header(path: Path) -> GgufHeader:
    """Return the header of a file that holds a model of a supported architecture.

    Raises:
        ValueError: the file is damaged, or its architecture or rotary scaling is not supported.
        ModuleNotFoundError: a package that Transformers reads GGUF files with is missing.
    """
    for package in ("transformers", "gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"reading GGUF files needs: pip install {package}")
    header = read_header(path)
    architecture = header.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{path}: architecture {architecture} is not supported; "
            f"supported: {', '.join(ARCHITECTURES)}"
        )
    scaling = header.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in header.tensors:  # Transformers drops both
        raise ValueError(f"{path}: scaled rotary frequencies are not supported in GGUF files")
    return header


def read_tokenizer(path: Path, header: GgufHeader) -> Any:
    """Return the tokenizer that a file holds."""
    from transformers import PreTrainedTokenizerFast

    with quiet_without_terminal():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True
        )
    if header.metadata.get("tokenizer.ggml.pre") == "smollm":
        _split_digits(tokenizer)
    return tokenizer


@contextlib.contextmanager
def quiet_without_terminal() -> Iterator[None]:
    """Drop what Transformers writes to stderr, progress bars above all, if nobody watches it."""
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


def _split_digits(tokenizer: Any) -> None:
    """Split every digit off first, as SmolLM's tokenizer does; Transformers forgets that for GGUF.

    It decides whether the blanks before a number are one token ("x  3").
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)


class _Reader:
    """A cursor over the bytes of a file. ``struct.error`` says that a read would leave them."""

    def __init__(self, data: mmap):
        self.data = data
        self.pos = 0

    def header(self) -> GgufHeader:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self.pos = 4
        version, num_tensors, num_entries = self.numbers("IQQ")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} is not among {_VERSIONS}")
        metadata = {}
        for _ in range(num_entries):
            key, (kind,) = self.string(), self.numbers("I")
            value = self.value(kind)
            if value is not None:
                metadata[key] = value
        tensors = self.tensors(num_tensors, metadata.get("general.alignment", 32))
        return GgufHeader(metadata, tensors)

    def tensors(self, num_tensors: int, alignment: Any) -> dict[str, GgufTensor]:
        """Check the tensors' records, which end the header, and return them."""
        records = [self.record() for _ in range(num_tensors)]
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"general.alignment is {alignment}")
        start = -(-self.pos // alignment) * alignment
        tensors = {}
        for name, tensor in records:
            begin = start + tensor.start
            if tensor.start % alignment or begin + tensor.num_bytes > len(self.data):
                raise ValueError(
                    f"tensor {name} has {tensor.num_bytes} bytes at {begin}, "
                    f"the file ends at {len(self.data)}"
                )
            tensors[name] = replace(tensor, start=begin)
        return tensors

    def record(self) -> tuple[str, GgufTensor]:
        """Read a tensor's record; its start counts from the first tensor."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name, (num_dims,) = self.string(), self.numbers("I")
        if not 1 <= num_dims <= _MAX_DIMS:
            raise ValueError(f"tensor {name} has {num_dims} dimensions")
        shape, (kind, start) = self.numbers(f"{num_dims}Q"), self.numbers("IQ")
        block, block_bytes = GGML_QUANT_SIZES.get(kind, (0, 0))
        if not block or shape[0] % block:
            raise ValueError(f"tensor {name} has rows of {shape[0]} in blocks of type {kind}")
        num_bytes = math.prod(shape) // block * block_bytes
        return name, GgufTensor(shape[::-1], GGMLQuantizationType(kind).name, start, num_bytes)

    def numbers(self, format: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + format, self.data, self.pos)
        self.pos += struct.calcsize("<" + format)
        return values

    def string(self) -> str:
        (length,) = self.numbers("Q")
        (raw,) = self.numbers(f"{min(length, len(self.data))}s")
        return raw.decode("utf-8")

    def value(self, kind: int) -> Any:
        """Return a number or a string; skip an array and return None."""
        if kind in _NUMBERS:
            return self.numbers(_NUMBERS[kind])[0]
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise ValueError(f"metadata of unknown kind {kind} at {self.pos}")
        element, count = self.numbers("IQ")
        if element in _NUMBERS:
            self.pos += count * struct.calcsize("<" + _NUMBERS[element])
        elif element == _STRING:
            for _ in range(count):
                (length,) = self.numbers("Q")
                self.pos += length
        else:
            raise ValueError(f"array of unknown kind {element} at {self.pos}")
        return None
