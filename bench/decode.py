"""One decoding step of SmolLM2 on one thread, beside Transformers and llama.cpp.

All on the same weights.

A step runs all layers and the head for one token behind a cached text, and takes the argmax. Its
floor is the weights' bytes over the memory's bandwidth; the weights are larger than any cache.
"""

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

import lmx
from lmx.decode.cache import KVBuffer
from lmx.decode.forward import forward
from lmx.protocols import LayeredModel

from .figures import Gate
from .inputs import DTYPES
from .measure import Measure
from .race import Rotation
from .roof import Traffic

transformers = pytest.importorskip("transformers")

PROMPT = list(range(100, 164))
MOST_STEPS = 64  # then the cache goes back to the prompt
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


def lmx_step(model: LayeredModel) -> Step:
    cache, token = KVBuffer(model), torch.tensor([5])
    with torch.inference_mode():
        forward(model, cache, torch.tensor(PROMPT))
        cache.commit(len(PROMPT))

    def step() -> Tensor:
        nonlocal token
        token = lmx.vocab.argmax(model.norm_head(forward(model, cache, token)))
        cache.commit(1)
        if cache.length == len(PROMPT) + MOST_STEPS:
            cache.length = len(PROMPT)
        return token

    return step


def transformers_step(model: Any) -> Step:
    with torch.inference_mode():
        cache = model(torch.tensor([PROMPT]), use_cache=True).cache
    token = torch.tensor([[5]])

    def step() -> Tensor:
        nonlocal token
        out = model(token, cache=cache, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        if cache.get_seq_length() == len(PROMPT) + MOST_STEPS:
            cache.crop(len(PROMPT))
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


def weight_bytes(model: LayeredModel) -> Rotation:
    """Two blocks as large as what a step reads: for the roof, which reads them."""
    return Rotation(1, torch.ones(2, model.bytes_per_token // 4, dtype=torch.int32))
