"""Benches of lmx.grammar: masks of texts against XGrammar and llguidance, and the room's ops.

Grammars are bench/grammars/*.ebnf, each with a text in comments that begin with `#|`; the
vocabulary is Llama-3's, of the package llama-models.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmx import _C, grammar
from lmx.grammar import Compiler, DeviceAutomaton, Grammar, Matcher, TokenizerInfo

from .grammar_peers import Session, llguidance_engine, lmx_engine, xgrammar_engine
from .measure import Measure
from .race import Rotation, threads

FOLDER = Path(__file__).with_name("grammars")
NAMES = ("json", *sorted(path.stem for path in FOLDER.glob("*.ebnf")))
ROUNDS = 3  # of a text, all engines in turns; the least time of each place counts
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@lru_cache
def llama3() -> tuple[TokenizerInfo, Any] | None:
    """Llama-3's tokenizer, ours and tiktoken's, or None where a package is missing."""
    spec = find_spec("llama_models")
    if spec is None or spec.origin is None or find_spec("tiktoken") is None:
        return None
    import tiktoken

    path = Path(spec.origin).parent / "llama3" / "tokenizer.model"
    special = {f"<|reserved_{i}|>": 128_000 + i for i in range(256) if i not in (1, 9)}
    special |= {"<|end_of_text|>": 128_001, "<|eot_id|>": 128_009}
    info = TokenizerInfo.from_tiktoken(path, special_tokens=special)
    ranks = {info.token_bytes(t): t for t in range(128_000)}
    encoding = tiktoken.Encoding(
        "llama3", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    return info, encoding


def source_and_text(name: str) -> tuple[str, str]:
    if name == "json":
        rows = [
            {
                "id": i,
                "name": f"item {i} \u00e9",
                "tags": ["a", None, True],
                "in": {"x": [1.5e3, []]},
            }
            for i in range(6)
        ]
        return "json", json.dumps(rows, indent=2, ensure_ascii=False)
    source = (FOLDER / f"{name}.ebnf").read_text(encoding="utf-8")
    lines = [line[3:] for line in source.split("\n") if line.startswith("#|")]
    return source, "\n".join(lines) + "\n"


@dataclass
class Times:
    """Microseconds at each place of a text: with a new grammar, and once more (ours alone)."""

    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    accept: list[float] = field(default_factory=list)
    start: float = 0.0  # compile, matcher and first mask
    fault: str = ""


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def spelled(values: list[float]) -> str:
    parts = [f"p{p:g} {percentile(values, p / 100):8.1f}" for p in (50, 90, 99)]
    return "  ".join([*parts, f"mean {sum(values) / len(values):8.1f}"])


def run_text(session: Session, tokens: list[int], times: Times) -> None:
    clock = time.perf_counter_ns
    for i, token in enumerate(tokens):
        t0 = clock()
        session.fill()
        t1 = clock()
        is_allowed = session.accept(token)
        t2 = clock()
        if not is_allowed:
            times.fault = f"does not allow token {i}"
            return
        times.first.append((t1 - t0) / 1e3)
        times.accept.append((t2 - t1) / 1e3)


def measure_text(engines: dict[str, Any], name: str, encoding: Any) -> dict[str, Times]:
    """All engines on one grammar's text, in turns, place by place the least of some rounds.

    Ours is compiled anew for each round of `first`; theirs, whose compilation may take a minute,
    once, so that what a later round finds in their caches counts in their favour.
    """
    source, text = source_and_text(name)
    tokens = encoding.encode(text, disallowed_special=())
    results = {engine: Times() for engine in engines}
    sessions: dict[str, Session] = {}
    for round_ in range(ROUNDS):
        for engine, make in engines.items():
            times = results[engine]
            if times.fault:
                continue
            t0 = time.perf_counter_ns()
            try:
                if engine == "lmx" or not round_:
                    sessions[engine] = make(source)
                else:
                    sessions[engine].reset()
                sessions[engine].fill()
            except Exception as fault:  # a peer may refuse a grammar
                times.fault = str(fault).strip().split("\n")[0][:60] or type(fault).__name__
                continue
            start = (time.perf_counter_ns() - t0) / 1e3
            if engine == "lmx" or not round_:
                times.start = min(times.start or start, start)
            once = Times()
            run_text(sessions[engine], tokens, once)
            times.fault = once.fault
            if not once.fault:
                times.first = least_of(times.first, once.first)
                times.accept = least_of(times.accept, once.accept)
    for _ in range(ROUNDS if not results["lmx"].fault else 0):
        once = Times()
        sessions["lmx"].reset()
        run_text(sessions["lmx"], tokens, once)
        results["lmx"].again = least_of(results["lmx"].again, once.first)
    return results


def least_of(before: list[float], now: list[float]) -> list[float]:
    return [min(a, b) for a, b in zip(before, now, strict=True)] if before else now


def test_masks_of_texts(smoke: bool, request: pytest.FixtureRequest) -> None:
    """Every grammar's text, every engine: percentiles over all tokens of texts that all accept."""
    found = llama3()
    if found is None:
        pytest.skip("needs the packages llama-models and tiktoken")
    info, encoding = found
    engines = {
        "lmx": lmx_engine(info),
        "xgrammar": xgrammar_engine(info),
        "llguidance": llguidance_engine(info, encoding),
    }
    engines = {name: make for name, make in engines.items() if make}
    if smoke:
        engines = {"lmx": engines["lmx"]}
    names = NAMES[:4] if smoke else NAMES
    results: dict[str, dict[str, Times]] = {}
    with threads(1):
        for name in names:
            results[name] = measure_text(engines, name, encoding)
            print("\n".join(lines_of(name, results[name])), flush=True)
    print("\n".join(["", *report(results, list(engines))]))
    assert not any(times["lmx"].fault for times in results.values())
    if request.config.getoption("--gates"):
        hold_gates(results, [e for e in engines if e != "lmx"])


def pooled(results: dict[str, dict[str, Times]], engine: str, other: str, what: str) -> list[float]:
    """Times of an engine on all texts that it and another one accept."""
    both = [r for r in results.values() if not r[engine].fault and not r[other].fault]
    return [t for r in both for t in getattr(r[engine], what)]


def lines_of(name: str, times: dict[str, Times]) -> Iterator[str]:
    for engine, t in times.items():
        what = t.fault or f"{spelled(t.first)}  start {t.start / 1e3:8.2f} ms"
        yield f"{name:12} {engine:10} {what}"


def report(results: dict[str, dict[str, Times]], engines: list[str]) -> Iterator[str]:
    for other in engines:
        for engine in dict.fromkeys(("lmx", other)):
            for what in ("first", "again", "accept"):
                values = pooled(results, engine, other, what)
                if values:
                    yield f"{'all':12} {engine:10} vs {other:10} {what:6} {spelled(values)}"


def hold_gates(results: dict[str, dict[str, Times]], peers: list[str]) -> None:
    for peer in peers:
        ours, theirs = (
            pooled(results, e, peer if e == "lmx" else "lmx", "first") for e in ("lmx", peer)
        )
        assert sum(ours) < sum(theirs), f"mean: lmx {sum(ours)}, {peer} {sum(theirs)}"
        for share in (0.5, 0.99):
            a, b = percentile(ours, share), percentile(theirs, share)
            assert a < b, f"p{100 * share:g}: lmx {a:.1f} us, {peer} {b:.1f} us"


def test_calls_without_python(smoke: bool, request: pytest.FixtureRequest) -> None:
    """A warm fill, an accept, a rollback and a fork, as C++ loops see them; and the tables."""
    found = llama3()
    if found is None:
        pytest.skip("needs the packages llama-models and tiktoken")
    info, encoding = found
    m = Matcher(Compiler(info).compile(Grammar.json()))
    m.accept_bytes('[{"a": "b')
    (token,) = encoding.encode("s")
    fill, accept, rollback, fork = _C.grammar.time_calls(m, token, 10 if smoke else 5000)
    entries = [info.token_bytes(t) for t in range(info.vocab_size)]
    t0 = time.perf_counter_ns()
    TokenizerInfo(entries)
    tables = (time.perf_counter_ns() - t0) / 1e6
    print(
        f"\nfill {fill:.0f} ns  accept {accept:.0f} ns  rollback {rollback:.0f} ns  "
        f"fork {fork:.0f} ns  tables {tables:.0f} ms"
    )
    if request.config.getoption("--gates"):
        assert fill <= 1000 and accept <= 600 and max(rollback, fork) <= 300 and tables <= 300


def test_calls_from_python(smoke: bool, request: pytest.FixtureRequest) -> None:
    """A warm fill, an accept, a rollback and a fork, called from Python; one clock around many."""
    found = llama3()
    if found is None:
        pytest.skip("needs the packages llama-models and tiktoken")
    info, encoding = found
    m = Matcher(Compiler(info).compile(Grammar.json()))
    m.accept_bytes('[{"a": "b')
    (token,) = encoding.encode("s")
    bitmask = grammar.new_bitmask(1, info.vocab_size)
    count = 10 if smoke else 2000

    def fastest(call: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(3 if smoke else 20):
            start = time.perf_counter_ns()
            for _ in range(count):
                call()
            best = min(best, (time.perf_counter_ns() - start) / count)
        return best

    fill = fastest(lambda: m.fill(bitmask))
    accept = fastest(lambda: m.accept(token))
    rollback = fastest(lambda: m.rollback(1))
    fork = fastest(m.fork)
    print(
        f"\nfill {fill:.0f} ns  accept {accept:.0f} ns  rollback {rollback:.0f} ns  "
        f"fork {fork:.0f} ns, from Python"
    )
    if request.config.getoption("--gates"):
        assert fill <= 1000 and accept <= 600


# ---- ops -----------------------------------------------------------------------------------------


@lru_cache
def small_compiler() -> Compiler:
    return Compiler(TokenizerInfo([*(bytes([b]) for b in range(256)), "</s>"], vocab_size=4096))


def json_matchers(count: int) -> list[Matcher]:
    compiled = small_compiler().compile(Grammar.json())
    out = []
    for i in range(count):
        m = Matcher(compiled)
        m.accept_bytes("[" * (i % 7) + '"')
        out.append(m)
    return out


def test_fill(measure: Measure) -> None:
    matchers = json_matchers(16)
    handles = torch.tensor([m.handle for m in matchers])
    bitmask = torch.zeros(16, 128, dtype=torch.int32)
    status = torch.zeros(16, dtype=torch.int32)

    def one_by_one(handles: Tensor) -> None:
        for i, m in enumerate(matchers):
            m.fill(bitmask, i)

    measure(
        lambda handles: grammar.fill(handles, bitmask, status),
        Rotation(16, handles),
        baseline={"Matcher.fill": one_by_one},
    )


def test_accept(measure: Measure) -> None:
    matchers = json_matchers(16)
    handles = torch.tensor([m.handle for m in matchers])
    tokens = torch.full((16,), ord("a"))
    ids = tokens.tolist()

    def one_by_one(handles: Tensor, tokens: Tensor) -> None:
        for m, token in zip(matchers, ids, strict=True):
            m.accept(token)

    measure(
        lambda handles, tokens: grammar.accept(handles, tokens),
        Rotation(16, handles, tokens),
        baseline={"Matcher.accept": one_by_one},
    )


def test_fill_tree(measure: Measure) -> None:
    (m,) = json_matchers(1)
    parents = torch.tensor([-1, 0, 0, 1, 1, 2, 3, 3], dtype=torch.int32)
    tokens = torch.tensor([ord(c) for c in 'ab"cd,ef'])
    handle = torch.tensor([m.handle])
    bitmask, valid = torch.zeros(8, 128, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)

    def paths(handle: Tensor) -> None:
        for i in range(8):
            path, node = [], i
            while node >= 0:
                path.append(int(tokens[node]))
                node = int(parents[node])
            fork = m.fork()
            if fork.accept_many(path[::-1]) == len(path):
                fork.fill(bitmask, i)

    measure(
        lambda handle: grammar.fill_tree(handle, parents, tokens, bitmask, valid),
        Rotation(1, handle),
        baseline={"a fork per path": paths},
    )


def test_step(measure: Measure) -> None:
    automaton = DeviceAutomaton(small_compiler().compile(Grammar.from_regex(r"(\d+,)*\w{1,40}")))
    states = automaton.start(64)
    tokens = torch.full((64,), ord("7"))
    table = torch.full((automaton.num_states + 1, 4096), -1)
    everywhere = torch.arange(automaton.num_states, dtype=torch.int32)
    for token in range(256):
        table[:-1, token] = automaton.step(everywhere, torch.full_like(everywhere, token).long())
    measure(
        automaton.step,
        Rotation(64, states, tokens),
        baseline={"a table of all tokens": lambda s, t: table[s.long(), t].int()},
    )
