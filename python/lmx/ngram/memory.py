"""An index of documents in memory, without files."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from .. import _C
from .build import BuildOptions, BuildReport, Tokens, _plan
from .index import Index
from .tensors import SHARD_COLUMNS, IndexTensors

_SIGNED: dict[int, Any] = {1: np.uint8, 2: np.int16, 4: np.int32}


def from_documents(
    documents: Iterable[Tokens], options: BuildOptions, *, strict: bool = True
) -> Index:
    """Sort documents and return an index over memory.

    Raises:
        ValueError: as ``build``.
    """
    parts, rows = [], []
    at = [0, 0, 0, 0]  # where the shard begins in text, sa, skey, docs
    for shard in _plan(documents, None, options, BuildReport()):
        text, num_docs = shard.text, len(shard.docs) - 1
        ranks = np.empty(len(text), dtype=np.int32)
        _C.ngram.sort_shard(text, text.itemsize, options.vocab_size, ranks, _C.ngram.Job())
        sa = ranks[: len(text) - num_docs - 1]
        lut = np.empty(options.vocab_size + 2, dtype=np.int64)
        skey = np.empty(-(-len(sa) // 64), dtype=np.int64)
        _C.ngram.fill_tables(text, text.itemsize, options.vocab_size, sa, lut, skey)
        rows.append([at[0], len(text), at[1], len(sa), at[2], at[3], num_docs, 1])
        arrays = (text.view(_SIGNED[text.itemsize]), sa, skey, shard.docs)
        parts.append((*arrays, lut))
        at = [a + len(x) for a, x in zip(at, arrays, strict=True)]
    text, sa, skey, docs = (np.concatenate(x) for x in list(zip(*parts, strict=True))[:4])
    tensors = IndexTensors(
        text=torch.from_numpy(text),
        sa=torch.from_numpy(sa),
        lut=torch.from_numpy(np.stack([part[4] for part in parts])),
        skey=torch.from_numpy(skey),
        docs=torch.from_numpy(docs),
        shards=torch.tensor(rows, dtype=torch.int64).reshape(-1, SHARD_COLUMNS),
        vocab_size=options.vocab_size,
        eos_id=-1 if options.eos_id is None else options.eos_id,
    )
    return Index(tensors, strict=strict)
