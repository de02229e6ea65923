"""SmolLM2 answers three prompts through lmx and through Transformers, on the same float32 weights.

Then one as JSON that fits a schema. One thread. Run by ``make demo``. The exit code is 1 if a text
differs, or the JSON is wrong.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import lmx
from lmx.cli.terminal import escape
from lmx.grammar import Grammar
from lmx.models import smollm2

PROMPTS = (
    "What is the capital of France?",
    "Write a Python function that adds two numbers.",
    "Why is the sky blue?",
)
MAX_NEW_TOKENS = 40
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "country": {"type": "string", "maxLength": 20},
        "founded": {"type": "integer", "minimum": -3000, "maximum": 2000},
    },
    "required": ["city", "country", "founded"],
    "additionalProperties": False,
}


def main() -> int:
    """Answer the prompts twice and compare."""
    torch.set_num_threads(1)  # for both; on a busy machine two threads wait more than they compute
    logging.disable_progress_bar()
    ours = lmx.load("smollm2")
    theirs = AutoModelForCausalLM.from_pretrained(smollm2.cached_folder(torch.float32))
    num_different = 0
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        [answer] = lmx.generate(ours, [messages], max_new_tokens=MAX_NEW_TOKENS)

        ids = ours.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        started = time.perf_counter()
        out = theirs.generate(**ids, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        seconds = time.perf_counter() - started
        tokens = out[0, ids["input_ids"].shape[1] :]
        is_same = answer.text == ours.tokenizer.decode(tokens, skip_special_tokens=True)
        num_different += not is_same

        print(f"> {prompt}\n{escape(answer.text)}")
        print(
            f"[lmx {answer.stats.tokens_per_s:.1f} tokens/s"
            f" | Transformers {len(tokens) / seconds:.1f} tokens/s"
            f" | {'same text' if is_same else 'DIFFERENT text'}]\n",
            flush=True,
        )
    return 1 if num_different or not answer_as_json(ours) else 0


def answer_as_json(model: lmx.protocols.LayeredModel) -> bool:
    """Answer under the schema of a city; return whether the text fits it."""
    prompt = "Describe Paris as JSON."
    grammar = Grammar.from_json_schema(CITY, whitespace="compact", separators=(", ", ": "))
    [answer] = lmx.generate(
        model, [[{"role": "user", "content": prompt}]], max_new_tokens=100, constraint=grammar
    )
    print(f"> {prompt}\n{escape(answer.text)}")
    try:
        city = json.loads(answer.text)
        fits = set(city) == set(CITY["required"]) and -3000 <= city["founded"] <= 2000
        fits = fits and all(len(city[key]) <= 20 for key in ("city", "country"))
    except ValueError:
        fits = False
    print(f"[JSON that {'fits' if fits else 'does NOT fit'} its schema]\n", flush=True)
    return fits


if __name__ == "__main__":
    sys.exit(main())
