"""Benches of lmx.vocab at Llama-3's vocabulary, in float32 and bfloat16, one row and a batch."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lmx import vocab

from . import vocab_torch as ways
from .figures import Gate
from .inputs import ROTATE_BYTES, Case, Inputs, cases
from .measure import Measure
from .race import Rotation, Way
from .roof import Traffic

each_case = pytest.mark.parametrize("case", cases("f32", "bf16"), ids=str)
each_batch = pytest.mark.parametrize("case", cases("f32"), ids=str)  # ops without a dtype
each_share = pytest.mark.parametrize("share", (0.01, 0.5), ids=lambda s: f"{s:.0%} allowed")


@pytest.fixture
def inputs(case: Case, smoke: bool) -> Inputs:
    return Inputs(case, smoke)


def gate_of(case: Case, at_least: float, against: str = "") -> Gate | None:
    """Gates are for the CPU and float32."""
    return Gate(at_least, against) if (case.device, case.dtype) == ("cpu", "f32") else None


def numpy_on_cpu(case: Case, name: str, fn: Way) -> dict[str, Way]:
    """A peer that knows no bfloat16 and no GPU, and bitwise_count only since numpy 2."""
    known = hasattr(np, name) and (case.device, case.dtype) == ("cpu", "f32")
    return {f"numpy.{name}": fn} if known else {}


# ---- rows of logits ------------------------------------------------------------------------------


def traffic(inputs: Inputs, write: int = 0, with_mask: bool = False) -> Traffic:
    """A call reads its logits and its mask, though a sparse mask needs few of the logits."""
    row = inputs.vocab_size * inputs.logits.itemsize + with_mask * inputs.mask_words * 4
    return Traffic(read=inputs.case.rows * row, write=write)


def masked(inputs: Inputs, share: float) -> Rotation:
    """Logits, bitmasks, and the same as bools for torch."""
    x = inputs.logits
    return Rotation(inputs.case.rows, x, inputs.masks(share, len(x)), inputs.bools(share, len(x)))


@each_case
def test_argmax(measure: Measure, inputs: Inputs, case: Case) -> None:
    measure(
        vocab.argmax,
        Rotation(case.rows, inputs.logits),
        bytes_moved=traffic(inputs),
        baseline=ways.ARGMAX,
        peer=numpy_on_cpu(case, "argmax", lambda x: x.numpy().argmax(-1)),
        gate=gate_of(case, 0.95),
    )


@each_case
@each_share
def test_argmax_masked(measure: Measure, inputs: Inputs, case: Case, share: float) -> None:
    measure(
        lambda x, mask, _: vocab.argmax(x, mask),
        masked(inputs, share),
        bytes_moved=traffic(inputs, with_mask=True),
        baseline={
            f"where+{name}": lambda x, _, allowed, way=way: way(ways.hide(x, allowed))
            for name, way in ways.ARGMAX.items()
        },
    )


@each_case
def test_softmax(measure: Measure, inputs: Inputs, case: Case) -> None:
    measure(
        vocab.softmax,
        Rotation(case.rows, inputs.logits),
        bytes_moved=traffic(inputs, write=case.rows * inputs.vocab_size * 4),
        baseline={
            "softmax": ways.softmax,
            "softmax(float)": lambda x: torch.softmax(x.float(), -1),
        },
        gate=gate_of(case, 0.95),
    )


@each_case
@each_share
def test_softmax_masked(measure: Measure, inputs: Inputs, case: Case, share: float) -> None:
    measure(
        lambda x, mask, _: vocab.softmax(x, mask),
        masked(inputs, share),
        bytes_moved=traffic(inputs, write=case.rows * inputs.vocab_size * 4, with_mask=True),
        baseline={"where+softmax": lambda x, _, allowed: ways.softmax(ways.hide(x, allowed))},
    )


@each_case
def test_lse(measure: Measure, inputs: Inputs, case: Case) -> None:
    measure(
        vocab.lse,
        Rotation(case.rows, inputs.logits),
        bytes_moved=traffic(inputs),
        baseline=ways.LSE,
        gate=gate_of(case, 0.95),
    )


@each_case
@each_share
def test_lse_masked(measure: Measure, inputs: Inputs, case: Case, share: float) -> None:
    """Both sums: over all tokens and over the allowed ones."""
    measure(
        lambda x, mask, _: vocab.lse(x, mask),
        masked(inputs, share),
        bytes_moved=traffic(inputs),
        baseline={
            f"{name}, where+{name}": lambda x, _, allowed, way=way: (
                way(x),
                way(ways.hide(x, allowed)),
            )
            for name, way in ways.LSE.items()
        },
    )


@each_case
def test_logprobs(measure: Measure, inputs: Inputs, case: Case) -> None:
    x = inputs.logits
    targets = torch.arange(len(x), device=case.device) * 7919 % inputs.vocab_size
    measure(
        vocab.logprobs,
        Rotation(case.rows, x, targets),
        bytes_moved=traffic(inputs),
        baseline=ways.LOGPROBS,
    )


SAMPLING_GATES = {
    "plain": (1.0, "softmax+cumsum+searchsorted"),
    "temperature": (1.0, "softmax+cumsum+searchsorted"),
    "top_k+top_p": (3.0, "sort"),
}


def sample(measure: Measure, inputs: Inputs, x: Tensor, shaping: str, gate: Gate | None) -> None:
    arguments, baseline = ways.SAMPLING[shaping]
    uniforms = inputs.uniforms()
    measure(
        lambda x: vocab.sample(x, uniforms, **arguments),
        Rotation(inputs.case.rows, x),
        bytes_moved=traffic(inputs),
        baseline={name: lambda x, way=way: way(x, uniforms) for name, way in baseline.items()},
        gate=gate,
    )


@each_case
@pytest.mark.parametrize("shaping", ways.SAMPLING)
def test_sample(measure: Measure, inputs: Inputs, case: Case, shaping: str) -> None:
    gate = gate_of(case, *SAMPLING_GATES[shaping]) if shaping in SAMPLING_GATES else None
    sample(measure, inputs, inputs.logits, shaping, gate)


@each_batch
@pytest.mark.parametrize("shaping", ("top_p", "top_k+top_p"))
def test_sample_flat(measure: Measure, inputs: Inputs, shaping: str, case: Case) -> None:
    """Where no token is likely, top-p keeps tens of thousands."""
    sample(measure, inputs, inputs.flat_logits, shaping, None)


@each_case
@each_share
def test_sample_masked(measure: Measure, inputs: Inputs, case: Case, share: float) -> None:
    uniforms = inputs.uniforms()
    measure(
        lambda x, mask, _: vocab.sample(x, uniforms, mask),
        masked(inputs, share),
        bytes_moved=traffic(inputs, with_mask=True),
        baseline={
            f"where+{name}": lambda x, _, allowed, way=way: way(ways.hide(x, allowed), uniforms)
            for name, way in ways.dense(None).items()
        },
    )


# ---- random numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", (8, 65_536))
@pytest.mark.parametrize("case", cases("f32")[:1] + cases("f32")[2:3], ids=lambda c: c.device)
def test_uniform(measure: Measure, inputs: Inputs, case: Case, count: int, smoke: bool) -> None:
    """Counter-based numbers against a stateful generator, which keeps no promise about batches."""
    total = 4 * count if smoke else ROTATE_BYTES // 16
    seeds = torch.arange(total, device=case.device)
    measure(
        lambda seed, position: vocab.uniform(seed, position, purpose=1),
        Rotation(count, seeds, seeds + 1),
        bytes_moved=Traffic(read=16 * count, write=4 * count),
        baseline={"rand": lambda seed, _: torch.rand(len(seed), device=seed.device)},
    )


# ---- masks ---------------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize("share", (0.01, 0.5, 0.99), ids=lambda s: f"{s:.0%} allowed")
def test_mask_apply_(measure: Measure, inputs: Inputs, case: Case, share: float) -> None:
    x = inputs.logits.clone()
    banned = inputs.bools(share, len(x)).logical_not()
    measure(
        lambda x, mask, _: vocab.mask_apply_(x, mask),
        Rotation(case.rows, x, inputs.masks(share, len(x)), banned),
        bytes_moved=Traffic(update=case.rows * inputs.vocab_size * x.itemsize),
        baseline={"masked_fill_": lambda x, _, banned: x.masked_fill_(banned, ways.NEG_INF)},
    )


@each_batch
def test_mask_from_bool(measure: Measure, inputs: Inputs, case: Case) -> None:
    def packbits(allowed: Tensor) -> object:
        return np.packbits(allowed.numpy(), axis=-1, bitorder="little")

    measure(
        vocab.mask_from_bool,
        Rotation(case.rows, inputs.bools(0.5, inputs.num_rows(inputs.vocab_size))),
        bytes_moved=Traffic(
            read=case.rows * inputs.vocab_size, write=case.rows * inputs.mask_words * 4
        ),
        baseline={"pad, shift, sum": ways.pack},
        peer=numpy_on_cpu(case, "packbits", packbits),
    )


def bitmasks(inputs: Inputs, count: int) -> Rotation:
    """Groups of `count` masks."""
    num_rows = inputs.num_rows(inputs.mask_words * 4 * count)
    share = 0.5
    return Rotation(inputs.case.rows, *(inputs.masks(share, num_rows) for _ in range(count)))


@each_batch
def test_mask_to_bool(measure: Measure, inputs: Inputs, case: Case) -> None:
    size = inputs.vocab_size

    def unpackbits(mask: Tensor) -> object:
        return np.unpackbits(mask.numpy().view(np.uint8), axis=-1, count=size, bitorder="little")

    measure(
        lambda mask: vocab.mask_to_bool(mask, size),
        bitmasks(inputs, 1),
        bytes_moved=Traffic(read=case.rows * inputs.mask_words * 4, write=case.rows * size),
        baseline={"shift, and": lambda mask: ways.unpack(mask, size)},
        peer=numpy_on_cpu(case, "unpackbits", unpackbits),
    )


def combine(measure: Measure, inputs: Inputs, ours: Way, torch_way: Way) -> None:
    words = inputs.case.rows * inputs.mask_words * 4
    measure(
        ours,
        bitmasks(inputs, 2),
        bytes_moved=Traffic(read=words, update=words),
        baseline={torch_way.__name__: torch_way},
    )


@each_batch
def test_mask_and_(measure: Measure, inputs: Inputs, case: Case) -> None:
    combine(measure, inputs, vocab.mask_and_, Tensor.bitwise_and_)


@each_batch
def test_mask_or_(measure: Measure, inputs: Inputs, case: Case) -> None:
    combine(measure, inputs, vocab.mask_or_, Tensor.bitwise_or_)


@each_batch
def test_mask_popcount(measure: Measure, inputs: Inputs, case: Case) -> None:
    table = ways.popcount(torch.arange(1 << 16, dtype=torch.int32, device=case.device)[:, None])
    measure(
        lambda mask: vocab.mask_popcount(mask, inputs.vocab_size),
        bitmasks(inputs, 1),
        bytes_moved=Traffic(read=case.rows * inputs.mask_words * 4),
        baseline={
            "fields": ways.popcount,
            "table": lambda mask: ways.popcount_by_table(mask, table),
        },
        peer=numpy_on_cpu(
            case, "bitwise_count", lambda mask: np.bitwise_count(mask.numpy()).sum(-1)
        ),
    )


@each_batch
def test_mask_gather(measure: Measure, inputs: Inputs, case: Case) -> None:
    (pool, _) = bitmasks(inputs, 2)[0]
    pool = pool.repeat(64 // len(pool) + 1, 1)
    ids = torch.randint(len(pool), (64 * case.rows,), dtype=torch.int32, device=case.device)
    measure(
        lambda ids: vocab.mask_gather(pool, ids),
        Rotation(case.rows, ids),
        bytes_moved=Traffic(
            read=case.rows * inputs.mask_words * 4, write=case.rows * inputs.mask_words * 4
        ),
        baseline={"index_select": lambda ids: pool.index_select(0, ids)},
    )
