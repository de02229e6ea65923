"""TokenizerInfo: every format against the tokenizer's own decoder, files, bad input."""

import base64
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from lmx.grammar import BYTE_FALLBACK, BYTE_LEVEL, TokenizerInfo


def test_byte_level():
    info = TokenizerInfo(["a", "Ġb", "Ċ", "Ã", "©", "ł", "é", "中"], BYTE_LEVEL)
    bytes_of = [info.token_bytes(t) for t in range(8)]
    # The last two have a character that stands for no byte, or for one beyond ASCII.
    assert bytes_of == [b"a", b" b", b"\n", b"\xc3", b"\xa9", b"\xa0", b"\xe9", "中".encode()]


def test_byte_level_is_a_bijection():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    chars = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    info = TokenizerInfo([chars[b] for b in range(256)], BYTE_LEVEL)
    assert [info.token_bytes(b) for b in range(256)] == [bytes([b]) for b in range(256)]


def test_byte_fallback():
    entries = ["<0x0A>", "<0xc3>", "\u2581a\u2581", "<0x1>", "<0xZZ>", "é"]
    info = TokenizerInfo(entries, BYTE_FALLBACK)
    expected = [b"\n", b"\xc3", b" a ", b"<0x1>", b"<0xZZ>", "é".encode()]
    assert [info.token_bytes(t) for t in range(6)] == expected


def test_stop_tokens_and_padding():
    info = TokenizerInfo(["a", "</s>", "<|im_end|>"], vocab_size=40, special_ids=[2])
    assert info.stop_ids == [1, 2] and info.special_ids == [2]
    assert info.vocab_size == 40 and info.mask_words == 2 and info.token_bytes(39) == b""
    assert TokenizerInfo(["a", "</s>"], stop_ids=[]).stop_ids == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "bpe"}, r"kind: expected one of \['raw', 'byte_fallback', 'byte_level'\], got"),
        ({"vocab_size": 1}, r"expected vocab_size in \[2, 16777216\], got 1"),
        ({"stop_ids": [2]}, r"expected stop_ids in \[0, 2\), got 2"),
        ({"special_ids": [-1]}, r"expected special_ids in \[0, 2\), got -1"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(ValueError, match=message):
        TokenizerInfo(["a", "b"], **options)
    with pytest.raises(ValueError, match="expected vocab_size in"):
        TokenizerInfo([])
    with pytest.raises(ValueError, match=r"expected a token in \[0, 1\), got 1"):
        TokenizerInfo(["a"]).token_bytes(1)


def test_files(tmp_path):
    info = TokenizerInfo(["a", b"\xff", "</s>", "x"], vocab_size=50, special_ids=[3])
    path = tmp_path / "info"
    info.save(path)
    again = TokenizerInfo.load(path)
    assert [again.token_bytes(t) for t in range(50)] == [info.token_bytes(t) for t in range(50)]
    assert again.stop_ids == [2] and again.special_ids == [3]
    assert again.native.fingerprint == info.native.fingerprint
    data = path.read_bytes()
    for bad, message in (
        (data[:-1], "checksum is wrong"),
        (data[:30], "not a file of TokenizerInfo.save"),
        (b"x" + data[1:], "not a file of TokenizerInfo.save, version 1"),
        (data[:60] + bytes([data[60] ^ 1]) + data[61:], "checksum is wrong"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=message):
            TokenizerInfo.load(path)


# ---- formats -----------------------------------------------------------------------------------


def hf_json(decoder, model_type="BPE", vocab=None) -> dict:
    added = [
        {"id": 2, "content": "</s>", "special": True},
        {"id": 3, "content": " tool", "special": False},
    ]
    vocab = {"a": 0, "Ġb": 1} if vocab is None else vocab
    return {
        "model": {"type": model_type, "vocab": vocab},
        "decoder": decoder,
        "added_tokens": added,
    }


def test_hf_json(tmp_path):
    info = TokenizerInfo.from_hf(hf_json({"type": "ByteLevel"}), vocab_size=8)
    assert [info.token_bytes(t) for t in range(4)] == [b"a", b" b", b"</s>", b" tool"]
    assert info.stop_ids == [2] and info.special_ids == [2] and info.vocab_size == 8
    path = tmp_path / "tokenizer.json"
    path.write_text(
        json.dumps(hf_json({"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}))
    )
    assert TokenizerInfo.from_hf(path).token_bytes(1) == "Ġb".encode()
    unigram = hf_json({"type": "ByteFallback"}, "Unigram", [["\u2581a", -1.0], ["<0x41>", -2.0]])
    info = TokenizerInfo.from_hf(unigram)
    assert [info.token_bytes(t) for t in range(2)] == [b" a", b"A"]


def test_hf_refusals():
    with pytest.raises(ValueError, match="WordPiece is not supported"):
        TokenizerInfo.from_hf(hf_json(None, "WordPiece"))
    with pytest.raises(ValueError, match="expected a BPE or Unigram model, got None"):
        TokenizerInfo.from_hf({"model": {}})
    with pytest.raises(ValueError, match="expected a fast tokenizer or its JSON, got int"):
        TokenizerInfo.from_hf(5)


def test_tiktoken_ranks(tmp_path):
    path = tmp_path / "ranks"
    tokens = [b"a", b"\xff", b" b"]
    lines = [base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(tokens)]
    path.write_bytes(b"".join(lines))
    info = TokenizerInfo.from_tiktoken(path, special_tokens={"<|endoftext|>": 4})
    assert [info.token_bytes(t) for t in range(3)] == tokens and info.token_bytes(3) == b""
    assert info.stop_ids == [4] and info.special_ids == [4]


def test_tekken():
    words = [base64.b64encode(t).decode() for t in (b"a", b"\xe4\xb8", b"dropped")]
    data = {
        "config": {"default_vocab_size": 5, "default_num_special_tokens": 3},
        "vocab": [{"rank": i, "token_bytes": w} for i, w in enumerate(words)],
        "special_tokens": [{"rank": 2, "token_str": "</s>"}],
    }
    info = TokenizerInfo.from_tekken(data)
    assert (
        info.vocab_size == 5 and info.token_bytes(3) == b"a" and info.token_bytes(4) == b"\xe4\xb8"
    )
    assert info.stop_ids == [2] and info.special_ids == [0, 1, 2]


def _message(*fields: tuple[int, bytes | int]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += bytes([number << 3, value])
        else:
            out += bytes([number << 3 | 2, len(value)]) + value
    return out


def test_sentencepiece():
    pieces = [(b"<unk>", 2), (b"</s>", 3), ("\u2581a".encode(), 1), (b"<0x0A>", 6), (b"user", 4)]
    model = _message(*((1, _message((1, p), (3, kind))) for p, kind in pieces), (2, b"\x08\x01"))
    info = TokenizerInfo.from_sentencepiece(model)
    assert [info.token_bytes(t) for t in (2, 3, 4)] == [b" a", b"\n", b"user"]
    assert info.special_ids == [0, 1] and info.stop_ids == [1]
    with pytest.raises(ValueError, match="the model is cut off"):
        TokenizerInfo.from_sentencepiece(model[:-1])
    with pytest.raises(ValueError, match="expected a SentencePiece model, got one without pieces"):
        TokenizerInfo.from_sentencepiece(b"")


def package_file(package: str, *names: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs the package {package}")
    return Path(spec.origin).parent.joinpath(*names)


def test_mistral_files():
    tekken = TokenizerInfo.from_tekken(package_file("mistral_common", "data", "tekken_240718.json"))
    assert tekken.vocab_size == 131_072 and tekken.token_bytes(1000 + 97 - 32) != b""
    spm = TokenizerInfo.from_sentencepiece(
        package_file("mistral_common", "data", "tokenizer.model.v1")
    )
    assert spm.vocab_size == 32_000 and spm.stop_ids == [2]
    assert spm.token_bytes(3 + 65) == b"A"  # <0x41>


def test_llama_file():
    path = package_file("llama_models", "llama3", "tokenizer.model")
    info = TokenizerInfo.from_tiktoken(path, special_tokens={"<|eot_id|>": 128_009})
    assert info.vocab_size == 128_010 and info.stop_ids == [128_009]
    assert (
        info.token_bytes(0) == b"!"
        and len({info.token_bytes(t) for t in range(128_000)}) == 128_000
    )
