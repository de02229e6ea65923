import math
import re

import pytest
import torch
from decode.toys import FunctionModel, random_prompts, says, table_model, tiny

import lmx
from lmx.decode import Sampling, branches
from lmx.protocols import NoConstraint, NoDrafter


class Only:
    """Allows some tokens, for a number of steps; then nothing."""

    def __init__(self, allowed, vocab_size, steps=99):
        self.allowed, self.vocab_size, self.steps = allowed, vocab_size, steps
        self.told = []

    def start(self):
        return Only(self.allowed, self.vocab_size, self.steps)

    def masks(self, tree):
        assert tree.tokens.shape == (1,) and tree.parents.tolist() == [-1]
        allowed = torch.zeros(1, self.vocab_size, dtype=torch.bool)
        allowed[0, list(self.allowed)] = len(self.told) < self.steps
        return lmx.vocab.mask_from_bool(allowed)

    def advance(self, path_tokens):
        self.told += path_tokens


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.5, seed=3)])
def test_a_constraint_allows_only_its_set(sampling):
    model, prompts = tiny(), random_prompts(3, 199)
    free = lmx.generate(model, prompts, max_new_tokens=10, sampling=sampling)
    bound = lmx.generate(
        model, prompts, max_new_tokens=10, sampling=sampling, constraint=Only({3, 50, 198}, 199)
    )
    assert not any(set(g.tokens) <= {3, 50, 198} for g in free)
    assert all(set(g.tokens) <= {3, 50, 198} and len(g.tokens) == 10 for g in bound)
    assert bound[0].stats.mask_time > 0


def test_only_some_requests_have_a_constraint():
    model, prompts = tiny(), random_prompts(2, 199)
    engine = lmx.Engine(model, max_new_tokens=8)
    engine.add(prompts[0])
    engine.add(prompts[1], constraint=Only({7}, 199))
    engine.add(prompts[1], constraint=NoConstraint())
    while engine.num_unfinished:
        engine.step()
    answers = engine.finished()
    free = lmx.generate(model, prompts, max_new_tokens=8)
    assert [answers[0].tokens, answers[2].tokens] == [g.tokens for g in free]
    assert answers[1].tokens == [7] * 8


def test_a_constraint_that_allows_nothing_ends_its_request():
    [answer] = lmx.generate(tiny(), [[1]], constraint=Only({5}, 199, steps=3))
    assert (answer.finish_reason, answer.error) == ("error", "no token is allowed")
    assert answer.tokens == [5, 5, 5]


def test_a_constraint_that_fails_ends_its_request_only():
    class Narrow(Only):
        def start(self):
            return Narrow(self.allowed, 31)

    class Raising(Only):
        def start(self):
            return Raising(self.allowed, 199)

        def advance(self, path_tokens):
            raise LookupError("no such state")

    class NoStart(Only):
        def start(self):
            raise RuntimeError("nothing to start")

    engine = lmx.Engine(tiny(), max_new_tokens=4)
    for constraint in (Narrow({1}, 31), Raising({1}, 199), NoStart({1}, 199), Only({1}, 199)):
        engine.add([9, 9], constraint=constraint)
    while engine.num_unfinished:
        engine.step()
    answers = engine.finished()
    expected = (
        "constraint failed: ValueError: expected masks of int32 [1, 7], got torch.int32 [1, 1]"
    )
    assert answers[0].error == expected
    assert answers[1].error == "constraint failed: LookupError: no such state"
    assert answers[2].error == "constraint failed: RuntimeError: nothing to start"
    assert answers[3].error is None and answers[3].tokens == [1, 1, 1, 1]


def test_processors_see_the_tokens_and_edit_the_row_in_turn():
    seen = []

    def note(tokens, logits):
        seen.append(tokens.tolist())
        assert logits.shape == (6,) and logits.dtype == torch.float32
        return logits.fill_(0.0)  # its own row: the model's logprobs below are not touched

    def favour(tokens, logits):
        return logits + 5.0 * torch.nn.functional.one_hot(tokens[-1:] + 1, 6)[0]

    [answer] = lmx.generate(
        table_model(6),
        [[0]],
        max_new_tokens=3,
        processors=[note, favour],
        sampling=Sampling(logprobs=0),
    )
    assert answer.tokens == [1, 2, 3] and seen == [[0], [0, 1], [0, 1, 2]]
    expected = lmx.score(table_model(6), [[0, 1, 2, 3]])[0]
    assert [entry.logprob for entry in answer.logprobs] == pytest.approx(
        expected.tolist(), abs=1e-6
    )


def test_what_a_processor_does_to_its_tokens_changes_nothing_else():
    seen = []

    def spoil(tokens, logits):
        tokens.fill_(5)
        return logits

    def note(tokens, logits):
        seen.append(tokens)
        return logits

    [answer] = lmx.generate(table_model(6), [[0]], max_new_tokens=4, processors=[spoil, note])
    [plain] = lmx.generate(table_model(6), [[0]], max_new_tokens=4)
    assert answer.tokens == plain.tokens
    assert [tokens.tolist() for tokens in seen] == [[0, *plain.tokens[:i]] for i in range(4)]


def test_no_step_makes_a_tensor_of_all_tokens(monkeypatch):
    lengths, tensor = [], torch.tensor

    def spy(data, **options):
        lengths.append(len(data) if isinstance(data, list) else 1)
        return tensor(data, **options)

    processors = [lambda tokens, logits: logits] * 2
    monkeypatch.setattr(torch, "tensor", spy)
    lmx.generate(tiny(), [[5] * 300], max_new_tokens=5, processors=processors)
    assert [n for n in lengths if n > 9] == [300, 300]  # the prompt and its positions, once


FAILED = "processor 0 (<lambda>) failed: ValueError"


def raise_at_three(tokens, logits):
    if len(tokens) == 3:
        raise ZeroDivisionError("three")
    return logits


@pytest.mark.parametrize(
    ("processor", "error"),
    [
        (raise_at_three, "processor 0 (raise_at_three) failed: ZeroDivisionError: three"),
        (lambda t, z: z[:4], f"{FAILED}: expected logits of shape [6] back, got [4]"),
        (lambda t, z: None, f"{FAILED}: expected logits of shape [6] back, got NoneType"),
        (lambda t, z: z * torch.nan, f"{FAILED}: the logits that came back hold NaN"),
        (lambda t, z: z - torch.inf, "no token is allowed: bias and processors forbid all of them"),
    ],
)  # fmt: skip
def test_a_processor_that_fails_ends_its_request_only(processor, error):
    engine = lmx.Engine(table_model(6), max_new_tokens=4)
    engine.add([1], processors=[processor])
    engine.add([1])
    while engine.num_unfinished:
        engine.step()
    answers = engine.finished()
    assert answers[0].error == error and answers[0].finish_reason == "error"
    assert answers[1].error is None and len(answers[1].tokens) == 4


def test_logit_bias_forces_and_forbids():
    model = table_model(6)
    [free] = lmx.generate(model, [[1]], max_new_tokens=4)
    ban = Sampling(logit_bias={free.tokens[0]: -math.inf})
    [banned] = lmx.generate(model, [[1]], max_new_tokens=4, sampling=ban)
    assert free.tokens[0] not in banned.tokens
    [forced] = lmx.generate(model, [[1]], max_new_tokens=4, sampling=Sampling(logit_bias={4: 99.0}))
    assert forced.tokens == [4, 4, 4, 4]


def test_penalties_make_tokens_rarer():
    flat = FunctionModel(lambda position, token: torch.linspace(1.0, 0.9, 6), 6)

    def answer(**penalty):
        return lmx.generate(flat, [[0]], max_new_tokens=9, sampling=Sampling(**penalty))[0].tokens

    assert answer() == [0] * 9
    assert answer(presence_penalty=1.0) == [0, 1, 2, 3, 4, 5, 0, 0, 0]
    assert answer(frequency_penalty=1.0) == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert answer(repetition_penalty=9.0) == [1, 2, 3, 4, 5, 0, 0, 0, 0]  # the prompt counts


def test_logprobs_are_the_models():
    sampling = Sampling(temperature=2.0, seed=1, logprobs=3, logit_bias={2: 1.0})
    [answer] = lmx.generate(tiny(), [[4, 5]], max_new_tokens=6, sampling=sampling)
    expected = lmx.score(tiny(), [[4, 5, *answer.tokens]])[0][1:]
    assert [e.logprob for e in answer.logprobs] == pytest.approx(expected.tolist(), abs=1e-4)
    assert [e.token for e in answer.logprobs] == answer.tokens
    for entry in answer.logprobs:
        values = [value for _, value in entry.top]
        assert len(values) == 3 and values == sorted(values, reverse=True)
        assert entry.logprob <= values[0]


def test_n_answers_are_those_of_the_branches():
    model, sampling = tiny(), Sampling(temperature=1.5, seed=9, n=3)
    answers = lmx.generate(model, [[1], [2]], max_new_tokens=8, sampling=sampling)
    each = [
        lmx.generate(model, [prompt], max_new_tokens=8, sampling=branch)[0].tokens
        for prompt in ([1], [2])
        for branch in branches(sampling)
    ]
    assert [g.tokens for g in answers] == each
    assert len({tuple(tokens) for tokens in each[:3]}) == 3


def test_prompts_may_be_text_tokens_or_messages():
    model = says("ok", prompt="user: hi\n")
    tokens = list(b"user: hi\n")
    prompts = [
        "user: hi\n",
        tokens,
        tuple(tokens),
        torch.tensor(tokens),
        [{"role": "user", "content": "hi"}],
    ]
    assert {g.text for g in lmx.generate(model, prompts)} == {"ok"}


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ([], "prompt: expected at least one token, got none"),
        ("", "prompt: expected at least one token, got none"),
        ([1] * 9, "prompt: expected at most 8 tokens, got 9"),
        ([256], "prompt: expected tokens in [0, 256), got 256"),
        ([5, -1], "prompt: expected tokens in [0, 256), got -1"),
    ],
)
def test_a_bad_prompt_ends_its_request_only(prompt, error):
    bad, good = lmx.generate(says("ok", max_positions=8), [prompt, "?"])
    assert (bad.finish_reason, bad.error, bad.tokens, bad.text) == ("error", error, [], "")
    assert good.text == "ok"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: expected an integer of at least 1, got 0"),
        ({"drafter": "guess"}, "drafter='guess': expected one of: recycle, "),
        ({"cache": "h2o:0.2"}, "cache='h2o:0.2': no eviction policy is built in yet; it comes"),
        ({"depth": "skip"}, "depth='skip': no depth policy is built in yet; it comes with"),
        ({"constraint": 5}, "constraint: expected a Constraint, got 5"),
        ({"constraint": "lark:a"}, "constraint='lark:a': expected one of: json, regex"),
        ({"sampling": 5}, "sampling: expected a Sampling, or one per prompt, got 5"),
        ({"sampling": [Sampling()] * 3}, "sampling: expected 1 settings, got 3"),
        ({"sampling": [5]}, "sampling: expected a Sampling, got 5"),
        ({"sampling": Sampling(logit_bias={256: 1})}, "expected an integer in [0, 255], got 256"),
        ({"sampling": Sampling(logprobs=257)}, "expected an integer in [0, 256], got 257"),
        ({"processors": [5]}, "processors: expected callables, got 5"),
        ({"processors": 5}, "processors: expected a list, got 5"),
        ({"stop": 5}, "stop: expected a list, got 5"),
        ({"stop": [""]}, "stop: expected non-empty strings, got ''"),
        ({"stop": [5]}, "stop: expected non-empty strings, got 5"),
        ({"stream": 5}, "stream: expected a callable, got 5"),
    ],
)  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        lmx.generate(says("ok"), ["?"], **options)


KINDS = "prompt: expected text, a list of token ids or a list of chat messages"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("?", "prompts: expected a list of prompts, got '?'"),
        ([5], f"{KINDS}, got 5"),
        ([["a"]], f"{KINDS}, got ['a']"),
        ([[0.5]], f"{KINDS}, got [0.5]"),
    ],
)
def test_bad_kinds_of_prompts(prompts, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        lmx.generate(says("ok"), prompts)


def test_stop_and_processors_may_be_iterators():
    [answer] = lmx.generate(says("abcdef"), ["?"], stop=(s for s in ["zz", "cd"]))
    assert (answer.text, answer.finish_reason) == ("ab", "stop")

    def only_four(tokens, logits):
        return logits + torch.nn.functional.one_hot(torch.tensor(4), 6) * 99.0

    answers = lmx.generate(
        table_model(6), [[1], [2]], max_new_tokens=3, processors=iter([only_four])
    )
    assert [answer.tokens for answer in answers] == [[4, 4, 4]] * 2
    engine = lmx.Engine(says("abcdef"), stop=iter(["zz"]))
    engine.add("?", stop=(s for s in ["cd"]))
    engine.add("?")
    while engine.num_unfinished:
        engine.step()
    assert [answer.text for answer in engine.finished().values()] == ["ab", "abcdef"]


def test_bad_options_of_an_engine():
    for name in ("num_pages", "max_seqs", "max_step_tokens"):
        with pytest.raises(ValueError, match=f"{name}: expected an integer of at least 1, got 0"):
            lmx.Engine(says("ok"), **{name: 0})
    with pytest.raises(MemoryError, match="a pool of 1000000000000 pages needs .* MiB on cpu"):
        lmx.Engine(says("ok"), num_pages=10**12)
    engine = lmx.Engine(says("ok"), drafter=NoDrafter())
    with pytest.raises(ValueError, match="index: expected the id of a request, got 0"):
        engine.cancel(0)
    assert engine.num_unfinished == 0 and engine.add("?") == 0


def test_a_model_without_tokenizer_takes_tokens_only():
    model = table_model(6)
    for options in ({"stop": "a"}, {"stream": print}):
        with pytest.raises(ValueError, match="expected none for a model without tokenizer"):
            lmx.generate(model, [[1]], **options)
    with pytest.raises(ValueError, match="prompt: expected tokens: the model has no tokenizer"):
        lmx.generate(model, ["text"])
    [answer] = lmx.generate(model, [[1]], max_new_tokens=2)
    assert answer.text == "" and len(answer.tokens) == 2
