import pytest
import torch
from helpers import BACKENDS, Backend

import lmx


@pytest.fixture(params=BACKENDS)
def ops(request) -> Backend:
    return Backend(request.param)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """A setter of torch's threads that is undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pytest_collection_modifyitems(config, items):
    if config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long: run by `make test-long`"))


def pytest_report_header() -> list[str]:
    return [f"lmx: cpu level {lmx._C.cpu_isa}, backends {', '.join(BACKENDS)}"]
