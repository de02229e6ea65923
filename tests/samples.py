"""The one list of cases per op, for op tests, opcheck, promise tests and benches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from grammar.grammar_samples import SAMPLES as GRAMMAR
from kvcache.kv_samples import SAMPLES as KVCACHE
from ngram.cases import CASES as NGRAM_CASES
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """Arguments of one call; `by_row` are the positions and names of those with one entry per row.

    None: the results are no rows, so a part of the rows has another result.

    Where rows are of different lengths, `rows` takes arguments and results apart: count,
    take(args, rows), split(results, args, rows); or, in the place of take, part(sample, rows).
    """

    name: str
    args: tuple
    by_row: tuple[int | str, ...] | None = (0,)
    kwargs: dict = field(default_factory=dict)
    rows: Any = None

    def fresh(self) -> "Sample":
        """The same with copies, for ops that write."""
        return self.map(lambda _, value: _copies(value))

    def map(self, f: Callable) -> "Sample":
        """The same with f(position or name, value) in the place of each value."""
        args = tuple(f(i, a) for i, a in enumerate(self.args))
        return replace(self, args=args, kwargs={k: f(k, v) for k, v in self.kwargs.items()})

    def tensors(self) -> dict[int | str, Tensor]:
        """The tensors among the arguments; those of lists are left out."""
        named = {**dict(enumerate(self.args)), **self.kwargs}
        return {k: v for k, v in named.items() if isinstance(v, Tensor)}


def _copies(value):
    if isinstance(value, list | tuple):
        return [_copies(v) for v in value]
    return twin(value) if isinstance(value, Tensor) else value


def twin(t: Tensor, device: str = "cpu") -> Tensor:
    """A copy with the same strides and offset; clone() and to() would make a view dense."""
    memory = torch.empty(0, dtype=t.dtype, device=t.device).set_(t.untyped_storage())
    return memory.to(device, copy=True).as_strided(t.shape, t.stride(), t.storage_offset())


# Below, at and above each border: mask words, SIMD lanes, blocks of 256, chunks of 8192.
SIZES = (1, 7, 31, 32, 33, 255, 256, 257, 1000, 8447)
LARGE = 270_001  # more than one piece of work for a thread, more chunks than lanes of a warp
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def make_logits(num_rows: int, vocab_size: int, dtype=torch.float32) -> Tensor:
    """Logits with peaks, ties, and tokens that are ruled out."""
    x = torch.randn(num_rows, vocab_size) * 3
    x[:, :: max(1, vocab_size // 5)] += 8
    x[torch.rand_like(x) < 0.05] = -torch.inf
    if vocab_size > 2:
        x[-1] = x[-1].round()  # many equal logits
        x[-1, :3] = torch.tensor([0.0, -0.0, 0.0])
    return x.to(dtype)


def make_bitmask(num_masks: int, vocab_size: int, density: float = 0.5) -> Tensor:
    """Random words, some of them all ones or all zeros; the bits past the vocabulary are set."""
    words = (vocab_size + 31) // 32
    bits = torch.rand(num_masks, words, 32) < density
    kind = torch.randint(4, (num_masks, words, 1))
    bits = torch.where(kind == 0, False, torch.where(kind == 1, True, bits))
    weights = torch.ones((), dtype=torch.int64) << torch.arange(32)
    return (bits * weights).sum(-1).to(torch.int64).bitwise_and(0xFFFFFFFF).to(torch.int32)


def _shapes(num_rows: int = 3) -> Iterator[tuple[str, Tensor]]:
    for i, size in enumerate(SIZES):
        dtype = DTYPES[i % 3]
        yield f"{size}-{str(dtype)[6:]}", make_logits(num_rows, size, dtype)
    yield "large", make_logits(num_rows, LARGE, torch.bfloat16)
    yield "strided", make_logits(num_rows, 700)[:, 100:613]
    yield "offset", make_logits(num_rows, 301, torch.bfloat16)[:, 1:]


def _masks(x: Tensor) -> Iterator[tuple[str, tuple]]:
    yield "", (None, None)
    yield "-mask", (make_bitmask(len(x), x.shape[1]), None)
    ids = torch.tensor([1, -1, 0], dtype=torch.int32)
    yield "-pool", (make_bitmask(2, x.shape[1], 0.1), ids)


def masked_rows() -> Iterator[Sample]:
    for name, x in _shapes():
        for kind, (bitmask, ids) in _masks(x):
            by_row = (0, 2) if ids is not None else (0, 1)
            yield Sample(name + kind, (x, bitmask, ids), by_row)


# temperature, top_k, top_p, min_p: one value per row
SHAPINGS = {
    "plain": (None, None, None, None),
    "warm": ((0.7, 1.0, 1.9), None, None, None),
    "greedy": ((0.0, 1e-5, 1.0), None, None, None),
    "top-k": (None, (1, 7, 50), None, None),
    "top-k-large": (None, (0, 300, 2000), None, None),
    "top-p": (None, None, (0.3, 0.9, 0.999), None),
    "top-p-edge": ((1.0, 9.0, 9.0), None, (1.0, 0.9999999, 1e-6), None),
    "min-p": ((1.0, 0.5, 4.0), None, None, (0.1, 1.0, 0.001)),
    "all": ((0.8, 0.0, 1.3), (40, 3, 0), (0.95, 0.5, 0.8), (0.02, 0.0, 0.1)),
}


def _shaping(name: str) -> tuple:
    dtypes = (torch.float32, torch.int32, torch.float32, torch.float32)
    return tuple(
        None if v is None else torch.tensor(v, dtype=t)
        for v, t in zip(SHAPINGS[name], dtypes, strict=True)
    )


def shaped_rows(before: Callable[[Tensor], tuple] = lambda x: ()) -> Iterator[Sample]:
    """Every shaping on a few shapes and masks, every shape and mask on a few shapings."""
    names = list(SHAPINGS)
    for i, plain in enumerate(masked_rows()):
        x, bitmask, ids = plain.args
        picks = names if plain.name in ("1000-float16", "8447-float32-mask") else names[i % 9 :: 4]
        if plain.name.startswith("large"):  # the limits read a row many times on the harness
            picks = ["plain", "top-k"]
        for name in picks:
            first = before(x)
            n = len(first)
            by_row = (0, *range(1, n + 1), n + (2 if ids is not None else 1), *range(n + 3, n + 7))
            args = (x, *first, bitmask, ids, *_shaping(name))
            yield Sample(f"{plain.name}-{name}", args, by_row)


def _uniforms(x: Tensor) -> tuple[Tensor]:
    return (torch.tensor([0.0, 0.37, 1 - 2**-24], dtype=torch.float32),)


def lse_rows() -> Iterator[Sample]:
    for i, s in enumerate(masked_rows()):
        temperature = torch.tensor([0.5, 1.0, 3.0]) if i % 2 else None
        yield Sample(s.name, (*s.args, temperature), (*s.by_row, 3))


def logprobs_rows() -> Iterator[Sample]:
    for name, x in _shapes():
        targets = torch.tensor([0, -1, x.shape[1] - 1])
        yield Sample(name, (x, targets), (0, 1))


def uniform_numbers() -> Iterator[Sample]:
    seeds = torch.tensor([0, -1, 2**63 - 1, 12345, 7])
    positions = torch.tensor([0, 1, 2**40 + 3, 99, 2**56 - 1])
    yield Sample("plain", (seeds, positions, 1), (0, 1))
    many = torch.arange(10_000)
    yield Sample("large", (many * 77, many, 1), (0, 1))
    indices = torch.tensor([0, 1, 2, 3, 2**32 - 1])
    hi = torch.tensor([0, 1, 2**32 - 1, 5, 6])
    yield Sample("indices", (seeds, positions, 2, indices, hi), (0, 1, 3, 4))


def mask_apply_rows() -> Iterator[Sample]:
    for s in masked_rows():
        if s.args[1] is not None:
            yield s
    yield Sample("narrow", (make_logits(3, 200), make_bitmask(3, 100)), (0, 1))


def bools() -> Iterator[Sample]:
    for size in (*SIZES, LARGE):
        yield Sample(str(size), (torch.rand(3, size) < 0.5,))


def words() -> Iterator[Sample]:
    for size in (*SIZES, LARGE):
        yield Sample(str(size), (make_bitmask(3, size), size))


def word_pairs() -> Iterator[Sample]:
    for size in (*SIZES, LARGE):
        yield Sample(str(size), (make_bitmask(3, size), make_bitmask(3, size)), (0, 1))


def ngram_rows(op: str) -> Iterator[Sample]:
    for name, args, rows in NGRAM_CASES[op]():
        yield Sample(name, args, (), rows=rows)


# Ops whose sums are a tensor core's: backends agree within rounding, not bit for bit.
ROUNDED = {"skip_gemm", "skip_gemm_out", "skip_swiglu", "attention_paged"}

SAMPLES: dict[str, Callable[[], Iterator[Sample]]] = {
    "attention_paged": lambda: attention_samples.pageds(),
    "attention_rope": lambda: attention_samples.ropes(),
    "attention_merge": lambda: attention_samples.merges(),
    "skip_plan": lambda: layerskip_samples.plans(),
    "skip_gemm": lambda: layerskip_samples.gemms(),
    "skip_gemm_out": lambda: layerskip_samples.gemm_outs(),
    "skip_swiglu": lambda: layerskip_samples.swiglus(),
    "skip_rmsnorm": lambda: layerskip_samples.rmsnorms(),
    "skip_layernorm": lambda: layerskip_samples.layernorms(),
    "skip_gather": lambda: layerskip_samples.gathers(),
    "skip_scatter": lambda: layerskip_samples.scatters(),
    "vocab_argmax": masked_rows,
    "vocab_softmax": shaped_rows,
    "vocab_lse": lse_rows,
    "vocab_logprobs": logprobs_rows,
    "vocab_sample": lambda: shaped_rows(_uniforms),
    "vocab_uniform": uniform_numbers,
    "vocab_mask_apply_": mask_apply_rows,
    "vocab_mask_from_bool": bools,
    "vocab_mask_to_bool": words,
    "vocab_mask_and_": word_pairs,
    "vocab_mask_or_": word_pairs,
    "vocab_mask_popcount": words,
    **{op: partial(ngram_rows, op) for op in NGRAM_CASES},
    **GRAMMAR,
    **KVCACHE,
}


def samples_of(op: str) -> list[Sample]:
    """The op's cases, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return list(SAMPLES[op]())


import attention_samples  # noqa: E402  (they take Sample from here)
import layerskip_samples  # noqa: E402
