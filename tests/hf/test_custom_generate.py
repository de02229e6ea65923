import re

import pytest
import torch
from decode.toys import random_prompts, tiny, tiny_hf
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

import lmx
from lmx.decode import Sampling, branches
from lmx.hf import VocabMask

PAD = 0


def batch(prompts):
    """Return input ids and attention mask, padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def both(prompts, **options):
    """Return what Transformers' loop and ours give, asserting nothing."""
    model = tiny_hf()
    theirs = model.generate(**batch(prompts), **options)
    return theirs, model.generate(**batch(prompts), custom_generate=lmx.hf.generate, **options)


PROMPTS = [[p % 198 + 1 for p in prompt] for prompt in random_prompts(4, 198)]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 1, "min_new_tokens": 5},
        {"suppress_tokens": list(range(100))},
        {"num_return_sequences": 1, "use_cache": False},
        {"prefix_allowed_tokens_fn": lambda row, ids: [row + 5, row + 6, row + 7]},
    ],
)
def test_greedy_ids_are_those_of_transformers(count, options):
    theirs, ours = both(PROMPTS[:count], max_new_tokens=9, do_sample=False, **options)
    assert torch.equal(theirs, ours) and not ours.is_inference()


def test_long_prompts():
    theirs, ours = both([[7, 9, 11] * 200, [5, 6, 7] * 190], max_new_tokens=4, do_sample=False)
    assert torch.equal(theirs, ours)


def test_rows_that_have_ended_are_padded():
    free, _ = both(PROMPTS, max_new_tokens=8, do_sample=False)
    eos = free[:, -8:][torch.arange(4), [1, 3, 5, 7]].tolist()
    theirs, ours = both(PROMPTS, max_new_tokens=12, do_sample=False, eos_token_id=eos)
    assert torch.equal(theirs, ours) and (ours[:, -1] == PAD).sum() >= 1


class Close:
    """A processor that leaves rows in which ``token`` stands, after the prompt, no choice."""

    def __init__(self, token, length):
        self.token, self.length = token, length

    def __call__(self, input_ids, scores):
        has_ended = (input_ids[:, self.length :] == self.token[:, None]).any(dim=1)
        return scores.masked_fill(has_ended[:, None], -torch.inf)


@pytest.mark.parametrize("has_eos", [True, False])
def test_rows_that_have_ended_need_no_token(has_eos):
    free, _ = both(PROMPTS, max_new_tokens=8, do_sample=False)
    length = free.shape[1] - 8
    ends = free[:, length:][torch.arange(4), [1, 3, 5, 7]]

    def stop(input_ids, scores, **kwargs):
        return (input_ids[:, length:] == ends[:, None]).any(dim=1)

    # Without an end token Transformers goes on with rows that have ended.
    how = {"stopping_criteria": StoppingCriteriaList([stop])}
    if has_eos:  # the same token ends every row
        ends = ends[:1].expand(4)
        how = {"eos_token_id": int(ends[0])}
    processors = LogitsProcessorList([Close(ends, length)])
    theirs, ours = both(
        PROMPTS, max_new_tokens=12, do_sample=False, logits_processor=processors, **how
    )
    assert torch.equal(theirs, ours)


class Evens:
    """A stopping criterion: ends a row once it holds three even tokens more than at first."""

    def __init__(self):
        self.calls = []

    def __call__(self, input_ids, scores, **kwargs):
        self.calls.append(input_ids.shape)
        return (input_ids[:, -4:] % 2 == 0).sum(dim=1) >= 2


@pytest.mark.parametrize("options", [{}, {"eos_token_id": 198}])
def test_stopping_criteria_see_what_transformers_shows_them(options):
    criteria = [Evens(), Evens()]
    outputs = [
        tiny_hf().generate(
            **batch(PROMPTS),
            max_new_tokens=10,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([criterion]),
            custom_generate=custom,
            **options,
        )
        for criterion, custom in zip(criteria, (None, lmx.hf.generate), strict=True)
    ]
    assert torch.equal(*outputs) and criteria[0].calls == criteria[1].calls


def sample(prompts, seed=0, **options):
    options = {"max_new_tokens": 10, "do_sample": True, "temperature": 0.9, "top_k": 40} | options
    return tiny_hf().generate(
        **batch(prompts), custom_generate=lmx.hf.generate, seed=seed, **options
    )


def test_samples_repeat_themselves_and_depend_on_the_seed():
    torch.manual_seed(1)
    first = sample(PROMPTS)
    torch.manual_seed(2)
    assert torch.equal(first, sample(PROMPTS)) and not torch.equal(first, sample(PROMPTS, seed=1))
    rows = sample(PROMPTS[:1], num_return_sequences=4)[:, -10:].tolist()
    assert len({tuple(row) for row in rows}) == 4


def test_samples_are_those_of_the_decode_loop():
    ours = sample(PROMPTS, seed=3, top_k=0)[:, -10:].tolist()
    settings = branches(Sampling(temperature=0.9, seed=3, n=4))
    expected = lmx.generate(tiny(), PROMPTS, max_new_tokens=10, sampling=settings)
    assert ours == [g.tokens for g in expected]


def in_place(input_ids, scores):
    scores[:, 100:] = -torch.inf
    return scores


def test_a_processor_may_change_its_scores_in_place():
    processors = LogitsProcessorList([in_place])
    theirs, ours = both(PROMPTS, max_new_tokens=6, do_sample=False, logits_processor=processors)
    assert torch.equal(theirs, ours) and int(ours[:, -6:].max()) < 100


def test_given_processors_are_called():
    allowed = torch.zeros(1, 199, dtype=torch.bool)
    allowed[0, [4, 5]] = True
    mask = VocabMask(lmx.vocab.mask_from_bool(allowed))
    out = sample(PROMPTS, logits_processor=LogitsProcessorList([mask]))
    assert set(out[:, -10:].unique().tolist()) == {4, 5}


class Collect(BaseStreamer):
    def __init__(self):
        self.got, self.ended = [], False

    def put(self, value):
        self.got += value.flatten().tolist()

    def end(self):
        self.ended = True


def test_token_streamer():
    streamer = Collect()
    out = sample(PROMPTS[:1], token_streamer=streamer)
    assert streamer.got == out[0].tolist() and streamer.ended


def test_the_streamer_of_transformers_gets_the_prompt_only():
    """Transformers writes the prompt itself, and does not hand the streamer to a callable."""
    streamer = Collect()
    out = sample(PROMPTS[:1], streamer=streamer)
    assert streamer.got == PROMPTS[0] and not streamer.ended
    assert torch.equal(out, sample(PROMPTS[:1]))


def forbid_all(input_ids, scores):
    return scores - torch.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "generation mode: expected greedy_search or sample, got 'beam_search'"),
        ({"prompt_lookup_num_tokens": 2}, "generation mode: expected greedy_search or sample, got"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate: expected it unset, got True"),
        ({"cache_implementation": "static"}, "cache_implementation: expected it unset, got"),
        ({"cache": DynamicCache()}, "cache: expected none: lmx keeps its own, got 'DynamicCache'"),
        ({"max_new_tokens": 3000}, "max_length: expected at most 2048 positions, prompt"),
        ({"logits_processor": LogitsProcessorList([forbid_all])}, "scores of row 0: expected"),
        ({"position_ids": torch.zeros(1, 3).long()}, "position_ids: expected 0, 1, 2, ... of"),
        ({"attention_mask": torch.tensor([[1, 1, 0]])}, "attention_mask: expected zeros on"),
        ({"inputs_embeds": torch.zeros(1, 3, 48)}, "model_kwargs: expected only"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(options, message):
    ids = torch.tensor([[5, 6, 7]])
    plain = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 2}
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_hf().generate(ids, custom_generate=lmx.hf.generate, **plain | options)
