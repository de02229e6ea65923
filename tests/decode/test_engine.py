import pytest
import torch
from decode.toys import (
    END,
    FunctionModel,
    drain,
    random_prompts,
    says,
    settings,
    table_model,
    tiny,
    tiny_hf,
)

import lmx
from lmx.decode import Sampling
from lmx.decode.forward import Runner
from lmx.protocols import NoConstraint


def test_max_seqs_requests_run_at_a_time():
    engine = lmx.Engine(says("abc"), max_seqs=2)
    for _ in range(3):
        engine.add("?")
    for unfinished in (3, 3, 3, 1, 1, 1, 1, 0):
        engine.step()
        assert engine.num_unfinished == unfinished
    assert sorted(engine.finished()) == [0, 1, 2] and engine.finished() == {}


@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("length", [1, 511, 512, 513, 1024, 1025])
def test_prompts_around_the_chunk_grid_continue_as_transformers_does(length, window):
    prompt = random_prompts(1, 199)[0][:1] + list(range(1, 199)) * 6
    [answer] = lmx.generate(tiny(window), [prompt[:length]], max_new_tokens=5)
    ids = torch.tensor([prompt[:length]])
    expected = tiny_hf(window).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False
    )
    assert answer.tokens == expected[0, length:].tolist()


def test_chunks_of_a_prompt_end_on_the_grid(monkeypatch):
    ends = []
    forward = Runner.forward

    def spy(runner, rows, status):
        ends.append(int(rows.positions[-1]) + 1)
        return forward(runner, rows, status)

    monkeypatch.setattr(Runner, "forward", spy)
    lmx.generate(table_model(6, 1500), [[1] * 1300], max_new_tokens=3)
    assert ends == [512, 1024, 1300, 1301, 1302]


def test_reasons_to_end():
    model = says("abc")
    texts = [(g.text, g.finish_reason, g.tokens) for g in lmx.generate(model, ["?"])]
    assert texts == [("abc", "eos", [*b"abc", END])]
    [answer] = lmx.generate(model, ["?"], max_new_tokens=2)
    assert (answer.text, answer.finish_reason) == ("ab", "length")
    [answer] = lmx.generate(says("abcdef", max_positions=4), ["?"])
    assert (answer.text, answer.finish_reason) == ("abcd", "length")  # d stands at no position
    [answer] = lmx.generate(says("a", prompt="????", max_positions=4), ["????"])
    assert (answer.text, answer.finish_reason) == ("a", "length")


@pytest.mark.parametrize("stop", ["cd", ["zz", "cd"], ["cdx", "d"]])
def test_stop_strings_cut_the_text_and_keep_the_tokens(stop):
    [answer] = lmx.generate(says("abcdef"), ["?"], stop=stop)
    assert answer.finish_reason == "stop" and answer.tokens == list(b"abcd")
    assert answer.text == ("abc" if stop == ["cdx", "d"] else "ab")


def test_a_stop_string_that_the_last_token_leaves_unfinished_is_text():
    [answer] = lmx.generate(says("abc"), ["?"], stop="cd")
    assert (answer.text, answer.finish_reason) == ("abc", "eos")


def test_streamed_pieces_are_the_text():
    pieces = {0: [], 1: []}
    answers = lmx.generate(
        says("né 😀 ok User: x"), ["?", "?"], stop="User:", stream=lambda i, p: pieces[i].append(p)
    )
    for i, answer in enumerate(answers):
        assert "".join(pieces[i]) == answer.text == "né 😀 ok " and "" not in pieces[i]


def test_a_cut_character_at_the_end_is_still_text():
    pieces = []
    [answer] = lmx.generate(
        says("ab€".encode()[:4]), ["?"], stream=lambda _, piece: pieces.append(piece)
    )
    assert answer.text == "".join(pieces) == "ab\ufffd"


def faulty(position, token):
    row = torch.zeros(6)
    row[3] = torch.nan if position == 3 and token == 3 else 9.0
    return row


def test_nan_logits_end_one_request():
    model = FunctionModel(faulty, 6)
    good = [Sampling(), Sampling(temperature=1.0)]
    answers = lmx.generate(model, [[1], [1, 1, 1, 2], [3]], max_new_tokens=8)
    assert answers[0].error == "the model's logits hold NaN" and answers[0].tokens == [3, 3, 3]
    assert [g.finish_reason for g in answers] == ["error", "length", "error"]
    [answer] = lmx.generate(model, [[1]], sampling=good[1])
    assert answer.finish_reason == "error"


def test_a_bad_setting_that_no_check_sees_ends_one_request(monkeypatch):
    monkeypatch.setattr(Sampling, "__post_init__", lambda self: None)
    prompts, bad = random_prompts(2, 199), Sampling(temperature=1.0, top_p=1e-50)
    engine = lmx.Engine(tiny(), max_new_tokens=4)
    engine.add(prompts[0], sampling=bad)
    engine.add(prompts[1], sampling=Sampling(temperature=1.0))
    answers = drain(engine)
    assert answers[0].finish_reason == "error" and answers[0].tokens == []
    fault = "no token can be drawn: a sampling parameter outside its range"
    assert answers[0].error == fault
    [alone] = lmx.generate(
        tiny(), prompts[1:], max_new_tokens=4, sampling=Sampling(temperature=1.0)
    )
    assert answers[1].error is None and answers[1].tokens == alone.tokens


class Interrupting:
    """A model that is interrupted at every fifth half layer."""

    def __init__(self, model):
        self._model, self._calls = model, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def mlp(self, i, hidden):
        self._calls += 1
        if self._calls % 5 == 0:
            raise KeyboardInterrupt
        return self._model.mlp(i, hidden)


def test_an_interrupted_step_is_made_good_by_the_next():
    prompts = random_prompts(2, 199)
    expected = lmx.generate(tiny(), prompts, max_new_tokens=6, sampling=settings(2))
    engine = lmx.Engine(Interrupting(tiny()), max_new_tokens=6, max_seqs=1)
    for prompt, sampling in zip(prompts, settings(2), strict=True):
        engine.add(prompt, sampling=sampling)
    interrupts = 0
    while engine.num_unfinished:
        try:
            engine.step()
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts > 3
    assert [g.tokens for g in engine.finished().values()] == [g.tokens for g in expected]


def test_an_interrupt_while_a_token_is_taken_in_ends_that_request_only():
    class Interrupted(NoConstraint):
        def start(self):
            return self

        def advance(self, path_tokens):
            raise KeyboardInterrupt

    engine = lmx.Engine(says("abc"))
    engine.add("?", constraint=Interrupted())
    engine.add("?")
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    answers = drain(engine)
    assert answers[0].error == "interrupted while a token was taken in"
    assert answers[1].text == "abc" and answers[1].error is None


def test_an_exception_in_stream_reaches_the_caller_and_loses_no_text():
    pieces = []

    def stream(index, piece):
        pieces.append(piece)
        if piece == "b":
            raise RuntimeError("reader is gone")

    engine = lmx.Engine(says("abc"), stream=stream)
    engine.add("?")
    engine.step()
    with pytest.raises(RuntimeError, match="reader is gone"):
        engine.step()
    assert drain(engine)[0].text == "".join(pieces) == "abc"


def test_stats():
    [answer] = lmx.generate(tiny(), [[5] * 600], max_new_tokens=4)
    stats = answer.stats
    assert (stats.prompt_tokens, stats.tokens, stats.steps, stats.mean_accepted) == (600, 4, 4, 1.0)
    assert stats.layers_run == 2 * 5 and stats.drafter is None
    assert (stats.pages, stats.preemptions, stats.prefix_tokens) == (38, 0, 0)
    assert stats.seconds > 0 and stats.tokens_per_s == stats.tokens / stats.seconds
