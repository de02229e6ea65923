import pytest
import torch
from decode.toys import random_prompts, tiny, tiny_hf
from transformers import LogitsProcessorList

import lmx
from lmx.hf import LogitsProcessor, VocabMask, as_processor


class Boost(LogitsProcessor):
    """Adds to the scores of the tokens that a sequence holds already, in place."""

    def edit(self, input_ids, scores):
        for row, ids in zip(scores, input_ids, strict=True):
            row[ids] += 3.0
        return scores


def test_a_processor_never_changes_the_scores_it_is_given():
    ids, scores = torch.tensor([[1, 2], [3, 3]]), torch.zeros(2, 5)
    edited = LogitsProcessorList([Boost()])(ids, scores)
    assert edited.tolist() == [[0.0, 3.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0, 0.0]]
    assert not scores.any()


@pytest.mark.parametrize("rows", [1, 3])
def test_vocab_mask(rows):
    allowed = torch.rand(rows, 77, generator=torch.Generator().manual_seed(0)) < 0.3
    scores = torch.randn(3, 77)
    before = scores.clone()
    edited = VocabMask(lmx.vocab.mask_from_bool(allowed))(torch.zeros(3, 1).long(), scores)
    assert torch.equal(edited, scores.masked_fill(~allowed, -torch.inf))
    assert torch.equal(scores, before)


def test_vocab_mask_says_what_it_needs():
    with pytest.raises(
        ValueError, match=r"token_bitmask: expected int32 .*, got torch.int64 \[3\]"
    ):
        VocabMask(torch.zeros(3, dtype=torch.int64))


def test_one_processor_serves_both_loops():
    [prompt] = random_prompts(1, 199)
    [answer] = lmx.generate(tiny(), [prompt], max_new_tokens=6, processors=[as_processor(Boost())])
    ids = torch.tensor([prompt])
    out = tiny_hf().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=LogitsProcessorList([Boost()]),
        max_new_tokens=6,
        do_sample=False,
    )
    [plain] = lmx.generate(tiny(), [prompt], max_new_tokens=6)
    assert answer.tokens == out[0, len(prompt) :].tolist() != plain.tokens
    assert as_processor(Boost()).__name__ == "Boost"
