import pytest
import torch

from lmx.models import memory

MIB = 2**20
CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that sets a process's control group; the machine has 1000 MiB."""
    monkeypatch.setattr(memory, "_of_machine", lambda: 1000 * MIB)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(memory, "_OWN_CGROUP", tmp_path / "cgroup")

    def set_up(own, **groups):
        (tmp_path / "cgroup").write_text(own)
        for name, (limit, used, files) in groups.items():
            folder = tmp_path / "fs" / name.replace("__", "/").strip("/")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{used * MIB}\n")
            stat = f"anon 5\nactive_file {files * MIB}\ninactive_file {files * MIB}\n"
            (folder / "memory.stat").write_text(stat)

    return set_up


def available():
    return memory.available_bytes(CPU) / MIB


def test_a_container_sees_its_own_group_as_the_root(machine):
    machine("0::/\n", __=(300 * MIB, 100, 0))
    assert available() == 200


def test_a_limit_above_the_machine_or_none_changes_nothing(machine):
    machine("0::/\n", __=(5000 * MIB, 100, 0))
    assert available() == 1000
    machine("0::/\n", __=("max", 100, 0))
    assert available() == 1000


def test_the_tightest_group_around_counts(machine):
    machine("1:cpu:/\n0::/a/b\n", a__b=(700 * MIB, 100, 0), a=(500 * MIB, 100, 0), c=(1, 0, 0))
    assert available() == 400


def test_file_pages_can_be_dropped(machine):
    machine("0::/\n", __=(300 * MIB, 250, 100))
    assert available() == 250


def test_a_group_over_its_limit_has_nothing_left(machine):
    machine("0::/\n", __=(300 * MIB, 310, 0))
    assert available() == 0
    with pytest.raises(MemoryError, match=r"weights needs 0.0 MiB on cpu, where 0.0 MiB"):
        memory.require(1, CPU, "weights")


@pytest.mark.parametrize("own", ["4:memory:/x\n", "0::/not/there\n", "0::/../elsewhere\n", ""])
def test_without_the_files_of_version_2_the_machine_counts(machine, own):
    machine(own)
    assert available() == 1000


def test_a_group_outside_of_what_can_be_seen(machine):
    machine("0::/../elsewhere\n", __=(300 * MIB, 100, 0), elsewhere=(1, 0, 0))
    assert available() == 200
