"""JSON schemas: masks of instances against XGrammar and llguidance, on one thread.

    pytest bench/grammar_schema.py --benchmark-enable -s [--schemas DIR] [--gates]

Schemas are made here, of many kinds, or read from a folder of JSON files, each with the members
`schema` and `tests`, a list of {"data": value, "valid": boolean}. Instances are tokenised with
Llama-3's 128,256 tokens. A mask is timed before each token, then the token's acceptance; the first
mask is compilation, matcher and mask together, with nothing compiled before.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo, new_bitmask

from .grammar import llama3, percentile
from .grammar_peers import llguidance_tokenizer, xgrammar_tokenizer
from .grammar_schemas import made_schemas
from .race import threads

LIMIT_S = 10.0  # of one engine on one schema: beyond, it is given up


@dataclass
class Case:
    name: str
    schema: str
    tests: list[tuple[str, bool]]  # text, whether it is valid


@dataclass
class Outcome:
    """Of one engine on one schema, in microseconds."""

    fault: str = ""
    first: float = 0.0
    masks: list[float] = field(default_factory=list)
    accepts: list[float] = field(default_factory=list)
    wrong_accepts: int = 0
    wrong_rejects: int = 0


# What an engine gives: of a schema, a maker of matchers, each as (fill, accept, may_end).
Made = Callable[[], tuple[Callable[[], Any], Callable[[int], bool], Callable[[], bool]]]
Engine = Callable[[str], Made]


def lmx_engine(info: TokenizerInfo, order: str) -> Engine:
    def compile_(schema: str) -> Made:
        compiled = Compiler(info).compile(Grammar.from_json_schema(schema, order=order))
        bitmask = new_bitmask(1, info.vocab_size)

        def make() -> Any:
            matcher = Matcher(compiled)
            return (lambda: matcher.fill(bitmask)), matcher.accept, matcher.is_completed

        return make

    return compile_


def xgrammar_engine(info: TokenizerInfo, dynamic: bool) -> Engine | None:
    theirs = xgrammar_tokenizer(info)
    if theirs is None:
        return None
    import xgrammar as xgr

    bitmask = xgr.allocate_token_bitmask(1, info.vocab_size)
    stop = info.stop_ids[0]

    def compile_(schema: str) -> Made:
        compiler = xgr.GrammarCompiler(
            theirs, max_threads=1, cache_enabled=False, enable_dynamic_compilation=dynamic
        )
        compiled = compiler.compile_json_schema(schema, strict_mode=False)

        def make() -> Any:
            matcher = xgr.GrammarMatcher(compiled)
            fill = lambda: matcher.fill_next_token_bitmask(bitmask)  # noqa: E731
            return fill, matcher.accept_token, lambda: matcher.accept_token(stop)

        return make

    return compile_


def llguidance_engine(info: TokenizerInfo, encoding: Any) -> Engine | None:
    tokenizer = llguidance_tokenizer(info, encoding)
    if tokenizer is None:
        return None
    import llguidance
    import llguidance.torch as on_torch

    bitmask = new_bitmask(1, info.vocab_size)

    def compile_(schema: str) -> Made:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema)

        def make() -> Any:
            matcher = llguidance.LLMatcher(tokenizer, grammar)
            if matcher.is_error():
                raise ValueError(matcher.get_error())
            fill = lambda: on_torch.fill_next_token_bitmask(matcher, bitmask, 0)  # noqa: E731
            return fill, matcher.consume_token, matcher.is_accepting

        return make

    return compile_


def run_case(engine: Engine, case: Case, texts: list[list[int]]) -> Outcome:
    """Every instance of a schema, token by token, until one is not allowed."""
    clock = time.perf_counter_ns
    out = Outcome()
    started = clock()
    try:
        make = engine(case.schema)
        make()[0]()
        out.first = (clock() - started) / 1e3
        for tokens, (_, is_valid) in zip(texts, case.tests, strict=True):
            fill, accept, may_end = make()
            is_accepted = True
            for token in tokens:
                t0 = clock()
                fill()
                t1 = clock()
                is_accepted = accept(token)
                t2 = clock()
                out.masks.append((t1 - t0) / 1e3)
                out.accepts.append((t2 - t1) / 1e3)
                if not is_accepted:
                    break
            is_accepted = bool(is_accepted and may_end())
            out.wrong_accepts += is_accepted and not is_valid
            out.wrong_rejects += is_valid and not is_accepted
            if clock() - started > LIMIT_S * 1e9:
                out.fault = f"more than {LIMIT_S:g} s"
                break
    except Exception as fault:  # a schema may be refused
        out.fault = str(fault).strip().split("\n")[0][:160] or type(fault).__name__
    return out


def cases_of(folder: str | None, smoke: bool) -> list[Case]:
    if folder is None:
        made = list(made_schemas())
        return [Case(n, json.dumps(s), [(t, v) for t, v in tests]) for n, s, tests in made]
    out = []
    for path in sorted(Path(folder).glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        tests = [
            (json.dumps(t["data"], indent=2, ensure_ascii=False), bool(t["valid"]))
            for t in content["tests"]
        ]
        out.append(Case(path.stem, json.dumps(content["schema"], ensure_ascii=False), tests))
    return out[:3] if smoke else out


def spelled(values: list[float]) -> str:
    parts = [f"p{p:g} {percentile(values, p / 100):9.1f}" for p in (50, 90, 99, 99.9)]
    return " ".join([*parts, f"mean {sum(values) / len(values):8.1f}"])


def report(results: dict[str, list[Outcome]]) -> Iterator[str]:
    """Each engine beside ours, on the schemas that both take; microseconds."""
    for name, outcomes in results.items():
        refused = sum(bool(o.fault) for o in outcomes)
        yield (
            f"{name:18} refused {refused:4} of {len(outcomes)}, wrong accepts "
            f"{sum(o.wrong_accepts for o in outcomes)}, wrong rejects "
            f"{sum(o.wrong_rejects for o in outcomes)}"
        )
    for name in results:
        pairs = [
            (ours, theirs)
            for ours, theirs in zip(results["lmx"], results[name], strict=True)
            if not ours.fault and not theirs.fault
        ]
        if not pairs:
            continue
        yield f"lmx and {name}, on {len(pairs)} schemas that both take:"
        for who, index in (("lmx", 0), (name, 1)):
            if who == name == "lmx" and index:
                continue
            for what in ("masks", "accepts"):
                values = [t for p in pairs for t in getattr(p[index], what)]
                yield f"  {who:18} {what:8} {spelled(values)}"
            yield f"  {who:18} first    {spelled([p[index].first for p in pairs])}"


def test_schemas(smoke: bool, request: pytest.FixtureRequest) -> None:
    found = llama3()
    if found is None:
        pytest.skip("needs the packages llama-models and tiktoken")
    info, encoding = found
    cases = cases_of(request.config.getoption("--schemas"), smoke)
    engines: dict[str, Engine | None] = {"lmx": lmx_engine(info, "schema")}
    if not smoke:
        engines |= {
            "lmx any order": lmx_engine(info, "any"),
            "llguidance": llguidance_engine(info, encoding),
            "xgrammar dynamic": xgrammar_engine(info, True),
        }
        if request.config.getoption("--static"):
            engines["xgrammar"] = xgrammar_engine(info, False)
    results: dict[str, list[Outcome]] = {name: [] for name, engine in engines.items() if engine}
    with threads(1):
        for case in cases:
            texts = [encoding.encode(text, disallowed_special=()) for text, _ in case.tests]
            for name in results:
                engine = engines[name]
                assert engine is not None
                results[name].append(run_case(engine, case, texts))
    print()
    for case, outcome in zip(cases, results["lmx"], strict=True):
        if outcome.fault:
            print(f"lmx refuses {case.name}: {outcome.fault}")
    print("\n".join(report(results)))
    assert not any(o.wrong_accepts for o in results["lmx"])
    if not smoke:
        assert not any(o.wrong_rejects for o in results["lmx any order"])
    if request.config.getoption("--gates"):
        hold_gates(results)


def hold_gates(results: dict[str, list[Outcome]]) -> None:
    refused = sum(bool(o.fault) for o in results["lmx"])
    assert refused <= 0.04 * len(results["lmx"]), f"{refused} schemas refused"
    for name in results:
        if name.startswith("lmx"):
            continue
        pairs = [
            (a, b)
            for a, b in zip(results["lmx"], results[name], strict=True)
            if not a.fault and not b.fault
        ]
        masks = [[t for p in pairs for t in p[side].masks] for side in (0, 1)]
        first = [[p[side].first for p in pairs] for side in (0, 1)]
        assert sum(masks[0]) < sum(masks[1]), f"{name}: mean"
        for values, share, is_gate in (
            (masks, 0.99, "p99"),
            (masks, 0.5, "p50"),
            (first, 0.5, "first p50"),
            (first, 0.99, "first p99"),
        ):
            ours, theirs = (percentile(v, share) for v in values)
            assert ours <= theirs, f"{name}: {is_gate}: lmx {ours:.1f} us, {theirs:.1f} us"
