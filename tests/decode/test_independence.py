"""A request gets the same tokens and the same logits, bit for bit, whatever goes on around it."""

import pytest
import torch
from decode.toys import random_prompts, settings, smollm2_bf16, tiny
from helpers import same_bits

import lmx
from lmx.decode import Sampling


class Recorder:
    """A processor that keeps the rows of logits that it sees."""

    def __init__(self):
        self.rows = []

    def __call__(self, tokens, logits):
        self.rows.append(logits.clone())
        return logits


class Case:
    """Requests, what each one gets alone, and whether it gets that in other company."""

    def __init__(self, model, prompts, samplings, max_new_tokens):
        self.model, self.prompts, self.samplings = model, prompts, samplings
        self.max_new_tokens = max_new_tokens
        self.alone = [self.run([i], max_seqs=1)[i] for i in range(len(prompts))]

    def run(self, order, wait=0, **options):
        """Answer requests added in some order, ``wait`` steps apart."""
        engine = lmx.Engine(self.model, max_new_tokens=self.max_new_tokens, **options)
        recorders = {i: Recorder() for i in order}
        for i in order:
            engine.add(self.prompts[i], sampling=self.samplings[i], processors=[recorders[i]])
            for _ in range(wait):
                engine.step()
        while engine.num_unfinished:
            engine.step()
        answers = engine.finished()
        self.stats = engine.stats()
        return {i: (answers[at], recorders[i].rows) for at, i in enumerate(order)}

    def check(self, order, **options):
        for i, (answer, rows) in self.run(order, **options).items():
            alone, alone_rows = self.alone[i]
            assert answer.error is None and answer.tokens == alone.tokens
            assert answer.logprobs == alone.logprobs
            assert len(rows) == len(alone_rows) > 0
            assert all(map(same_bits, rows, alone_rows))


PROMPTS = [*random_prompts(7, 199), [p % 199 for p in range(600)]]


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def case(request):
    return Case(tiny(dtype=request.param), PROMPTS, settings(8), max_new_tokens=6)


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), [3, 7, 0, 5, 1, 6, 2, 4]], ids=str)
@pytest.mark.parametrize("wait", [0, 1, 3])
def test_any_slot_any_arrival(case, order, wait):
    case.check(list(order), wait=wait, max_seqs=8)


@pytest.mark.parametrize("max_step_tokens", [1, 100, 4096])
def test_any_budget_and_batch(case, max_step_tokens):
    case.check(list(range(8)), max_seqs=3, max_step_tokens=max_step_tokens)


def test_two_threads(case, threads):
    threads(2)
    case.check(list(range(8)), max_seqs=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_preempted_and_resumed(dtype):
    case = Case(tiny(dtype=dtype), random_prompts(8, 199), settings(8), max_new_tokens=30)
    for num_pages in (5, 9):
        case.check(list(range(8)), max_seqs=8, num_pages=num_pages)
        assert case.stats.preemptions > 2
        assert case.stats.pages_free == case.stats.pages == num_pages


def test_a_window_and_pages(dtype=torch.float32):
    case = Case(tiny(20, dtype), random_prompts(4, 199), settings(4), max_new_tokens=20)
    case.check([2, 0, 3, 1], max_seqs=4, num_pages=7)
    assert case.stats.preemptions > 0


def check_smollm2(lengths, max_new_tokens, num_pages):
    model = smollm2_bf16()
    prompts = [torch.randint(model.vocab_size, (n,)).tolist() for n in lengths]
    samplings = [
        Sampling(temperature=0.8 * (i % 2), top_p=0.9, seed=i, logprobs=2)
        for i in range(len(prompts))
    ]
    case = Case(model, prompts, samplings, max_new_tokens)
    order = list(range(len(prompts)))
    case.check(order[::-1], wait=1, max_seqs=len(prompts))
    case.check(order, max_seqs=len(prompts), num_pages=num_pages)
    assert case.stats.preemptions > 0


def test_smollm2():
    check_smollm2([14, 30, 46], 4, num_pages=7)  # each of them comes to need a page more


@pytest.mark.long
def test_smollm2_at_full_size(threads):
    threads(2)
    check_smollm2([1, 15, 16, 17, 33, 50, 64, 520], 48, num_pages=45)
