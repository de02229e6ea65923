"""Transformers' ``generate`` with lmx's decode loop: its processors and criteria are honoured."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

import lmx
from lmx.cli.terminal import escape
from lmx.models import smollm2


class NoDigits(lmx.hf.LogitsProcessor):
    """Forbids a set of tokens: here those with a digit in them."""

    def __init__(self, forbidden: torch.Tensor) -> None:
        """Take a bool per token."""
        self.forbidden = forbidden

    def edit(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Edit the scores, which are a copy."""
        return scores.masked_fill_(self.forbidden, -torch.inf)


def main() -> None:
    """Continue two texts of different lengths, padded on the left."""
    folder = smollm2.cached_folder(torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    words = tokenizer.convert_ids_to_tokens(range(model.config.vocab_size))
    forbidden = torch.tensor([any(c.isdigit() for c in word) for word in words])
    inputs = tokenizer(
        ["The first moon landing was in", "One, two,"], return_tensors="pt", padding=True
    )
    out = model.generate(
        **inputs,
        custom_generate=lmx.hf.generate,
        logits_processor=LogitsProcessorList([NoDigits(forbidden)]),
        repetition_penalty=1.1,
        max_new_tokens=16,
        do_sample=False,
    )
    for text in tokenizer.batch_decode(out, skip_special_tokens=True):
        print(escape(text))


if __name__ == "__main__":
    main()
