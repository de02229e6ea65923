"""Small corpora, and indexes of them in both orders."""

import random
from dataclasses import dataclass, replace

import numpy as np
import torch

from lmx.ngram import BuildOptions, Index, IndexTensors, from_documents

Docs = list[list[int]]


@dataclass(frozen=True)
class Corpus:
    """Documents over a vocabulary, cut into shards of at most so many tokens."""

    name: str
    docs: Docs
    vocab_size: int
    eos_id: int | None = None
    shard_tokens: int = 2**30

    def options(self, **others) -> BuildOptions:
        return BuildOptions(
            vocab_size=self.vocab_size,
            eos_id=self.eos_id,
            shard_tokens=self.shard_tokens,
            **others,
        )

    def index(self, **others) -> Index:
        return from_documents(self.docs, self.options(), **others)

    @property
    def shards(self) -> list[Docs]:
        """The documents as the builder shares them out."""
        shards: list[Docs] = [[]]
        size = 1
        for doc in self.docs:
            if size + len(doc) + 1 > self.shard_tokens:
                shards.append([])
                size = 1
            shards[-1].append(doc)
            size += len(doc) + 1
        return shards


def fibonacci(size: int) -> list[int]:
    a, b = [0], [0, 1]
    while len(b) < size:
        a, b = b, b + a
    return b[:size]


def random_docs(vocab: int, sizes: list[int], seed: int = 0, used: int = 0) -> Docs:
    draw = random.Random(seed)
    return [[draw.randrange(used or vocab) for _ in range(n)] for n in sizes]


def corpora() -> list[Corpus]:
    """Vocabularies of every width; repeats, empty documents, one token, one document."""
    some = [0, 1, 40, 3, 0, 77, 120, 1]
    wide = [[t * 1021 % 2**20 for t in doc] for doc in random_docs(50, some, 4)]
    return [
        Corpus("one-token-vocabulary", random_docs(1, [9, 0, 4, 1]), 1),
        Corpus("two", random_docs(2, some, 1), 2, eos_id=1),
        Corpus("three", random_docs(3, some, 2), 3, eos_id=0),
        Corpus("fifty", random_docs(50, some, 3), 50, eos_id=49),
        Corpus("bytes", random_docs(255, some, 5, used=4), 255, eos_id=7),
        Corpus("u16", random_docs(65534, some, 6, used=9), 65534, eos_id=3),
        Corpus("u32", wide, 2**20, eos_id=1021),
        Corpus("all-equal", [[0] * 150, [0] * 149, [0]], 2),
        Corpus("fibonacci", [fibonacci(200), fibonacci(55)], 2),
        Corpus("repeated", [[1, 2, 0, 1, 2]] * 40 + [[2, 1]], 3, eos_id=2),
        Corpus("single-token", [[5]], 8),
        Corpus("single-document", random_docs(4, [200], 8), 4),
        Corpus("empty", [], 5, eos_id=1),
        Corpus("only-empty", [[], [], []], 5),
    ]


def sharded(corpus: Corpus) -> Corpus:
    """The same documents in several shards."""
    longest = max((len(doc) for doc in corpus.docs), default=0)
    return replace(corpus, name=f"{corpus.name}-sharded", shard_tokens=longest + 9)


def foreign(corpus: Corpus, ptr_bytes: int = 5) -> IndexTensors:
    """The documents as infini-gram lays them out, with its order, sorted by the naive way."""
    width = corpus.options().numpy_dtype(0).itemsize
    sep = 2 ** (8 * width) - 1
    text: list[int] = []
    docs: list[int] = []
    for doc in corpus.docs:
        docs.append(len(text))
        text += [sep, *doc]
    raw = np.array(text, dtype=corpus.options().numpy_dtype).tobytes()
    ranks = sorted(range(len(text)), key=lambda i: raw[i * width :])
    pointers = b"".join((i * width).to_bytes(ptr_bytes, "little") for i in ranks)
    tokens = np.frombuffer(raw, dtype=corpus.options().numpy_dtype)
    signed = tokens.view({1: np.uint8, 2: np.int16, 4: np.int32}[width])
    row = [0, len(text), 0, len(text), 0, 0, len(docs), 1]
    return IndexTensors(
        text=torch.from_numpy(signed.copy()),
        sa=torch.from_numpy(np.frombuffer(pointers, dtype=np.uint8).copy()),
        lut=torch.empty(0, 0, dtype=torch.int64),
        skey=torch.empty(0, dtype=torch.int64),
        docs=torch.tensor([*docs, len(text)]),
        shards=torch.tensor([row]),
        vocab_size=corpus.vocab_size,
        eos_id=-1 if corpus.eos_id is None else corpus.eos_id,
        ptr_bytes=ptr_bytes,
    )


def queries_of(corpus: Corpus, count: int, seed: int = 0) -> list[list[int]]:
    """Strings that occur, strings that nearly do, ends of documents, and the empty one."""
    draw = random.Random(seed)
    full = [doc for doc in corpus.docs if doc]
    found: list[list[int]] = [[]]
    while full and len(found) < count:
        doc = draw.choice(full)
        start = draw.randrange(len(doc))
        size = draw.choice((1, 1, 2, 3, 5, 9, 40))
        query = doc[start : start + size]
        kind = draw.randrange(5)
        if kind == 0:
            query = doc[-size:]
        elif kind == 1:
            query = [*query, draw.randrange(corpus.vocab_size)]
        elif kind == 2:
            query = [draw.randrange(corpus.vocab_size), *query]
        found.append(query)
    return found
