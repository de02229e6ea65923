"""Passes over pages against attention written out for one query at a time, in float64."""

import math

import pytest
import torch
from decode.toys import tiny

from lmx.decode.forward import Runner, chains, chunk_end
from lmx.decode.pages import new_cache
from lmx.protocols import Alibi, Learned, Rope

HEADS, KV_HEADS, DIM = 6, 2, 16
FREQUENCIES = 100.0 ** -torch.linspace(0, 1, DIM // 2)
POSITIONS = {
    "rope": Rope(theta=100.0, rotary_dim=DIM, inv_freq=FREQUENCIES, attention_factor=1.5),
    "rope_pairs": Rope(theta=100.0, rotary_dim=DIM, inv_freq=FREQUENCIES, interleaved=True),
    "rope_part": Rope(theta=100.0, rotary_dim=DIM // 2, inv_freq=FREQUENCIES[::2]),
    "alibi": Alibi(slopes=torch.linspace(0.05, 0.8, HEADS)),
    "learned": Learned(num_positions=4096),
}


class OneAttention:
    """A single layer whose queries, keys and values are rows of a table."""

    num_layers, num_heads, num_kv_heads, head_dim = 1, HEADS, KV_HEADS, DIM
    softmax_scale, dtype, device = 0.3, torch.float32, torch.device("cpu")
    max_positions = 4096

    def __init__(self, position, window):
        self.position, self._window = position, window
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(50, (HEADS + 2 * KV_HEADS) * DIM, generator=generator)

    def embed(self, tokens, positions):
        return self.table[tokens]

    def split(self, hidden):
        return hidden.view(len(hidden), -1, DIM).split([HEADS, KV_HEADS, KV_HEADS], dim=1)

    def attn(self, i, hidden, positions, attend):
        return attend(i, *self.split(hidden)).flatten(1)

    def mlp(self, i, hidden):
        return hidden

    def window(self, i):
        return self._window


def turn(vector, position, rope):
    """Rotate one head, pair by pair."""
    out, pairs = vector.clone(), rope.rotary_dim // 2
    for i, frequency in enumerate(rope.inv_freq.tolist()):
        a, b = (2 * i, 2 * i + 1) if rope.interleaved else (i, i + pairs)
        cos, sin = math.cos(position * frequency), math.sin(position * frequency)
        out[a] = (vector[a] * cos - vector[b] * sin) * rope.attention_factor
        out[b] = (vector[b] * cos + vector[a] * sin) * rope.attention_factor
    return out


def one_query(model, tokens, at, head):
    """Return the output of one head at position ``at``."""
    query, key, value = (part.double() for part in model.split(model.table[tokens]))
    kv_head = head // (HEADS // KV_HEADS)
    first = max(0, at - model.window(0) + 1) if model.window(0) > 0 else 0
    vector, keys = query[at, head], key[first : at + 1, kv_head]
    if isinstance(model.position, Rope):
        vector = turn(vector, at, model.position)
        keys = torch.stack([turn(k, first + j, model.position) for j, k in enumerate(keys)])
    scores = keys @ vector * model.softmax_scale
    if isinstance(model.position, Alibi):
        scores -= model.position.slopes[head] * (at - torch.arange(first, at + 1))
    return scores.softmax(-1) @ value[first : at + 1, kv_head]


class Sequences:
    """Sequences of one model that grow pass by pass, in the rows of one cache."""

    def __init__(self, model, count):
        self.runner = Runner(model, new_cache(model, count, 64 * count))
        self.handles = [self.runner.cache.create() for _ in range(count)]

    def run(self, parts, commit=True):
        """Run ``parts``, a list of tokens or None for each sequence; return their rows."""
        cache = self.runner.cache
        lengths = [cache.length(handle) for handle in self.handles]
        busy = [i for i, tokens in enumerate(parts) if tokens is not None]
        [*rows] = cache.rows(self.handles)
        assert rows == sorted(rows)
        packed = chains(
            [(rows[i], lengths[i], parts[i].tolist()) for i in busy],
            self.runner.num_rows,
            max(lengths),
            torch.device("cpu"),
        )
        fresh = self.runner.forward(packed)
        counts = [len(parts[i]) for i in busy]
        if commit:
            slots = cache.append([self.handles[i] for i in busy], counts)
            self.runner.commit(fresh, slots)
        return dict(zip(busy, fresh.hidden.split(counts), strict=True))


@pytest.mark.parametrize("window", [-1, 1, 7])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("chunks", [[70], [1, 1, 1, 30, 1, 40, 1]])
def test_attention(position, window, chunks):
    model = OneAttention(POSITIONS[position], window)
    sequences, tokens = Sequences(model, 1), torch.arange(sum(chunks)) * 7 % 50
    outputs = []
    for chunk in tokens.split(chunks):
        outputs.append(sequences.run([chunk], commit=False)[0])
        again = sequences.run([chunk])[0]  # nothing is in pages before it is committed
        assert torch.equal(again, outputs[-1])
    out = torch.cat(outputs).view(len(tokens), HEADS, DIM)
    for at in range(0, len(tokens), 6):
        for head in (0, 2, 5):
            expected = one_query(model, tokens, at, head)
            assert torch.allclose(out[at, head].double(), expected, rtol=1e-5, atol=1e-5)


def test_rows_of_a_pass_do_not_depend_on_the_others():
    model = OneAttention(POSITIONS["rope"], 7)
    tokens = [torch.arange(n) * (n + 2) % 50 for n in (40, 3, 33)]
    lengths = [[20, 1, 19], [1, 1, 1], [33]]
    together, alone = Sequences(model, 3), [Sequences(model, 1) for _ in tokens]
    parts = [list(t.split(n)) for t, n in zip(tokens, lengths, strict=True)]
    for step in range(3):
        now = [part[step] if step < len(part) else None for part in parts]
        rows = together.run(now)
        for i, part in enumerate(now):
            if part is not None:
                assert torch.equal(rows[i], alone[i].run([part])[0])


def test_layers_may_be_run_in_parts():
    model = tiny()
    sequences, tokens = Sequences(model, 1), torch.arange(9)
    runner, handle = sequences.runner, sequences.handles[0]
    with torch.inference_mode():
        rows = chains([(0, 0, tokens.tolist())], 1, 0, torch.device("cpu"))
        whole = runner.forward(rows, taps=(0,))
        first = runner.forward(rows, layers=range(1))
        second = runner.forward(rows, layers=range(1, 2), hidden=first.hidden)
    assert torch.equal(whole.taps[0], first.hidden) and torch.equal(whole.hidden, second.hidden)
    assert len(whole.keys) == 2 and torch.equal(whole.keys[1], second.keys[0])
    assert runner.cache.length(handle) == 0


def test_chunks_end_on_the_grid():
    assert [chunk_end(start, 1300) for start in (0, 512, 1024, 1)] == [512, 1024, 1300, 512]
    assert chunk_end(512, 513) == 513 and chunk_end(0, 512) == 512
