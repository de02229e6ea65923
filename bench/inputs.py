"""Inputs like a decode step's, in rotations that no cache holds."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

import lmx
from lmx import vocab

ROTATE_BYTES = 600 << 20  # last-level caches keep up to about 100 MiB
LLAMA3_VOCAB = 128_256
SMOKE_VOCAB = 1_003
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """Where a bench runs, on what, and on how many rows at once."""

    device: str
    dtype: str
    rows: int

    def __str__(self) -> str:
        return f"{self.device}-{self.dtype}-{self.rows}"

    def facts(self) -> dict[str, object]:
        return {"device": self.device, "dtype": self.dtype, "rows": self.rows}


def cases(*dtypes: str) -> list[Case]:
    """One row and a batch of 8 on the CPU, 64 too on a GPU."""
    batches = [("cpu", 1), ("cpu", 8)]
    batches += [] if lmx.no_cuda else [("cuda", 1), ("cuda", 8), ("cuda", 64)]
    return [Case(device, dtype, rows) for dtype in dtypes for device, rows in batches]


@dataclass(frozen=True)
class Inputs:
    """The tensors of one case."""

    case: Case
    smoke: bool

    @property
    def vocab_size(self) -> int:
        return SMOKE_VOCAB if self.smoke else LLAMA3_VOCAB

    @property
    def mask_words(self) -> int:
        return -(-self.vocab_size // 32)

    def num_rows(self, bytes_per_row: int) -> int:
        return (
            2 * self.case.rows
            if self.smoke
            else max(ROTATE_BYTES // bytes_per_row, 4 * self.case.rows)
        )

    @property
    def logits(self) -> Tensor:
        """`[num_rows, vocab_size]`, shared by all benches: not to be written."""
        return self._shared_logits(num_likely=32)

    @property
    def flat_logits(self) -> Tensor:
        """The same without likely tokens."""
        return self._shared_logits(num_likely=0)

    def _shared_logits(self, num_likely: int) -> Tensor:
        num_rows = self.num_rows(self.vocab_size * DTYPES[self.case.dtype].itemsize)
        return _logits(num_rows, self.vocab_size, num_likely, self.case.dtype, self.case.device)

    def bools(self, share: float, num_rows: int) -> Tensor:
        """`[num_rows, vocab_size]`: each token allowed with probability `share`."""
        return _bools(num_rows, self.vocab_size, share, self.case.device)

    def masks(self, share: float, num_rows: int) -> Tensor:
        """The same as a bitmask."""
        distinct = vocab.mask_from_bool(self.bools(share, min(num_rows, 64)))
        return distinct.repeat(-(-num_rows // 64), 1)[:num_rows].contiguous()

    def uniforms(self) -> Tensor:
        """One number per row of a call."""
        rows = torch.arange(self.case.rows, device=self.case.device)
        return vocab.uniform(rows, rows, purpose=1)


@lru_cache(maxsize=3)
def _logits(num_rows: int, vocab_size: int, num_likely: int, dtype: str, device: str) -> Tensor:
    """Like a model's: a bulk of N(0, 2) and likely tokens of N(10, 2.5); 32 of them: 94 % of it."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.empty(num_rows, vocab_size, dtype=DTYPES[dtype], device=device)
    x.normal_(0, 2, generator=generator)
    shape = (num_rows, num_likely)
    likely = torch.empty(shape, dtype=x.dtype, device=device).normal_(10, 2.5, generator=generator)
    ids = torch.randint(vocab_size, shape, generator=generator, device=device)
    return x.scatter_(1, ids, likely)


@lru_cache(maxsize=1)
def _bools(num_rows: int, vocab_size: int, share: float, device: str) -> Tensor:
    generator = torch.Generator(device).manual_seed(0)
    shape = (min(num_rows, 64), vocab_size)
    distinct = torch.rand(shape, generator=generator, device=device) < share
    return distinct.repeat(-(-num_rows // 64), 1)[:num_rows].contiguous()
