"""A rotation of sequences in shuffled pages, and the ways that torch has of attending to them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmx import attention

from .inputs import ROTATE_BYTES
from .race import Rotation


@dataclass(frozen=True)
class Setting:
    """Heads, head size and slots of a page."""

    num_heads: int = 32
    num_kv_heads: int = 8
    dim: int = 128
    page_size: int = 16

    @property
    def group(self) -> int:
        return self.num_heads // self.num_kv_heads

    def bytes_of(self, slots: int) -> int:
        return 2 * slots * self.num_kv_heads * self.dim * 2


LLAMA3 = Setting()  # 8B
SMOLLM2 = Setting(9, 3, 64)


class Pages:
    """Sequences of equal length in one bfloat16 pool, their pages shuffled over all of it."""

    def __init__(self, setting: Setting, slots: int, smoke: bool, num_q: int = 1) -> None:
        self.setting, self.slots, self.num_q = setting, slots, num_q
        pages = slots // setting.page_size
        count = 2 if smoke else max(2, ROTATE_BYTES // setting.bytes_of(slots))
        shape = (2, setting.num_kv_heads, setting.page_size, setting.dim)
        few = torch.randn(64, *shape).bfloat16()
        self.pool = torch.empty(1 + count * pages, *shape, dtype=torch.bfloat16)
        for first in range(0, len(self.pool), len(few)):
            self.pool[first : first + len(few)] = few[: len(self.pool) - first]
        table = (torch.randperm(count * pages).int() + 1).view(count, 1, pages)
        dense = self.pool[1:].view(count, 2, setting.num_kv_heads, slots, setting.dim)
        self.rotation = Rotation(1, dense, table)  # the same bytes, seen as contiguous ones too
        self.query = torch.randn(num_q, setting.num_heads, setting.dim).bfloat16()
        self.key, self.value = (
            torch.randn(2, num_q, setting.num_kv_heads, setting.dim).bfloat16().unbind()
        )
        self._ends = torch.tensor([0, num_q], dtype=torch.int32)
        self._counts = torch.tensor([[slots]], dtype=torch.int32)
        self.pos = torch.arange(num_q, dtype=torch.int32) + slots

    @property
    def flops(self) -> int:
        s = self.setting
        return 4 * self.num_q * s.num_heads * s.dim * (self.slots + self.num_q)

    def ours(self, table: Tensor, ancestors: Tensor | None = None, causal: bool = True) -> Tensor:
        return attention.paged(
            self.query,
            self.key,
            self.value,
            self._ends,
            self._ends,
            ancestors,
            self.pool,
            table,
            self._counts,
            self.pos,
            self.pos,
            softmax_scale=self.setting.dim**-0.5,
            causal=causal,
            max_q=self.num_q,
            max_slots=self.slots,
        )[0]

    # ---- torch: one query row, which is one of the cached ones ------------------------------

    def sdpa(self, dense: Tensor) -> Tensor:
        """Contiguous keys and values, heads repeated by torch."""
        query = self.query.transpose(0, 1)[None]
        return F.scaled_dot_product_attention(query, dense[:, 0], dense[:, 1], enable_gqa=True)

    def grouped_sdpa(self, dense: Tensor) -> Tensor:
        """The heads that share a key as rows of one product."""
        query = self.query.view(1, self.setting.num_kv_heads, self.setting.group, -1)
        return F.scaled_dot_product_attention(query, dense[:, 0], dense[:, 1])

    def matmul(self, dense: Tensor) -> Tensor:
        """Eager: two grouped products and a softmax."""
        query = self.query.view(self.setting.num_kv_heads, self.setting.group, -1)
        scores = (query @ dense[0, 0].mT) * self.setting.dim**-0.5
        return scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ dense[0, 1]

    def gathered_sdpa(self, table: Tensor) -> Tensor:
        """Pages copied together, then SDPA."""
        rows = self.pool.index_select(0, table[0, 0]).permute(1, 2, 0, 3, 4).flatten(2, 3)
        return self.grouped_sdpa(rows[None])

    # ---- torch: a block of rows -------------------------------------------------------------

    def masked_sdpa(self, dense: Tensor, mask: Tensor) -> Tensor:
        """SDPA over cached and fresh keys that are already together, with a dense mask."""
        query = self.query.transpose(0, 1)[None]
        return F.scaled_dot_product_attention(
            query, dense[:, 0], dense[:, 1], attn_mask=mask, enable_gqa=True
        )


def random_tree(nodes: int) -> tuple[Tensor, Tensor]:
    """Ancestors of a random draft tree as bits ``[nodes, words]`` and as bools."""
    sees = torch.eye(nodes, dtype=torch.bool)
    for i in range(1, nodes):
        sees[i] |= sees[int(torch.randint(max(0, i - 8), i, ()))]
    padded = F.pad(sees, (0, -nodes % 32)).view(nodes, -1, 32).long()
    words = (padded << torch.arange(32)).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int(), sees
