import torch

from lmx.decode.history import History


def test_every_form_holds_the_same_tokens():
    history, expected = History([4, 5, 4], torch.device("cpu")), [4, 5, 4]
    views = []
    for token in [7, 4, 7, *range(300)]:
        if token % 3:  # not every step asks for the tensor
            views.append((history.tensor(), list(expected)))
        history.append(token)
        expected.append(token)
    assert history.tokens == expected and history.answer == expected[3:]
    assert history.seen() == set(expected)
    assert [history.answer_counts()[t] for t in (4, 5, 7)] == [2, 1, 3]
    assert history.tensor().tolist() == expected and history.tensor().dtype == torch.int64
    assert all(view.tolist() == tokens for view, tokens in views)  # growing leaves them alone


def test_no_tokens():
    history = History([], torch.device("cpu"))
    assert history.tensor().shape == (0,) and history.answer == []


def test_a_path_is_text_for_one_look():
    history = History([4, 5], torch.device("cpu"))
    history.append(5)
    assert history.tensor([6, 4]).tolist() == [4, 5, 5, 6, 4]
    assert history.seen([6]) == {4, 5, 6} and history.answer_counts([5, 6]) == {5: 2, 6: 1}
    assert history.tensor().tolist() == [4, 5, 5]
    assert history.seen() == {4, 5} and history.answer_counts() == {5: 1}
