"""The SIMT harness catches what it promises to catch: each planted bug, with its message."""

import os
import re
import shutil
import subprocess

import pytest
from helpers import SIMT

SELFTEST = SIMT.with_name("simt_selftest")

pytestmark = pytest.mark.skipif(
    not SIMT.exists(), reason="built without the harness: CUDA's headers were not found"
)

BUGS = {
    # barriers and shared memory
    "missing_barrier": "reads shared byte 4, which nobody wrote",
    "barrier_for_some": "some threads never arrive: from thread 0 waits at __syncthreads .*, "
    "from thread 100 returned",
    "barriers_in_branches": "some threads never arrive: from thread 0 waits at __syncthreads .*, "
    "from thread 128 waits at __syncthreads",
    "plain_add_for_atomic": "race: reads shared byte 28, written by thread 4 with no barrier",
    "index_outside_array": "index 15 is outside the array",
    "shared_past_the_end": "writes shared byte 295, but the block has 168",
    "shared_view_too_large": "shared_memory of 256 bytes, but the block has 168",
    # cp.async
    "missing_cp_async_wait": "reads shared byte 7948 before cp.async's wait",
    "returns_before_wait": "returns before cp.async's wait",
    "misaligned_cp_async": "misaligned: cp.async of 16 bytes",
    "cp_async_past_the_end": "outside every tensor of the call, 16 bytes past the end of tensor",
    "missing_barrier_after_wait": "reads shared byte 16, which nobody wrote",
    "missing_barrier_before_reuse": "reads shared byte 4 before cp.async's wait",
    # warps
    "thread_misses_shuffle": "some threads never arrive: .*from thread 77 returned",
    "missing_syncwarp_after_atomic": "race: updates shared byte 48, read by thread 31",
    "lane_not_in_mask": "__syncwarp: the calling lane is not in the mask",
    "shuffle_from_absent_lane": "__shfl_sync reads lane 16, which is not in the mask",
    "syncwarp_of_others": "race: reads shared byte 124, written by thread 31 with no barrier",
    "mask_beyond_block": "__syncwarp: the mask names lanes that the block does not have",
    "shuffles_in_branches": "some threads never arrive: from thread 0 waits at __shfl_sync .*, "
    "from thread 16 waits at __shfl_sync",
    # tensor cores
    "missing_syncwarp_before_ldmatrix": "reads shared byte 48, which nobody wrote",
    "missing_syncwarp_before_reuse": "race: writes shared byte 624, read by thread 13",
    "misaligned_ldmatrix": "misaligned: an ldmatrix row is not at a multiple of 16",
    # global memory
    "reads_past_the_end": "outside every tensor of the call, 2 bytes past the end of tensor",
    "memcpy_past_the_end": "outside every tensor of the call, 3 bytes past the end of tensor",
    "streams_past_the_end": "outside every tensor of the call",
    "stores_past_the_end": "outside every tensor of the call",
    "streams_shared": "an instruction for global memory gets a shared address",
    "misaligned_vector": "misaligned: an address used as 'const struct uint4' is 8 modulo 16",
    "misaligned_streaming": "misaligned: 16 bytes at an address that is no multiple of it",
    "writes_input": "writes global byte 0 of tensor [01], an input tensor",
    "writes_library_data": "outside every tensor of the call",
    "reads_fresh_output": "reads global byte 0 of tensor [01], which nobody wrote",
    "local_of_another_thread": "touches a local variable of another thread",
    # several blocks, several threads
    "blocks_write_one_place": "race: writes .*, written by another block of the same launch",
    "block_reads_another": "race: reads .*, written by another block of the same launch",
    "block_writes_what_another_read": "race: writes .*, read by another block of the same launch",
    "plain_beside_atomic": "race: updates .*, written by another block of the same launch",
    "thread_reads_another": "race: reads global byte 112 of tensor 2, written by thread 28",
    "constant_path": "as constant memory, but this launch writes it",
    "waits_for_a_flag": "does not end",
    "sleeps": "__nanosleep: no thread can wait here",
    # arithmetic that a CPU and a GPU do differently
    "shift_too_far": "shifts by less than 0 or by the type's width or more",
    "divides_by_zero": "divides by zero",
    "float_too_large": "casts a float to an integer that cannot hold it",
}
REFUSED = {
    "grid_too_large": "the grid is larger than 2147483647 along x or 65535 along y or z",
    "empty_grid": "the grid is empty",
    "too_many_threads": "1025 threads per block",
    "too_much_shared": "102400 bytes of shared memory; a block has 101376",
}
ORDERS = {
    "depends_on_block_order": "it depends on an order that nobody promises",
    "depends_on_thread_order": "it depends on an order that nobody promises",
}


def selftest(bug: str, order: int = 0, **env: str) -> tuple[int, str]:
    """Run one variant. Return the exit status and what was printed."""
    assert SELFTEST.exists(), f"{SELFTEST} is missing beside liblmx_simt.so; build again"
    done = subprocess.run(
        [SELFTEST, bug, str(order)], capture_output=True, text=True, env=os.environ | env
    )
    return done.returncode, done.stdout.strip()


@pytest.fixture(autouse=True)
def _own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMX_SIMT_ORDER", raising=False)


@pytest.mark.parametrize("order", [0, 1, 7])
def test_without_a_bug_all_pass(order: int) -> None:
    status, printed = selftest("none", order)
    assert status == 0, printed


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_caught(bug: str) -> None:
    status, message = selftest(bug)
    assert status == 0, message  # 0 also says: afterwards, in the same process, all good ones pass
    assert re.search(rf"^block \(\d+,\d+,\d+\) thread \d+: .*{BUGS[bug]}", message)
    if shutil.which("addr2line"):
        assert re.search(r"tests/simt/selftest_\w+\.cu:\d+\)$", message)


@pytest.mark.parametrize("bug", REFUSED)
def test_launch_is_refused(bug: str) -> None:
    status, message = selftest(bug)
    assert status == 0
    assert message.startswith("launch refused: ") and REFUSED[bug] in message


@pytest.mark.parametrize("bug", ORDERS)
def test_another_order_shows_the_bug(bug: str) -> None:
    assert selftest(bug) == (1, "")  # forwards, nobody can tell
    for status, message in (selftest(bug, 1), selftest(bug, 7), selftest(bug, LMX_SIMT_ORDER="1")):
        assert status == 0 and ORDERS[bug] in message


def test_every_bug_is_expected_here() -> None:
    status, names = selftest("list")
    assert status == 0 and sorted(names.split()) == sorted([*BUGS, *REFUSED, *ORDERS])
