"""What takes the place of a model and of its tokenizer where the cache is tested."""

from pathlib import Path
from types import SimpleNamespace

FILES = {"model.safetensors": "weights", "tokenizer.json": "{}"}


class StandIn:
    """Writes one file where a model or a tokenizer would save itself."""

    config = SimpleNamespace(max_position_embeddings=8192)
    model_max_length = 0

    def __init__(self, name: str):
        self.name = name

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / self.name).write_text(FILES[self.name])
