"""``TokenizerInfo``: the bytes that each token of a tokenizer stands for."""

import base64
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._C import grammar as _native

logger = logging.getLogger("lmx")

RAW, BYTE_FALLBACK, BYTE_LEVEL = "raw", "byte_fallback", "byte_level"
_SPELLINGS = {
    RAW: _native.Spelling.RAW,
    BYTE_FALLBACK: _native.Spelling.BYTE_FALLBACK,
    BYTE_LEVEL: _native.Spelling.BYTE_LEVEL,
}
# Tokens that end a text, in whichever tokenizer they occur.
STOP_TOKENS = (
    "</s>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<eos>",
    "<end_of_turn>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)


class TokenizerInfo:
    """The vocabulary of a tokenizer as byte strings, with tables over them.

    Build one per tokenizer and share it: the tables take some 100 ms for 128,000 tokens.
    """

    def __init__(
        self,
        vocab: Sequence[bytes | str],
        kind: str = RAW,
        vocab_size: int | None = None,
        stop_ids: Iterable[int] | None = None,
        special_ids: Iterable[int] | None = None,
    ) -> None:
        """Take a vocabulary.

        Args:
            vocab: entry ``i`` is token ``i`` as the tokenizer writes it.
            kind: how entries spell bytes. ``"raw"``: as they are, text in UTF-8;
                ``"byte_level"``: GPT-2's characters for bytes; ``"byte_fallback"``:
                SentencePiece's, ``<0xHH>`` for a byte and U+2581 for a space.
            vocab_size: number of logits; ids from ``len(vocab)`` on have no bytes and are never
                allowed. Default: ``len(vocab)``.
            stop_ids: tokens that end a text; None takes those whose entry is in ``STOP_TOKENS``.
            special_ids: tokens that never stand for their bytes.

        Raises:
            ValueError: an id or size is out of range, or ``kind`` is unknown.
        """
        if kind not in _SPELLINGS:
            raise ValueError(f"kind: expected one of {list(_SPELLINGS)}, got {kind!r}")
        entries = [e.encode() if isinstance(e, str) else e for e in vocab]
        if stop_ids is None:
            names = {name.encode() for name in STOP_TOKENS}
            stop_ids = [i for i, entry in enumerate(entries) if entry in names]
        size = -1 if vocab_size is None else vocab_size
        special = list(special_ids or ())
        self.native = _native.Vocabulary(entries, _SPELLINGS[kind], size, list(stop_ids), special)

    @property
    def vocab_size(self) -> int:
        """Return the number of logits."""
        return self.native.size

    @property
    def mask_words(self) -> int:
        """Return the width of a bitmask, ``ceil(vocab_size / 32)``."""
        return self.native.num_words

    @property
    def stop_ids(self) -> list[int]:
        """Return the tokens that end a text."""
        return self.native.stop_ids

    @property
    def special_ids(self) -> list[int]:
        """Return the tokens that never stand for their bytes."""
        return self.native.special_ids

    def token_bytes(self, token: int) -> bytes:
        """Return what a token stands for; ``b""`` for a padding id."""
        return self.native.token_bytes(token)

    def memory_bytes(self) -> int:
        """Return the size of the tables."""
        return self.native.memory_bytes()

    def save(self, path: str | Path) -> None:
        """Write a file that ``load`` reads: a versioned binary with a checksum."""
        Path(path).write_bytes(self.native.save())

    @classmethod
    def load(cls, path: str | Path) -> "TokenizerInfo":
        """Read what ``save`` wrote.

        Raises:
            ValueError: the file is not of this version, cut off or changed.
        """
        return cls._of(_native.Vocabulary.load(Path(path).read_bytes()))

    @classmethod
    def _of(cls, native: _native.Vocabulary) -> "TokenizerInfo":
        info = cls.__new__(cls)
        info.native = native
        return info

    # ---- formats -----------------------------------------------------------------------------

    @classmethod
    def from_hf(
        cls,
        tokenizer: Any,
        vocab_size: int | None = None,
        stop_ids: Iterable[int] | None = None,
    ) -> "TokenizerInfo":
        """Read a Hugging Face tokenizer.

        Args:
            tokenizer: a fast Transformers tokenizer, a ``tokenizers.Tokenizer``, the path of a
                ``tokenizer.json``, or its parsed content.
            vocab_size: number of logits, if larger than the vocabulary.
            stop_ids: tokens that end a text; default: the tokenizer's ``eos_token_id`` and those
                named in ``STOP_TOKENS``.

        Raises:
            ValueError: the tokenizer's model is not one whose texts are the tokens' bytes in a
                row (WordPiece), or not known.
        """
        data, eos = _hf_data(tokenizer)
        model = data.get("model", {})
        if model.get("type") == "WordPiece":
            raise ValueError(
                "from_hf: WordPiece is not supported: its texts are not the tokens' bytes"
            )
        vocab = model.get("vocab")
        if isinstance(vocab, list):  # Unigram: [piece, score] in the order of ids
            vocab = {piece: i for i, (piece, _) in enumerate(vocab)}
        if not isinstance(vocab, dict):
            raise ValueError(f"from_hf: expected a BPE or Unigram model, got {model.get('type')!r}")
        added = data.get("added_tokens", [])
        size = max([*vocab.values(), *(t["id"] for t in added)], default=-1) + 1
        entries: list[bytes | str] = [b""] * size
        for piece, i in vocab.items():
            entries[i] = piece
        kind = _hf_kind(data.get("decoder"))
        if kind == RAW:
            logger.warning("from_hf: the decoder is neither byte-level nor byte-fallback")
        native_added = {t["id"]: t["content"] for t in added}
        for i, content in native_added.items():
            entries[i] = content
        special = [t["id"] for t in added if t.get("special")]
        if stop_ids is None:
            named = {i for i, content in native_added.items() if content in STOP_TOKENS}
            stop_ids = sorted(named | eos)
        return cls(entries, kind, vocab_size, stop_ids, special)

    @classmethod
    def from_tiktoken(
        cls,
        encoding: Any,
        vocab_size: int | None = None,
        special_tokens: Mapping[str, int] | None = None,
        stop_ids: Iterable[int] | None = None,
    ) -> "TokenizerInfo":
        """Read a tiktoken ``Encoding``, or the path of a file of ranks (base64, space, rank).

        Args:
            encoding: the encoding or path.
            vocab_size: number of logits, if larger than the vocabulary.
            special_tokens: text to id; default: the encoding's own.
            stop_ids: tokens that end a text; default: those named in ``STOP_TOKENS``.
        """
        if isinstance(encoding, str | Path):
            lines = Path(encoding).read_bytes().splitlines()
            pairs = [line.split() for line in lines if line]
            ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
        else:
            ranks = encoding._mergeable_ranks
            special_tokens = special_tokens or encoding._special_tokens
        special_tokens = special_tokens or {}
        size = max([*ranks.values(), *special_tokens.values()], default=-1) + 1
        entries: list[bytes | str] = [b""] * size
        for token, rank in ranks.items():
            entries[rank] = token
        for text, i in special_tokens.items():
            entries[i] = text
        if stop_ids is None:
            stop_ids = [i for text, i in special_tokens.items() if text in STOP_TOKENS]
        return cls(entries, RAW, vocab_size, stop_ids, special_tokens.values())

    @classmethod
    def from_sentencepiece(
        cls,
        model: str | Path | bytes,
        vocab_size: int | None = None,
        stop_ids: Iterable[int] | None = None,
    ) -> "TokenizerInfo":
        """Read a SentencePiece model: its path or content."""
        data = model if isinstance(model, bytes) else Path(model).read_bytes()
        pieces = list(_pieces(data))
        if not pieces:
            raise ValueError(
                "from_sentencepiece: expected a SentencePiece model, got one without pieces"
            )
        special = [i for i, (_, kind) in enumerate(pieces) if kind in (2, 3, 5)]
        return cls([p for p, _ in pieces], BYTE_FALLBACK, vocab_size, stop_ids, special)

    @classmethod
    def from_tekken(
        cls,
        model: str | Path | Mapping[str, Any],
        vocab_size: int | None = None,
        stop_ids: Iterable[int] | None = None,
    ) -> "TokenizerInfo":
        """Read Mistral's ``tekken.json``: its path or parsed content. Special tokens come first."""
        data = model if isinstance(model, Mapping) else json.loads(Path(model).read_bytes())
        config = data["config"]
        num_special = config["default_num_special_tokens"]
        count = config["default_vocab_size"] - num_special
        names = {t["rank"]: t["token_str"] for t in data.get("special_tokens") or ()}
        entries: list[bytes | str] = [names.get(i, f"<SPECIAL_{i}>") for i in range(num_special)]
        entries += [base64.b64decode(t["token_bytes"]) for t in data["vocab"][:count]]
        if stop_ids is None:
            stop_ids = [i for i, name in names.items() if name in STOP_TOKENS]
            stop_ids = stop_ids or [2]  # </s>, also in files that do not list special tokens
        return cls(entries, RAW, vocab_size, stop_ids, range(num_special))


def _hf_data(tokenizer: Any) -> tuple[dict[str, Any], set[int]]:
    """Return the content of tokenizer.json, and the tokens known to end a text."""
    eos: set[int] = set()
    if hasattr(tokenizer, "backend_tokenizer"):
        if tokenizer.eos_token_id is not None:
            eos.add(tokenizer.eos_token_id)
        tokenizer = tokenizer.backend_tokenizer
    if hasattr(tokenizer, "to_str"):
        return json.loads(tokenizer.to_str()), eos
    if isinstance(tokenizer, str | Path):
        return json.loads(Path(tokenizer).read_bytes()), eos
    if isinstance(tokenizer, dict):
        return tokenizer, eos
    raise ValueError(
        f"from_hf: expected a fast tokenizer or its JSON, got {type(tokenizer).__name__}"
    )


def _hf_kind(decoder: Any) -> str:
    """Return how entries spell bytes, which the decoder tells."""
    if not isinstance(decoder, dict):
        return RAW
    if decoder.get("type") == "Sequence":
        kinds = [_hf_kind(d) for d in decoder.get("decoders", ())]
        return next((k for k in kinds if k != RAW), RAW)
    known = {"ByteLevel": BYTE_LEVEL, "ByteFallback": BYTE_FALLBACK}
    return known.get(str(decoder.get("type")), RAW)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field numbers and values of a protocol buffer message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise ValueError("from_sentencepiece: the model is cut off")
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        sizes = {1: 8, 5: 4}
        wire = key & 7
        if wire == 0:
            yield key >> 3, varint()
            continue
        if wire not in (1, 2, 5):
            raise ValueError("from_sentencepiece: this is no SentencePiece model")
        size = sizes[wire] if wire in sizes else varint()
        if at + size > len(data):
            raise ValueError("from_sentencepiece: the model is cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _pieces(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each piece and its type: 1 normal, 2 unknown, 3 control, 4 user, 5 unused, 6 byte."""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = dict(_fields(value))
            yield piece.get(1, b""), piece.get(3, 1)
