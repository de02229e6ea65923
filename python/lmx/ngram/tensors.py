"""The tensors of an index, which every op of the room takes first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SHARD_COLUMNS = 8  # text_off, N, sa_off, M, skey_off, doc_off, D, sign
KEY_STEP = 64  # ranks between two keys


@dataclass(frozen=True)
class IndexTensors:
    """An index on one device.

    ``text``: uint8, int16 or int32 (the bits of unsigned tokens); ``sa``: int32 (the bits of uint32
    positions), or uint8 bytes of ``ptr_bytes`` each in infini-gram's order; ``lut``: int64
    ``[S, vocab_size + 2]`` or empty; ``skey``: int64; ``docs``: int64; ``shards``: int64 ``[S, 8]``
    (``csrc/ngram/index.h``). ``eos_id`` -1: none.
    """

    text: Tensor
    sa: Tensor
    lut: Tensor
    skey: Tensor
    docs: Tensor
    shards: Tensor
    vocab_size: int
    eos_id: int = -1
    ptr_bytes: int = 0

    @property
    def main(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The five tensors in the order of the ops."""
        return self.text, self.sa, self.lut, self.skey, self.shards

    def to(self, device: torch.device | str) -> "IndexTensors":
        """A copy on another device."""
        return replace(
            self,
            text=self.text.to(device),
            sa=self.sa.to(device),
            lut=self.lut.to(device),
            skey=self.skey.to(device),
            docs=self.docs.to(device),
            shards=self.shards.to(device),
        )


def ragged(
    rows: Sequence[Sequence[int]], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Rows of tokens as ``qtok`` and ``qoff``, int64."""
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    flat = [token for row in rows for token in row]
    made = (torch.tensor(x, dtype=torch.int64) for x in (flat, offsets))
    qtok, qoff = (t.to(device) for t in made)
    return qtok, qoff
