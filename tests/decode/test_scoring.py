import pytest
import torch
from decode.toys import table_model, tiny, tiny_hf

import lmx


@pytest.mark.parametrize("length", [1, 2, 257, 513, 700])
def test_scores_are_the_log_softmax_of_each_next_token(length):
    tokens = [(i * 37) % 199 for i in range(length)]
    [scores] = lmx.score(tiny(), [tokens])
    with torch.no_grad():
        logits = tiny_hf()(torch.tensor([tokens])).logits[0, :-1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[1:, None])[:, 0]
    assert scores.dtype == torch.float32 and scores.shape == (length - 1,)
    assert torch.allclose(scores, expected, rtol=1e-4, atol=1e-3)
    assert not scores.is_inference()


def test_bad_texts():
    with pytest.raises(ValueError, match=r"texts\[1\]: prompt: expected at least one token"):
        lmx.score(table_model(6), [[1, 2], []])
    with pytest.raises(ValueError, match="texts: expected a list of texts, got 'a'"):
        lmx.score(table_model(6), "a")
