"""Who runs when, who makes room, who ends, and whether every page comes back."""

import random

import pytest
import torch
from decode.toys import drain, random_prompts, says, settings, table_model, tiny

import lmx
from lmx.decode import Sampling
from lmx.decode.forward import Runner
from lmx.protocols import NoConstraint


def alone(prompt, model=None, **options):
    [answer] = lmx.generate(model or tiny(), [prompt], **options)
    return answer


def assert_no_leak(engine):
    """Every page is free but those that the prefix index keeps, and those come back."""
    cache = engine._cache
    cache.check_invariants()
    assert engine.num_unfinished == 0 and cache.num_free_rows == cache.block_table.shape[0]
    cache.clear_index()
    assert cache.num_free_pages == engine.stats().pages


@pytest.fixture
def passes(monkeypatch):
    """The numbers of rows of each sequence in every pass."""
    seen, forward = [], Runner.forward

    def spy(runner, rows, status):
        counts = rows.cu_seqlens.diff().tolist()
        seen.append([count for count in counts if count])
        return forward(runner, rows, status)

    monkeypatch.setattr(Runner, "forward", spy)
    return seen


def test_one_pass_serves_all_requests(passes):
    lmx.generate(tiny(), [[1] * 3, [2] * 5, [3]], max_new_tokens=3)
    assert passes == [[3, 5, 1], [1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1, [[512], [88], [1, 512], [1, 88], [1, 1, 100]]),
        (600, [[512], [88, 512], [1, 88, 100]]),
        (5000, [[512, 512, 100], [88, 88, 1]]),
    ],
)
def test_the_budget_decides_how_many_chunks_run(passes, budget, expected):
    engine = lmx.Engine(tiny(), max_new_tokens=9, max_step_tokens=budget)
    for length in (600, 600, 100):
        engine.add([(7 * i + length + engine.num_unfinished) % 199 for i in range(length)])
    drain(engine)
    assert [sorted(counts) for counts in passes[: len(expected)]] == [
        sorted(counts) for counts in expected
    ]


def test_a_prompt_that_cannot_fit_ends_and_leaves_the_others_alone():
    prompts = random_prompts(7, 199)
    engine = lmx.Engine(tiny(), max_new_tokens=8, num_pages=30)
    for i, prompt in enumerate(prompts):
        if i == 3:
            engine.add([5] * 481)  # 31 pages
        engine.add(prompt)
    answers = drain(engine)
    error = answers.pop(3).error
    assert error.startswith("out of pages: the request needs 31 more, 30 of 30 are free")
    expected = [alone(prompt, max_new_tokens=8).tokens for prompt in prompts]
    assert [answer.tokens for _, answer in sorted(answers.items())] == expected
    assert_no_leak(engine)


def test_an_answer_that_outgrows_the_pool_ends_with_what_it_has():
    prompts = random_prompts(2, 199)
    engine = lmx.Engine(tiny(), max_new_tokens=200, num_pages=6)
    for prompt in prompts:
        engine.add(prompt)
    for i, answer in drain(engine).items():
        assert answer.error.startswith("out of pages: the request needs 1 more, 0 of 6 are free")
        assert len(prompts[i]) + len(answer.tokens) == 6 * 16 + 1  # the last one is not in pages
        assert answer.tokens == alone(prompts[i], max_new_tokens=200).tokens[: len(answer.tokens)]
    assert_no_leak(engine)


def test_the_youngest_makes_room_and_comes_back_before_others_are_let_in():
    engine = lmx.Engine(tiny(), max_new_tokens=40, num_pages=5, max_seqs=3)
    for prompt in ([1] * 20, [2] * 20, [3] * 20):
        engine.add(prompt)
    order = []
    while engine.num_unfinished:
        engine.step()
        order += engine.finished()
    assert order == [0, 1, 2]
    stats = engine.stats()
    assert stats.preemptions > 0 and stats.most_pages == 5 and stats.tokens == 120
    assert_no_leak(engine)


def test_prompts_that_begin_alike_start_behind_what_is_in_pages(passes):
    start = [(i * i) % 199 for i in range(1100)]
    engine = lmx.Engine(tiny(), max_new_tokens=5)
    for tail in ([1, 2], [3] * 500, []):
        engine.add(start + tail)
        drained = drain(engine)
        [answer] = drained.values()
        assert answer.tokens == alone(start + tail, max_new_tokens=5).tokens
        assert answer.stats.prefix_tokens == (0 if tail == [1, 2] else 1024)
    assert engine.stats().prefix_tokens == 2 * 1024
    engine.add(start[:512])  # somebody has to run the last chunk
    [answer] = drain(engine).values()
    assert answer.stats.prefix_tokens == 0
    assert answer.tokens == alone(start[:512], max_new_tokens=5).tokens
    assert_no_leak(engine)


def test_prefixes_give_way_to_requests():
    engine = lmx.Engine(tiny(), max_new_tokens=4, num_pages=40)
    for seed in range(3):
        prompt = [(i * (seed + 3)) % 199 for i in range(600)]
        engine.add(prompt)
        [answer] = drain(engine).values()
        assert answer.tokens == alone(prompt, max_new_tokens=4).tokens
    assert engine.stats().preemptions == 0
    assert_no_leak(engine)


SAMPLING = Sampling(temperature=1.3, seed=4, n=4, logprobs=2)


def branch_answers(prompt, **options):
    return [alone(prompt, sampling=branch, **options) for branch in lmx.decode.branches(SAMPLING)]


@pytest.mark.parametrize("length", [1, 16, 37, 512, 530])
@pytest.mark.parametrize("max_seqs", [2, 4, 9])
def test_answers_to_one_prompt_fork_its_pages(passes, length, max_seqs):
    prompt = [(i * 7) % 199 for i in range(length)]
    expected = branch_answers(prompt, max_new_tokens=9)
    passes.clear()
    engine = lmx.Engine(tiny(), max_new_tokens=9, max_seqs=max_seqs)
    assert engine.add(prompt, sampling=SAMPLING) == 0 and engine.add(prompt) == 4
    answers = drain(engine)
    for i, own in enumerate(expected):
        assert (answers[i].tokens, answers[i].logprobs) == (own.tokens, own.logprobs)
    assert answers[4].tokens == alone(prompt, max_new_tokens=9).tokens
    num_forked = sum(a.stats.prefix_tokens == length for a in answers.values())
    assert num_forked == min(max_seqs, 4) - 1
    assert_no_leak(engine)


def test_forked_requests_make_room_too():
    prompt = [(i * 7) % 199 for i in range(37)]
    expected = branch_answers(prompt, max_new_tokens=40)
    engine = lmx.Engine(tiny(), max_new_tokens=40, num_pages=8)
    engine.add(prompt, sampling=SAMPLING)
    answers = drain(engine)
    assert [answers[i].tokens for i in range(4)] == [own.tokens for own in expected]
    assert engine.stats().preemptions > 0
    assert_no_leak(engine)


@pytest.mark.parametrize("when", [0, 1])
def test_forks_of_a_prompt_whose_first_request_goes_away(when):
    prompt = [(i * 7) % 199 for i in range(1000)]
    expected = branch_answers(prompt, max_new_tokens=4)
    engine = lmx.Engine(tiny(), max_new_tokens=4)
    engine.add(prompt, sampling=SAMPLING)
    for _ in range(when):
        engine.step()
    engine.cancel(0)
    answers = drain(engine)
    assert (answers[0].error, answers[0].tokens) == ("cancelled", [])
    assert [answers[i].tokens for i in (1, 2, 3)] == [own.tokens for own in expected[1:]]
    assert_no_leak(engine)


def test_cancelled_requests():
    prompts = random_prompts(5, 199)
    engine = lmx.Engine(tiny(), max_new_tokens=30, max_seqs=3, num_pages=7)
    for prompt in prompts:
        engine.add(prompt)
    for _ in range(12):
        engine.step()
    assert engine.stats().waiting == 2
    swapped = [r.index for r in engine._scheduler.running if r.is_swapped]
    for index in {0, 4, *swapped}:
        engine.cancel(index)
        engine._cache.check_invariants()
    answers = drain(engine)
    engine.cancel(1)  # it has ended: nothing happens
    for i, prompt in enumerate(prompts):
        whole = alone(prompt, max_new_tokens=30).tokens
        if i in {0, 4, *swapped}:
            assert (answers[i].finish_reason, answers[i].error) == ("error", "cancelled")
            assert answers[i].tokens == whole[: len(answers[i].tokens)]
        else:
            assert answers[i].tokens == whole
    assert len(answers[0].tokens) == 12 and answers[4].tokens == []
    assert_no_leak(engine)


def test_a_request_may_be_cancelled_by_its_own_stream():
    pieces = []

    def stream(index, piece):
        pieces.append((index, piece))
        if piece == "b":
            engine.cancel(index)

    engine = lmx.Engine(says("abcdef"), stream=stream)
    engine.add("?")
    engine.add("?")
    answers = drain(engine)
    assert {a.text for a in answers.values()} == {"ab"} and len(pieces) == 4
    assert {a.error for a in answers.values()} == {"cancelled"}
    assert_no_leak(engine)


class Spoiled:
    """A model whose logits at a position hold NaN after a certain token."""

    def __init__(self, model, token):
        self._model, self._token = model, token

    def __getattr__(self, name):
        return getattr(self._model, name)

    def embed(self, tokens, positions):
        hidden = self._model.embed(tokens, positions)
        return hidden.masked_fill((tokens == self._token)[:, None], torch.nan)


def raise_third(tokens, logits):
    if len(tokens) % 3 == 0:
        raise LookupError("third")
    return logits


class Raising(NoConstraint):
    def start(self):
        return self

    def advance(self, path_tokens):
        raise LookupError("no such state")


@pytest.mark.parametrize(
    ("options", "prompt", "error"),
    [
        ({}, [198], "the model's logits hold NaN"),
        ({}, [4] * 5000, "prompt: expected at most 2048 tokens, got 5000"),
        ({}, [4] * 1000, "out of pages: the request needs 63 more"),
        ({"processors": [raise_third]}, [4, 4], "processor 0 (raise_third) failed: LookupError"),
        ({"constraint": Raising()}, [4, 4], "constraint failed: LookupError: no such state"),
    ],
)
def test_one_bad_request_of_eight(options, prompt, error):
    model = Spoiled(tiny(), 198)
    prompts = [[t % 198 for t in p] for p in random_prompts(7, 198)]
    mixed = settings(7)
    expected = [
        alone(p, model, max_new_tokens=10, sampling=s) for p, s in zip(prompts, mixed, strict=True)
    ]
    engine = lmx.Engine(model, max_new_tokens=10, max_seqs=8, num_pages=40)
    for i, (own, sampling) in enumerate(zip(prompts, mixed, strict=True)):
        if i == 3:
            engine.add(prompt, **options)
        engine.add(own, sampling=sampling)
    answers = drain(engine)
    bad = answers.pop(3)
    assert bad.finish_reason == "error" and bad.error.startswith(error)
    for (_, answer), own in zip(sorted(answers.items()), expected, strict=True):
        if own.error is None:
            assert (answer.tokens, answer.logprobs) == (own.tokens, own.logprobs)
        else:  # it has drawn the spoiled token itself
            assert answer.error == own.error and answer.tokens == own.tokens
    assert sum(own.error is None for own in expected) >= 5
    assert_no_leak(engine)


class Flaky:
    """A model that fails now and then."""

    def __init__(self, model):
        self._model, self._calls = model, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def mlp(self, i, hidden):
        self._calls += 1
        if self._calls % 7 == 0:
            raise RuntimeError("a cosmic ray")
        return self._model.mlp(i, hidden)


def test_a_step_that_failed_is_made_again():
    prompts = random_prompts(4, 199)
    engine = lmx.Engine(Flaky(tiny()), max_new_tokens=20, num_pages=8)
    for prompt in prompts:
        engine.add(prompt)
    failures, answers = 0, {}
    while engine.num_unfinished:
        try:
            engine.step()
        except RuntimeError:
            failures += 1
        answers |= engine.finished()
    assert failures > 3
    for i, prompt in enumerate(prompts):
        assert answers[i].tokens == alone(prompt, max_new_tokens=20).tokens
    assert_no_leak(engine)


def run_at_random(seed, num_requests):
    """Add, cancel and step at random over a small pool; every answer is what it is alone."""
    dice = random.Random(seed)
    pool = random_prompts(6, 199) + [[(i * 3) % 199 for i in range(530)]]
    engine = lmx.Engine(tiny(), max_seqs=4, num_pages=40, max_step_tokens=dice.choice([1, 64, 600]))
    asked, cancelled, answers = {}, set(), {}
    while len(asked) < num_requests or engine.num_unfinished:
        if len(asked) < num_requests and dice.random() < 0.4:
            prompt, length = dice.randrange(len(pool)), dice.randrange(1, 25)
            sampling = dice.choice(settings(4))
            index = engine.add(pool[prompt], max_new_tokens=length, sampling=sampling)
            asked[index] = (prompt, length, sampling)
        if asked and dice.random() < 0.05:
            cancelled.add(index := dice.choice(list(asked)))
            engine.cancel(index)
        engine.step()
        engine._cache.check_invariants()
        answers |= engine.finished()
    known = {}
    for index, (prompt, length, sampling) in asked.items():
        key = (prompt, sampling.seed)
        if key not in known:
            known[key] = alone(pool[prompt], max_new_tokens=25, sampling=sampling).tokens
        answer = answers[index]
        assert answer.tokens == known[key][: len(answer.tokens)]
        if answer.error is None:
            assert len(answer.tokens) == length
        else:
            assert answer.error == "cancelled" and index in cancelled
    assert_no_leak(engine)
    return engine.stats()


def test_at_random():
    stats = [run_at_random(seed, 25) for seed in range(3)]
    assert sum(s.preemptions for s in stats) > 0 and sum(s.prefix_tokens for s in stats) > 0


@pytest.mark.long
def test_at_random_at_full_size():
    stats = [run_at_random(seed, 60) for seed in range(40)]
    assert sum(s.preemptions for s in stats) > 50


def test_stats_of_an_engine():
    engine = lmx.Engine(table_model(6), max_new_tokens=3, max_seqs=1, num_pages=4)
    engine.add([1, 2])
    engine.add([3])
    engine.step()
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.tokens, stats.prompt_tokens) == (1, 1, 1, 2)
    assert (stats.pages, stats.pages_free, stats.most_pages, stats.steps) == (4, 3, 1, 1)
    drain(engine)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.tokens, stats.prompt_tokens) == (0, 0, 6, 3)
    assert stats.seconds > 0 and stats.tokens_per_s == stats.tokens / stats.seconds


def test_a_pool_of_the_default_size_leaves_half_of_the_memory(monkeypatch):
    from lmx.decode import pages

    model = tiny()
    size = pages.page_bytes(model)
    monkeypatch.setattr(pages.memory, "available_bytes", lambda device: 20 * size + 5)
    assert lmx.Engine(model).stats().pages == 10
    monkeypatch.undo()
    assert lmx.Engine(model, max_seqs=2).stats().pages == 2 * 2048 // 16
