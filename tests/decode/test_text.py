import random

import pytest
from decode.toys import ByteTokenizer

from lmx.decode.text import AnswerText, Detokenizer, StopText


def pieces_of(tokens, tokenizer):
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(token) for token in tokens), detokenizer.finish()]


def test_a_character_comes_once_its_bytes_are_there():
    pieces = pieces_of("aé€😀b".encode(), ByteTokenizer())
    assert pieces == ["a", "", "é", "", "", "€", "", "", "", "😀", "b", ""]


@pytest.mark.parametrize("seed", range(50))
def test_pieces_make_the_text_of_all_tokens(seed):
    rng = random.Random(seed)
    parts = [rng.choice(["a", "é", "€", "😀", "\ufffd"]).encode() for _ in range(30)]
    parts += [bytes([rng.randrange(256)]) for _ in range(30)]
    rng.shuffle(parts)
    tokens = list(b"".join(parts))
    whole = ByteTokenizer().decode(tokens, skip_special_tokens=True)
    assert "".join(pieces_of(tokens, ByteTokenizer())) == whole


def parts_of(rng):
    """Return bytes: characters, rests of characters, and runs of bytes that make none."""
    parts = [rng.choice(["a", "é", "€", "😀", "\ufffd"]).encode() for _ in range(150)]
    parts += [rng.choice(["€", "😀"]).encode()[: rng.randint(1, 3)] for _ in range(20)]
    parts += [bytes([rng.choice([0x80, 0xFF, 0xF0])] * rng.randint(1, 60)) for _ in range(10)]
    rng.shuffle(parts)
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(20))
def test_long_runs_of_stray_bytes_make_the_text_of_all_tokens(seed):
    tokens = list(parts_of(random.Random(seed)))
    whole = ByteTokenizer().decode(tokens, skip_special_tokens=True)
    assert "".join(pieces_of(tokens, ByteTokenizer())) == whole


class ChunkTokenizer:
    """A token is any bytes, characters cut anywhere, as byte-level BPE may have it."""

    def __init__(self, chunks):
        self.chunks = chunks

    def decode(self, tokens, **_):
        return b"".join(self.chunks[token] for token in tokens).decode("utf-8", "replace")


@pytest.mark.parametrize("seed", range(20))
def test_tokens_that_cut_characters_anywhere(seed):
    rng, content, chunks = random.Random(seed), parts_of(random.Random(seed)), []
    while content:
        size = rng.randint(1, 4)
        chunks, content = [*chunks, content[:size]], content[size:]
    tokenizer = ChunkTokenizer(chunks)
    whole = tokenizer.decode(range(len(chunks)))
    assert "".join(pieces_of(range(len(chunks)), tokenizer)) == whole


def test_tokens_that_always_end_within_a_character():
    content = ("€" * 60).encode()
    chunks = [content[:2], *(content[i : i + 3] for i in range(2, len(content), 3))]
    pieces = pieces_of(range(len(chunks)), ChunkTokenizer(chunks))
    assert "".join(pieces) == "€" * 60 and len("".join(pieces[:30])) > 20


class CountingTokenizer(ByteTokenizer):
    num_decoded = 0

    def decode(self, tokens, skip_special_tokens, **_):
        self.num_decoded += len(tokens)
        return super().decode(tokens, skip_special_tokens)


@pytest.mark.parametrize("byte", [0x80, 0xF0, 0xFF, 0x00, 0x41])
def test_no_token_costs_more_than_the_last(byte):
    tokenizer = CountingTokenizer()
    detokenizer, length, late = Detokenizer(tokenizer), 0, 0
    for i in range(1, 2001):
        length += len(detokenizer.push(byte))
        late = max(late, i - length)
    assert tokenizer.num_decoded < 2000 * 50
    assert late <= 3 or byte == 0  # which is special and has no text


class FallbackTokenizer:
    """SentencePiece's byte fallback: one bad byte turns all bytes around it into marks."""

    def decode(self, tokens, **_):
        try:
            return bytes(tokens).decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(tokens)


@pytest.mark.parametrize("text", ["€" * 50, "é" * 50, "😀" * 50, "aé€😀" * 20, "é€" * 33 + "😀"])
def test_byte_fallback(text):
    pieces = pieces_of(text.encode(), FallbackTokenizer())
    assert "".join(pieces) == text and pieces[-1] == ""


class WordTokenizer:
    """Like SentencePiece: a token brings its space along, which the first one loses."""

    def decode(self, tokens, skip_special_tokens, **_):
        return " ".join(f"w{token}" for token in tokens)


def test_spaces_between_words_are_kept():
    for count in (9, 100):
        whole = " ".join(f"w{i}" for i in range(count))
        assert "".join(pieces_of(range(count), WordTokenizer())) == whole


def cut(pieces, stop):
    stopping = StopText(stop)
    out = []
    for piece in pieces:
        out.append(stopping.push(piece))
        if stopping.stopped:
            return out, True
    return [*out, stopping.finish()], False


def test_text_that_may_become_a_stop_string_is_held_back():
    out, stopped = cut(["x\n", "\nUs", "er", "\n\nUser:", " hi"], ["\n\nUser:"])
    assert out == ["x", "", "", "\n\nUser"] and stopped


def test_what_was_held_back_comes_when_it_is_no_stop_string():
    assert cut(["ab", "c"], ["cd"]) == (["ab", "", "c"], False)


def test_the_stop_string_that_is_complete_first_decides():
    assert cut(["abcd"], ["abcd", "bc"]) == (["a"], True)
    assert cut(["abc"], ["c", "bc"]) == (["a"], True)  # they end together: the longest


@pytest.mark.parametrize("seed", range(100))
def test_where_pieces_are_cut_does_not_matter(seed):
    rng = random.Random(seed)
    text = "".join(rng.choice("ab") for _ in range(40))
    stop = ["".join(rng.choice("ab") for _ in range(rng.randint(3, 7))) for _ in range(3)]
    pieces, rest = [], text
    while rest:
        size = rng.randint(1, 9)
        pieces, rest = [*pieces, rest[:size]], rest[size:]
    by_letter, by_piece = cut(text, stop), cut(pieces, stop)
    assert "".join(by_letter[0]) == "".join(by_piece[0]) and by_letter[1] == by_piece[1]
    assert not any(s in "".join(by_letter[0]) for s in stop)


def test_without_tokenizer_there_is_no_text():
    text = AnswerText(None, ())
    assert (text.push(5), text.finish(), text.stopped) == ("", "", False)
