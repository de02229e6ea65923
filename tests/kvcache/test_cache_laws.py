"""Random calls of a small cache against lists of tokens: contents, books, and what errors leave."""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
import torch
from kvcache.kv_samples import POISON
from torch import Tensor

import lmx
from lmx import attention, kvcache
from lmx.errors import OutOfRows
from lmx.kvcache import PagedKVCache

LAYERS, HEADS, GROUP, DIM, PAGE = 2, 2, 2, 8, 8
NUM_PAGES, MAX_SEQS, MAX_TOKENS, NUM_TOKENS = 24, 6, 64, 3
KEYS = (b"rope:1e4", b"rope:1e6")


@dataclass
class Text:
    """What a sequence holds, as a model would: rows depend on key, position and token."""

    key: int
    tokens: list[int] = field(default_factory=list)
    swapped: bool = False


class Walk:
    """A cache, what it should hold, and random calls that change both."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.rows = torch.randn(2, len(KEYS), MAX_TOKENS, NUM_TOKENS, LAYERS, HEADS, DIM)
        self.cache = PagedKVCache(
            num_layers=LAYERS,
            num_kv_heads=HEADS,
            head_dim=DIM,
            num_pages=NUM_PAGES,
            max_seqs=MAX_SEQS,
            max_tokens=MAX_TOKENS,
            page_size=PAGE,
            dtype=torch.float32,
        )
        self.cache.kv_pages[1:] = torch.nan
        self.texts: dict[int, Text] = {}
        self.calls: Counter[str] = Counter()

    def expected(self, text: Text, start: int = 0) -> Tensor:
        """Keys and values ``[2, layers, tokens, heads, dim]`` from a position on."""
        count = len(text.tokens) - start
        tokens = torch.tensor(text.tokens[start:], dtype=torch.int64)
        rows = self.rows[:, text.key, start + torch.arange(count), tokens]
        return rows.transpose(1, 2).contiguous()

    def some(self, swapped: bool = False) -> int | None:
        mine = [h for h, t in self.texts.items() if t.swapped == swapped]
        return self.random.choice(mine) if mine else None

    # ---- calls; each returns False where there was nothing to do ---------------------------

    def create(self) -> None:
        self.texts[self.cache.create()] = Text(self.random.randrange(len(KEYS)))

    def free(self) -> None:
        if self.texts:
            handle = self.random.choice(list(self.texts))
            self.cache.free(handle)
            del self.texts[handle]

    def fork(self) -> None:
        handle, n = self.some(), self.random.randint(1, 2)
        if handle is not None:
            for child in self.cache.fork(handle, n):
                text = self.texts[handle]
                self.texts[child] = Text(text.key, list(text.tokens))

    def truncate(self) -> None:
        handle = self.some()
        if handle is not None:
            length = self.random.randint(0, len(self.texts[handle].tokens))
            self.cache.truncate(handle, length)
            del self.texts[handle].tokens[length:]

    def share_prefix(self) -> None:
        handle = self.some()
        if handle is not None:
            text = self.texts[handle]
            count = self.random.randint(0, len(text.tokens))
            child = self.cache.share_prefix(handle, count)
            self.texts[child] = Text(text.key, text.tokens[: count // PAGE * PAGE])

    def append(self) -> None:
        """A chain of each of some sequences, of which a part is committed."""
        here = [h for h, t in self.texts.items() if not t.swapped]
        handles = self.random.sample(here, self.random.randint(0, min(3, len(here))))
        room = [MAX_TOKENS - len(self.texts[h].tokens) for h in handles]
        counts = [min(self.random.randint(0, 12), r) for r in room]
        slots = self.cache.reserve(handles, counts)
        kept = [c if self.random.random() < 0.8 else self.random.randint(0, c) for c in counts]
        pieces = []
        for handle, count, keep in zip(handles, counts, kept, strict=True):
            text = self.texts[handle]
            start = len(text.tokens)
            text.tokens += self.random.choices(range(NUM_TOKENS), k=count)
            pieces.append(self.expected(text, start))
            del text.tokens[start + keep :]
        if pieces:
            key, value = torch.cat(pieces, 2)
            kvcache.append(key, value, slots, self.cache.kv_pages)
        self.cache.commit(handles, kept)
        if self.random.random() < 0.5:
            self.cache.abandon(handles)

    def index_prefix(self) -> None:
        handle = self.some()
        if handle is not None:
            text = self.texts[handle]
            count = self.random.randint(0, len(text.tokens))
            self.cache.index_prefix(handle, text.tokens[:count], KEYS[text.key])

    def match_prefix(self) -> None:
        key = self.random.randrange(len(KEYS))
        known = [t for t in self.texts.values() if t.key == key]
        tokens = list(self.random.choice(known).tokens) if known else []
        tokens += self.random.choices(range(NUM_TOKENS), k=self.random.randint(0, 9))
        multiple = self.random.choice((PAGE, 2 * PAGE))
        handle, count = self.cache.match_prefix(tokens, KEYS[key], multiple=multiple)
        assert count % multiple == 0 and count <= len(tokens)
        self.texts[handle] = Text(key, tokens[:count])

    def swap_out(self) -> None:
        handle = self.some()
        if handle is not None:
            self.cache.swap_out(handle)
            self.texts[handle].swapped = True

    def swap_in(self) -> None:
        handle = self.some(swapped=True)
        if handle is not None:
            self.cache.swap_in(handle)
            self.texts[handle].swapped = False

    def attend(self) -> None:
        handle = self.some()
        if handle is not None:
            self.compare(handle)
            self.compare_attention(handle, self.random.randrange(LAYERS))

    # ---- laws ------------------------------------------------------------------------------

    def table_of(self, handle: int) -> tuple[Tensor, Tensor]:
        """The row of a sequence, with 2e9 in every entry that nobody may follow."""
        row = self.cache.rows([handle])[0]
        table = self.cache.block_table[row : row + 1].clone()
        table[:, :, -(-len(self.texts[handle].tokens) // PAGE) :] = POISON
        return table, self.cache.num_slots[row : row + 1]

    def compare(self, handle: int) -> None:
        """Bit for bit what was appended."""
        text = self.texts[handle]
        slots = torch.arange(len(text.tokens), dtype=torch.int32)[None, None]
        found = kvcache.gather_slots(self.cache.kv_pages, *self.table_of(handle), slots)
        key, value = self.expected(text)
        assert torch.equal(found[0], key) and torch.equal(found[1], value)

    def compare_attention(self, handle: int, layer: int) -> None:
        """Attention over the pages as over plain lists in float64."""
        count = len(self.texts[handle].tokens)
        query, fresh = torch.randn(1, GROUP * HEADS, DIM), torch.zeros(1, HEADS, DIM)
        bounds, pos = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([count]).int()
        out, lse, *_ = attention.paged(
            query, fresh, fresh, bounds, bounds, None, self.cache.kv_pages[:, layer],
            *self.table_of(handle), pos, pos, softmax_scale=DIM**-0.5, part="prefix",
            max_q=1, max_slots=MAX_TOKENS,
        )  # fmt: skip
        rows = self.expected(self.texts[handle])[:, layer].double().repeat_interleave(GROUP, 2)
        scores = torch.einsum("hd,nhd->hn", query[0].double(), rows[0]) * DIM**-0.5
        exact = torch.einsum("hn,nhd->hd", scores.softmax(-1), rows[1])
        torch.testing.assert_close(out[0].double(), exact, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(lse[0].double(), scores.logsumexp(-1), rtol=1e-5, atol=1e-5)

    def poison(self) -> None:
        """NaN wherever no token is."""
        refcount = [self.cache.pool.refcount(page) for page in range(NUM_PAGES)]
        for page in range(1, NUM_PAGES):
            if refcount[page] == 0:
                self.cache.kv_pages[page] = torch.nan
        for handle, text in self.texts.items():
            used = len(text.tokens)
            if text.swapped or used % PAGE == 0:
                continue
            page = self.cache.pool.pages(handle)[-1]
            if refcount[page] == 1:
                self.cache.kv_pages[page, :, :, :, used % PAGE :] = torch.nan

    def state(self) -> tuple:
        tables = self.cache.block_table.tolist(), self.cache.num_slots.tolist()
        pool = self.cache.pool
        return (*tables, pool.num_free_pages, pool.num_free_rows, pool.index_size())

    def step(self, i: int) -> None:
        names = ("create", "free", "fork", "truncate", "share_prefix", "index_prefix")
        names += ("match_prefix", "swap_out", "swap_in", "attend", *["append"] * 6)
        name = self.random.choice(names)
        before = self.state()
        try:
            getattr(self, name)()
        except (lmx.OutOfPages, OutOfRows) as error:
            name = type(error).__name__
            assert self.state() == before
            if isinstance(error, lmx.OutOfPages):
                assert error.needed > self.cache.num_available_pages
        self.calls[name] += 1
        self.cache.check_invariants()
        for handle, text in self.texts.items():
            assert self.cache.length(handle) == len(text.tokens)
        if i % 16 == 0:
            self.poison()
            for handle, text in self.texts.items():
                if not text.swapped:
                    self.compare(handle)
        if i % 500 == 499:
            self.cache.clear_index()

    def end(self) -> None:
        """Nothing leaks."""
        self.cache.free(list(self.texts))
        self.cache.clear_index()
        self.cache.check_invariants()
        assert self.cache.num_free_pages == NUM_PAGES - 1
        assert self.cache.num_free_rows == MAX_SEQS
        assert not self.cache.kv_pages[0].any()


@pytest.mark.parametrize(
    ("seed", "steps"), [(1, 10_000), pytest.param(2, 1_000_000, marks=pytest.mark.long)]
)
def test_random_calls(seed, steps):
    walk = Walk(seed)
    with torch.inference_mode():
        for i in range(steps):
            walk.step(i)
    least = steps // 200
    for name in ("fork", "swap_in", "match_prefix", "append", "OutOfPages", "OutOfRows"):
        assert walk.calls[name] > least, walk.calls
    walk.end()


def test_the_books_notice_a_write_to_the_tables():
    """Negative control: what the laws above rest on does find a wrong entry."""
    walk = Walk(3)
    for i in range(200):
        walk.step(i)
    for table in (walk.cache.block_table, walk.cache.num_slots):
        before = table.clone()
        for change in (1, -1):
            table[0, 0].view(-1)[0] += change
            with pytest.raises(RuntimeError, match="lmx.PagePool: "):
                walk.cache.check_invariants()
            table.copy_(before)
    walk.cache.check_invariants()
