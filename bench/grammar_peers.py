"""XGrammar and llguidance behind one face: compile EBNF, then fill and accept, token by token."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo, new_bitmask


@dataclass
class Session:
    """A compiled grammar at the start of a text."""

    fill: Callable[[], Any]
    accept: Callable[[int], bool]
    reset: Callable[[], Any]


Engine = Callable[[str], Session]  # of EBNF; "json" is the built-in language


def lmx_engine(info: TokenizerInfo) -> Engine:
    def make(text: str) -> Session:
        grammar = Grammar.json() if text == "json" else Grammar.from_ebnf(text)
        matcher = Matcher(Compiler(info).compile(grammar))
        bitmask = new_bitmask(1, info.vocab_size)
        return Session(lambda: matcher.fill(bitmask), matcher.accept, matcher.reset)

    return make


def xgrammar_tokenizer(info: TokenizerInfo) -> Any:
    """The same vocabulary for XGrammar; None without the package."""
    try:
        import xgrammar as xgr
    except ImportError:
        return None
    entries = [info.token_bytes(t) for t in range(info.vocab_size)]
    return xgr.TokenizerInfo(
        entries, vocab_size=info.vocab_size, stop_token_ids=list(info.stop_ids)
    )


def llguidance_tokenizer(info: TokenizerInfo, encoding: Any) -> Any:
    """The same vocabulary for llguidance; None without the package."""
    try:
        import llguidance.tiktoken
    except ImportError:
        return None
    return llguidance.tiktoken.lltokenizer_from_encoding(
        encoding, n_vocab=info.vocab_size, eos_token=info.stop_ids[0]
    )


def xgrammar_engine(info: TokenizerInfo) -> Engine | None:
    theirs = xgrammar_tokenizer(info)
    if theirs is None:
        return None
    import xgrammar as xgr

    compiler = xgr.GrammarCompiler(theirs, max_threads=1, cache_enabled=False)

    def make(text: str) -> Session:
        if text == "json":
            compiled = compiler.compile_builtin_json_grammar()
        else:
            compiled = compiler.compile_grammar(text)
        matcher = xgr.GrammarMatcher(compiled)
        bitmask = xgr.allocate_token_bitmask(1, info.vocab_size)
        return Session(
            lambda: matcher.fill_next_token_bitmask(bitmask), matcher.accept_token, matcher.reset
        )

    return make


def llguidance_engine(info: TokenizerInfo, encoding: Any) -> Engine | None:
    tokenizer = llguidance_tokenizer(info, encoding)
    if tokenizer is None:
        return None
    import llguidance
    import llguidance.torch as on_torch
    from llguidance.gbnf_to_lark import any_to_lark

    def make(text: str) -> Session:
        lark = "%llguidance {}\nstart: %json {}" if text == "json" else any_to_lark(text)
        matcher = llguidance.LLMatcher(tokenizer, lark)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        bitmask = new_bitmask(1, info.vocab_size)
        return Session(
            lambda: on_torch.fill_next_token_bitmask(matcher, bitmask, 0),
            matcher.consume_token,
            matcher.reset,
        )

    return make
