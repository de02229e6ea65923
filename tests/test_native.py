"""Parts of csrc/common that no op shows directly: Philox, the pool, py_tensor."""

import importlib.util
import os

import pytest
import torch
from helpers import ROOT


@pytest.fixture(scope="module")
def native():
    (path,) = (ROOT / "build" / "tests" / "native").glob("lmx_native*.so")
    spec = importlib.util.spec_from_file_location("lmx_native", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_philox_known_answers(native):
    """The published vectors of Philox4x32-10."""
    ones = 0xFFFFFFFF
    assert native.philox([0] * 4, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert native.philox([ones] * 4, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert native.philox(pi, 0xA4093822, 0x299F31D0) == [
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_pool(native, num_threads):
    assert native.sum_in_pool(num_threads, 500) == sum(i * i for i in range(500))
    assert native.waiter_works() and native.cancel_works()
    with pytest.raises(ValueError, match="from the pool"):
        native.throw_in_pool()
    with pytest.raises(ValueError, match=r"expected num_threads in \[1, 1024\], got 0"):
        native.sum_in_pool(0, 1)


def test_shared_pool_is_remade_after_a_fork(native):
    assert native.shared_pool_answers(2) == 42 and native.shared_pool_size() == 2
    assert native.shared_pool_has_threads()
    child = os.fork()
    if child == 0:
        os._exit(0 if native.shared_pool_has_threads() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_py_tensor(native):
    words = torch.arange(12, dtype=torch.int32).view(3, 4)
    assert native.row_sum(words, torch.int32, 3, 4) == 66
    wrong = [
        (words[0], r"expected words of shape \[3, 4\], got torch.Size\(\[4\]\)"),
        (words[:2], r"expected words of shape \[3, 4\], got torch.Size\(\[2, 4\]\)"),
        (words.long(), "expected words of dtype torch.int32, got torch.int64"),
        (words.t().contiguous().t(), r"expected words contiguous"),
        (words.to("meta"), "expected words on the CPU, got meta"),
    ]
    for tensor, message in wrong:
        with pytest.raises(ValueError, match="lmx.test.row_sum: " + message):
            native.row_sum(tensor, torch.int32, 3, 4)
    for other in ([1, 2], None, 3):
        with pytest.raises(TypeError, match="lmx.test.row_sum: expected words a torch.Tensor, got"):
            native.row_sum(other, torch.int32, 3, 4)
