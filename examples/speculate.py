"""Drafters beside plain decoding: SmolLM2 writes prose, code, and a summary of a given text.

One thread, bfloat16 and the file's own 4-bit weights; Transformers and, where installed, llama.cpp
beside them. Run by ``make demo``. The exit code is 1 if a drafted text is not the plain one.

    python examples/speculate.py [tokens]
"""

import importlib.util
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import lmx
from lmx.decode.drafters import step_costs
from lmx.models import smollm2

TEXT = (
    "The ferry runs every forty minutes from six in the morning until ten at night. Tickets are "
    "sold on board, and only in cash. In strong wind from the north the ferry does not sail. "
    "Bicycles travel free of charge, but they must be tied to the rail on the left side."
)
PROMPTS = (
    "Write a short story about a lighthouse keeper.",
    "Write a Python class for a bank account with deposit and withdraw.",
    f"Repeat the main sentences of this text: {TEXT}",
)
DRAFTERS = ("none", "recycle:auto", "lookup")


def others(weights: str, ids: Any, count: int) -> str:
    """Tokens per second of Transformers, or of llama.cpp on the packaged file."""
    if weights == "model":
        folder = smollm2.cached_folder(torch.bfloat16)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        started = time.perf_counter()
        theirs.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False)
        return f"Transformers {count / (time.perf_counter() - started):.1f} tokens/s"
    if importlib.util.find_spec("llama_cpp") is None:
        return "llama.cpp is not installed"
    from llama_cpp import Llama

    llama = Llama(str(smollm2.packaged_file()), n_ctx=512, n_threads=1, verbose=False)
    started = time.perf_counter()
    for _ in zip(range(count), llama.generate(ids[0].tolist(), temp=0.0), strict=False):
        pass
    return f"llama.cpp {count / (time.perf_counter() - started):.1f} tokens/s"


def compare(model: Any, prompt: str, weights: str, count: int) -> int:
    """Answer with every drafter; return how many texts are not the plain one."""
    chat, costs, texts = [{"role": "user", "content": prompt}], step_costs(model), []
    template = model.tokenizer.apply_chat_template
    ids = template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    print(f"> {prompt[:60]} ({ids.shape[1]} tokens; {others(weights, ids, count)})")
    for drafter in DRAFTERS:
        [a] = lmx.generate(model, [chat], max_new_tokens=count, drafter=drafter)
        texts.append(a.text)
        nodes = max(1.0, a.stats.mean_nodes)
        said = "same text" if a.text == texts[0] else "DIFFERENT text"
        speed = f"{a.stats.tokens_per_s:5.1f} tokens/s, {a.stats.mean_accepted:.2f} a step"
        print(f"  {drafter:12} {speed}, c({nodes:.1f}) = {costs(nodes):.2f}, {said}", flush=True)
    return sum(text != texts[0] for text in texts)


def main() -> int:
    """Compare; return 1 if a text differs."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    count, num_different = int(sys.argv[1]) if len(sys.argv) > 1 else 48, 0
    for weights in ("model", "file"):
        model = lmx.load("smollm2", dtype=torch.bfloat16, weights=weights)
        print(f"weights={weights!r}")
        num_different += sum(compare(model, prompt, weights, count) for prompt in PROMPTS)
    return min(1, num_different)


if __name__ == "__main__":
    sys.exit(main())
