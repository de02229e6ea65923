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


class WordTokenizer:
    """Like SentencePiece: a token brings its space along, which the first one loses."""

    def decode(self, tokens, skip_special_tokens, **_):
        return " ".join(f"w{token}" for token in tokens)


def test_spaces_between_words_are_kept():
    assert "".join(pieces_of(range(9), WordTokenizer())) == "w0 w1 w2 w3 w4 w5 w6 w7 w8"


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
