"""One step of an engine on SmolLM2, one thread, beside Transformers and llama.cpp.

All on the same weights.

A step takes each request one token further: scheduling, all layers, the head, the choice, and what
follows of it. Its floor is the weights' bytes over the memory's bandwidth; the weights are larger
than any cache.
"""

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

import lmx
from lmx.decode import forward
from lmx.decode.pages import pages_for
from lmx.models import products
from lmx.protocols import LayeredModel

from .drafted import test_drafted, test_tree_share  # noqa: F401  (whole answers with drafters)
from .figures import Gate
from .inputs import DTYPES
from .measure import Measure
from .race import Rotation
from .roof import Traffic, words

transformers = pytest.importorskip("transformers")

PROMPT = list(range(100, 164))
MOST_STEPS = 64  # then the texts begin anew
OPS_OF_A_STEP = ((products, "_gemm"), (products, "_swiglu"), (forward, "_paged"))
Step = Callable[[], Any]


@lru_cache(maxsize=1)
def tiny(dtype: torch.dtype) -> Any:
    """A random model, for a run that measures nothing."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(
        **sizes, num_attention_heads=4, num_key_value_heads=2, vocab_size=256
    )
    return transformers.LlamaForCausalLM(config).to(dtype)


@lru_cache(maxsize=1)
def ours(weights: str, dtype: torch.dtype, smoke: bool) -> LayeredModel:
    if smoke:
        return lmx.load(tiny(dtype), weights="model" if weights == "file" else weights)
    return lmx.load("smollm2", dtype=dtype, weights=weights)


@lru_cache(maxsize=1)
def theirs(dtype: torch.dtype, smoke: bool) -> Any:
    from lmx.models import smollm2

    if smoke:
        return tiny(dtype)
    folder = smollm2.cached_folder(dtype)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def lmx_step(model: LayeredModel, num_seqs: int = 1) -> Step:
    """A step of an engine that always has ``num_seqs`` requests to decode."""
    model.eos_ids = ()
    length = len(PROMPT) + MOST_STEPS
    engine = lmx.Engine(model, max_new_tokens=MOST_STEPS, num_pages=num_seqs * pages_for(length))

    def step() -> None:
        while engine.num_unfinished < num_seqs:  # all end together
            for _ in range(num_seqs):
                engine.add(PROMPT)
            engine.step()
        engine.step()

    return step


def replayed(step: Step) -> Step:
    """The products and attention of one step, and nothing else of it."""
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def recorder(op: Any) -> Any:
        def record(*args: Any, **kwargs: Any) -> Any:
            calls.append((op, args, kwargs))
            return op(*args, **kwargs)

        return record

    with pytest.MonkeyPatch.context() as patch:
        for module, name in OPS_OF_A_STEP:
            patch.setattr(module, name, recorder(getattr(module, name)))
        step()

    def replay() -> None:
        for op, args, kwargs in calls:
            op(*args, **kwargs)

    return replay


def transformers_step(model: Any) -> Step:
    with torch.inference_mode():
        cache = model(torch.tensor([PROMPT]), use_cache=True).cache
    token = torch.tensor([[5]])

    def step() -> Tensor:
        nonlocal token
        out = model(token, cache=cache, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        if cache.get_seq_length() == len(PROMPT) + MOST_STEPS:
            cache.crop(-MOST_STEPS)
        return token

    return step


def llama_cpp_step() -> Step | None:
    """llama.cpp on the packaged file, where its Python package is installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        return None
    from llama_cpp import Llama

    from lmx.models import smollm2

    model = Llama(str(smollm2.packaged_file()), n_ctx=512, n_threads=1, verbose=False)
    model.eval(PROMPT)
    token = 5

    def step() -> int:
        nonlocal token
        model.eval([token])
        token = model.sample(temp=0.0)
        if model.n_tokens == len(PROMPT) + MOST_STEPS:
            model.n_tokens = len(PROMPT)
        return token

    return step


# By weights and dtype: what Transformers computes in beside it, and how fast we must be.
SETTINGS = {
    ("model", "f32"): Gate(0.95, "Transformers"),
    ("model", "bf16"): Gate(1.6, "Transformers"),
    ("int8", "bf16"): None,
    ("file", "bf16"): None,
}
SHARES = {("model", "f32"): 0.75, ("model", "bf16"): 0.6}


@pytest.mark.parametrize(("weights", "dtype"), SETTINGS, ids=str)
def test_step(measure: Measure, smoke: bool, weights: str, dtype: str) -> None:
    model = ours(weights, DTYPES[dtype], smoke)
    step, other = lmx_step(model), transformers_step(theirs(DTYPES[dtype], smoke))
    peer = llama_cpp_step() if weights == "file" and not smoke else None
    measure(
        lambda _: step(),
        weight_bytes(model),
        bytes_moved=Traffic(read=model.bytes_per_token),
        baseline={"Transformers": lambda _: other()},
        peer={"llama.cpp": lambda _: peer()} if peer else {},
        gate=SETTINGS[weights, dtype],
    )


@pytest.mark.parametrize(("weights", "dtype"), SHARES, ids=str)
def test_step_share(measure: Measure, smoke: bool, weights: str, dtype: str) -> None:
    """The share of the memory's bandwidth that reading the weights once takes."""
    model = ours(weights, DTYPES[dtype], smoke)
    step = lmx_step(model)
    measure(
        lambda _: step(),
        weight_bytes(model),
        bytes_moved=Traffic(read=model.bytes_per_token),
        baseline={},
        gate=Gate(SHARES[weights, dtype], kind="roof"),
    )


@pytest.mark.parametrize("allowed", [0.2], ids=lambda share: f"{share:.0%}")
def test_step_rest(measure: Measure, smoke: bool, allowed: float) -> None:
    """What a step takes outside of products and attention, in shares of reading the weights."""
    model = ours("model", torch.bfloat16, smoke)
    step = lmx_step(model)
    step()
    replay, share = replayed(step), int(allowed * model.bytes_per_token)
    name = "products, attention and reading a share of the weights"
    measure(
        lambda _: step(),
        weight_bytes(model),
        bytes_moved=Traffic(read=model.bytes_per_token),
        baseline={},
        peer={
            "products and attention": lambda _: replay(),
            name: lambda x: (replay(), words(x, share).amax()),
        },
        gate=Gate(1.0, name, "peer"),
    )


@pytest.mark.parametrize("rows", [8])
def test_step_batch(measure: Measure, smoke: bool, rows: int) -> None:
    """Tokens per second of requests together, and one at a time."""
    model = ours("model", torch.bfloat16, smoke)
    together, single = lmx_step(model, rows), lmx_step(model)
    measure(
        lambda _: together(),
        weight_bytes(model),
        baseline={},
        peer={"one at a time": lambda _: [single() for _ in range(rows)]},
        gate=Gate(4.0, "one at a time", "peer"),
    )


def weight_bytes(model: LayeredModel) -> Rotation:
    """Two blocks as large as what a step reads: for the roof, which reads them."""
    return Rotation(1, torch.ones(2, model.bytes_per_token // 4, dtype=torch.int32))
