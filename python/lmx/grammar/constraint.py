"""``GrammarConstraint``: a grammar in the decode loop; and what ``constraint="..."`` stands for."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..protocols import DraftTree
from .grammars import CompiledGrammar, Compiler, Grammar
from .matcher import Matcher, new_bitmask
from .tokenizer import TokenizerInfo

FORMS = "json, regex:PATTERN, ebnf:FILE, schema:FILE"


class GrammarConstraint:
    """Only texts of a grammar. It is a ``lmx.protocols.Constraint``; share one among requests."""

    def __init__(self, compiled: CompiledGrammar) -> None:
        """Take the grammar, compiled for the model's tokenizer and number of logits."""
        self.compiled = compiled
        self._matcher = Matcher(compiled)

    def start(self) -> "GrammarConstraint":
        """Return a state at the grammar's beginning."""
        return GrammarConstraint(self.compiled)

    def masks(self, tree: DraftTree) -> Tensor | None:
        """Return what may follow each node; see ``Constraint``. Zeros where a node may not be."""
        vocab_size = self.compiled.vocabulary.size
        bitmask = new_bitmask(tree.tokens.numel(), vocab_size)
        if len(bitmask) == 1:  # a plain step: its token has been read
            return bitmask if self._matcher.fill(bitmask) else None
        parents, tokens = tree.parents.tolist(), tree.tokens.tolist()
        self._matcher.fill_tree(parents, tokens, bitmask, root_is_current=True)
        return bitmask

    def advance(self, path_tokens: Sequence[int]) -> None:
        """Read tokens that were emitted.

        Raises:
            ValueError: the grammar does not allow one.
        """
        for token in path_tokens:
            if not self._matcher.accept(token):
                raise ValueError(f"the grammar does not allow token {token} here")


@lru_cache(maxsize=8)
def _compiler(tokenizer: Any, vocab_size: int, eos_ids: tuple[int, ...]) -> Compiler:
    return Compiler(TokenizerInfo.from_hf(tokenizer, vocab_size, stop_ids=eos_ids or None))


def parse(text: str) -> Grammar:
    """Return the grammar that a short string names: one of ``FORMS``.

    Raises:
        ValueError: it is none of them.
        OSError, GrammarError: the file cannot be read, or the grammar is wrong.
    """
    kind, _, rest = text.partition(":")
    if text == "json":
        return Grammar.json()
    if kind == "regex" and rest:
        return Grammar.from_regex(rest)
    if kind == "ebnf" and rest:
        return Grammar.from_ebnf(Path(rest).read_text(encoding="utf-8"))
    if kind == "schema" and rest:
        return Grammar.from_json_schema(Path(rest).read_text(encoding="utf-8"))
    raise ValueError(f"constraint={text!r}: expected one of: {FORMS}")


def for_model(grammar: Any, model: Any) -> GrammarConstraint:
    """Compile a grammar, the short string of one, or a pydantic type, for a ``LayeredModel``.

    Raises:
        ValueError: the model has no tokenizer, or the string is no constraint.
        TypeError: it is none of these.
        GrammarError: the grammar is wrong.
    """
    if isinstance(grammar, str):
        parsed = parse(grammar)
    elif isinstance(grammar, Grammar):
        parsed = grammar
    else:
        parsed = Grammar.from_json_schema(grammar)
    if model.tokenizer is None:
        raise ValueError("constraint: expected a model with a tokenizer")
    compiler = _compiler(model.tokenizer, model.vocab_size, tuple(model.eos_ids))
    return GrammarConstraint(compiler.compile(parsed))


def allowed_ids(bitmask_row: Tensor) -> list[int]:
    """Return the tokens that a row ``[mask_words]`` of a bitmask allows: for display and tests."""
    bits = bitmask_row[:, None] >> torch.arange(32, dtype=torch.int32) & 1
    return bits.flatten().nonzero()[:, 0].tolist()
