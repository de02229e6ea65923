"""Every pair of options works, or raises one clear error when asked for."""

import re

import pytest
from decode.composition import ANSWER, OPTIONS, arguments, page, pairs, refusal
from decode.toys import says
from helpers import ROOT

import lmx


def answers(*names):
    """Two requests: one that ends, one that is cut."""
    return lmx.generate(says(ANSWER), ["?", "?"], max_new_tokens=40, **arguments(*names))


@pytest.mark.parametrize(("a", "b"), pairs())
def test_pair(a, b):
    if message := refusal(a, b):
        with pytest.raises(ValueError, match=re.escape(message)):
            answers(a, b)
        return
    found = answers(a, b)
    expected = ANSWER.split("3, 1")[0] if "stop" in (a, b) else ANSWER
    for answer in found:
        assert answer.error is None
        if not (OPTIONS[a].is_sampled or OPTIONS[b].is_sampled):
            assert answer.text == expected
        if "logprobs" in (a, b):
            assert len(answer.logprobs) == len(answer.tokens)
    assert len(found) == (4 if "answers" in (a, b) else 2)


def test_the_page_is_what_the_tests_see():
    assert (ROOT / "docs" / "composition.md").read_text() == page(), (
        "run: python tools/composition_docs.py"
    )
