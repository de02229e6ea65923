"""XGrammar's Python names over ``lmx.grammar``: ``import lmx.compat.xgrammar as xgr``.

Grammars from EBNF, regular expressions, JSON schemas and structural tags, matchers, batches,
bitmasks and draft trees. Lark, serialization, and the styles of structural tags beside JSON are not
there.
Differences: masks are exact, also where XGrammar's are not; rollback has no limit; a keyword of a
schema that cannot be honoured raises; with any order, required and unique members are checked too.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from .. import grammar as _grammar
from .. import vocab
from ..errors import GrammarSyntaxError
from ..grammar.schema import schema_text

bitmask_dtype = torch.int32


class VocabType(Enum):
    """How a vocabulary spells bytes."""

    RAW = 0
    BYTE_FALLBACK = 1
    BYTE_LEVEL = 2


_KINDS = {
    VocabType.RAW: _grammar.RAW,
    VocabType.BYTE_FALLBACK: _grammar.BYTE_FALLBACK,
    VocabType.BYTE_LEVEL: _grammar.BYTE_LEVEL,
}


def _ids(tokens: Sequence[int] | int | None) -> list[int] | None:
    if tokens is None:
        return None
    return [tokens] if isinstance(tokens, int) else list(tokens)


class TokenizerInfo:
    """A vocabulary."""

    def __init__(
        self,
        encoded_vocab: Sequence[bytes | str],
        vocab_type: VocabType = VocabType.RAW,
        *,
        vocab_size: int | None = None,
        stop_token_ids: Sequence[int] | int | None = None,
        add_prefix_space: bool = False,
    ) -> None:
        """See ``lmx.grammar.TokenizerInfo``."""
        kind = _KINDS[vocab_type]
        stops = _ids(stop_token_ids)
        self.info = _grammar.TokenizerInfo(encoded_vocab, kind, vocab_size, stops)
        self.vocab_type = vocab_type
        self.add_prefix_space = add_prefix_space

    @staticmethod
    def from_huggingface(
        tokenizer: Any,
        *,
        vocab_size: int | None = None,
        stop_token_ids: Sequence[int] | int | None = None,
    ) -> "TokenizerInfo":
        """Read a fast tokenizer of Transformers."""
        out = TokenizerInfo.__new__(TokenizerInfo)
        out.info = _grammar.TokenizerInfo.from_hf(tokenizer, vocab_size, _ids(stop_token_ids))
        out.vocab_type, out.add_prefix_space = VocabType.RAW, False
        return out

    @property
    def vocab_size(self) -> int:
        """Return the number of logits."""
        return self.info.vocab_size

    @property
    def decoded_vocab(self) -> list[bytes]:
        """Return what each token stands for."""
        return [self.info.token_bytes(t) for t in range(self.info.vocab_size)]

    @property
    def stop_token_ids(self) -> list[int]:
        """Return the tokens that end a text."""
        return self.info.stop_ids

    @property
    def special_token_ids(self) -> list[int]:
        """Return the tokens that stand for no bytes."""
        empty = [t for t in range(self.info.vocab_size) if not self.info.token_bytes(t)]
        return sorted({*empty, *self.info.special_ids})


class InvalidJSONError(RuntimeError):
    """Text that is not JSON."""


class InvalidStructuralTagError(RuntimeError):
    """JSON that is no structural tag."""


@dataclass
class StructuralTagItem:
    """A tag, its schema and its end, for ``from_structural_tag(items, triggers)``."""

    begin: str
    schema: Any
    end: str


def schema_options(
    *,
    any_whitespace: bool = True,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    strict_mode: bool = True,
    max_whitespace_cnt: int | None = None,
    any_order: bool = False,
) -> dict[str, Any]:
    """Return XGrammar's options of a schema as those of ``lmx.grammar.Grammar.from_json_schema``.

    Args:
        any_whitespace: between two JSON tokens; else as ``json.dumps`` writes it.
        indent: of ``json.dumps``.
        separators: likewise.
        strict_mode: no properties and items of which the schema says nothing.
        max_whitespace_cnt: in a row.
        any_order: of properties.
    """
    out: dict[str, Any] = {"strict": strict_mode, "order": "any" if any_order else "schema"}
    if any_whitespace:
        out["max_whitespace"] = max_whitespace_cnt
        return out
    out["whitespace"] = "compact" if indent is None else indent
    out["separators"] = separators or ((", ", ": ") if indent is None else (",", ": "))
    return out


def _structural_tag(args: Sequence[Any], info: _grammar.TokenizerInfo | None) -> _grammar.Grammar:
    tag = args[0]
    if len(args) == 2:  # items and triggers
        tag = {"type": "triggered_tags", "triggers": list(args[1]), "tags": []}
        for item in args[0]:
            content = {"type": "json_schema", "json_schema": json.loads(schema_text(item.schema))}
            tag["tags"].append({"begin": item.begin, "content": content, "end": item.end})
    elif hasattr(tag, "model_dump"):
        tag = tag.model_dump(by_alias=True)
    if isinstance(tag, str):
        try:
            tag = json.loads(tag)
        except ValueError as error:
            raise InvalidJSONError(str(error)) from None
    if not isinstance(tag, Mapping):
        raise InvalidStructuralTagError(f"expected an object, got {type(tag).__name__}")
    options = schema_options()
    try:
        return _grammar.Grammar.from_structural_tag(tag, info, **options)
    except GrammarSyntaxError as error:
        raise InvalidStructuralTagError(str(error)) from None


class Grammar:
    """A grammar."""

    def __init__(self, grammar: _grammar.Grammar) -> None:
        """Wrap a grammar of ``lmx``."""
        self.grammar = grammar

    def __str__(self) -> str:
        return str(self.grammar)

    @staticmethod
    def from_ebnf(ebnf_string: str, *, root_rule_name: str = "root") -> "Grammar":
        """Read EBNF."""
        return Grammar(_grammar.Grammar.from_ebnf(ebnf_string, root_rule_name))

    @staticmethod
    def from_regex(regex_string: str, *, print_converted_ebnf: bool = False) -> "Grammar":
        """Read a regular expression."""
        made = Grammar(_grammar.Grammar.from_regex(regex_string))
        if print_converted_ebnf:
            print(made)
        return made

    @staticmethod
    def builtin_json_grammar() -> "Grammar":
        """Return the language of JSON texts."""
        return Grammar(_grammar.Grammar.json(max_whitespace=None))

    @staticmethod
    def union(*grammars: "Grammar") -> "Grammar":
        """Return the texts of any of the grammars."""
        return Grammar(_grammar.Grammar.union([g.grammar for g in grammars]))

    @staticmethod
    def concat(*grammars: "Grammar") -> "Grammar":
        """Return a text of each grammar, one after the other."""
        return Grammar(_grammar.Grammar.concat([g.grammar for g in grammars]))

    @staticmethod
    def from_json_schema(
        schema: Any, *, print_converted_ebnf: bool = False, **layout: Any
    ) -> "Grammar":
        """Read a JSON schema; ``layout`` is XGrammar's: see ``schema_options``."""
        made = Grammar(_grammar.Grammar.from_json_schema(schema, **schema_options(**layout)))
        if print_converted_ebnf:
            print(made)
        return made

    @staticmethod
    def from_structural_tag(*args: Any) -> "Grammar":
        """Read a structural tag; or, as XGrammar once had it, a list of items and their triggers.

        Raises:
            InvalidJSONError, InvalidStructuralTagError: it is none.
        """
        return Grammar(_structural_tag(args, None))


class CompiledGrammar:
    """A grammar over a vocabulary."""

    def __init__(self, native: Any, grammar: Grammar, tokenizer_info: TokenizerInfo) -> None:
        """Wrap a compiled grammar of ``lmx``."""
        self.native = native
        self.grammar = grammar
        self.tokenizer_info = tokenizer_info

    @property
    def memory_size_bytes(self) -> int:
        """Return the size of its states and masks so far."""
        return self.native.memory_bytes()


class GrammarCompiler:
    """Compiles grammars and remembers them."""

    def __init__(
        self,
        tokenizer_info: TokenizerInfo,
        *,
        max_threads: int = 8,
        cache_enabled: bool = True,
        cache_limit_bytes: int = -1,
        enable_dynamic_compilation: bool = True,
    ) -> None:
        """Take the vocabulary. Threads do not matter, nor when: nothing is computed ahead."""
        limit = (1 << 62) if cache_limit_bytes < 0 else cache_limit_bytes
        self.tokenizer_info = tokenizer_info
        self.cache_limit_bytes = cache_limit_bytes
        self._cache_enabled = cache_enabled
        self._compiler = _grammar.Compiler(tokenizer_info.info, cache_bytes=limit)

    def compile_grammar(
        self, grammar: str | Grammar, *, root_rule_name: str = "root"
    ) -> CompiledGrammar:
        """Compile a grammar, or EBNF."""
        if isinstance(grammar, str):
            grammar = Grammar.from_ebnf(grammar, root_rule_name=root_rule_name)
        if not self._cache_enabled:
            self._compiler.clear()
        native = self._compiler.compile(grammar.grammar)
        return CompiledGrammar(native, grammar, self.tokenizer_info)

    def compile_builtin_json_grammar(self) -> CompiledGrammar:
        """Compile the language of JSON texts."""
        return self.compile_grammar(Grammar.builtin_json_grammar())

    def compile_regex(self, regex: str) -> CompiledGrammar:
        """Compile a regular expression."""
        return self.compile_grammar(Grammar.from_regex(regex))

    def compile_json_schema(self, schema: Any, **layout: Any) -> CompiledGrammar:
        """Compile a JSON schema; see ``Grammar.from_json_schema``."""
        return self.compile_grammar(Grammar.from_json_schema(schema, **layout))

    def compile_structural_tag(self, *args: Any) -> CompiledGrammar:
        """Compile a structural tag; see ``Grammar.from_structural_tag``."""
        return self.compile_grammar(Grammar(_structural_tag(args, self.tokenizer_info.info)))

    def clear_cache(self) -> None:
        """Forget all grammars."""
        self._compiler.clear()

    def get_cache_size_bytes(self) -> int:
        """Return the size of what is remembered."""
        return self._compiler.memory_bytes()


class GrammarMatcher:
    """Where a text stands in a grammar."""

    def __init__(
        self,
        compiled_grammar: CompiledGrammar,
        *,
        override_stop_tokens: Sequence[int] | int | None = None,
        terminate_without_stop_token: bool = False,
        max_rollback_tokens: int = -1,
    ) -> None:
        """Begin a text."""
        stops = _ids(override_stop_tokens)
        self.max_rollback_tokens = max_rollback_tokens
        self.stop_token_ids = (
            compiled_grammar.tokenizer_info.stop_token_ids if stops is None else stops
        )
        self.native = _grammar.Matcher(compiled_grammar.native, stops, terminate_without_stop_token)

    def accept_token(self, token_id: int, *, debug_print: bool = False) -> bool:
        """Read a token; False, and nothing changes, if it is not allowed."""
        return self.native.accept(token_id)

    def accept_string(self, input_str: str | bytes, *, debug_print: bool = False) -> bool:
        """Read a text as one step; False, and nothing changes, if it is not allowed."""
        return self.native.accept_bytes(input_str)

    def fill_next_token_bitmask(
        self, bitmask: Tensor, index: int = 0, *, debug_print: bool = False
    ) -> bool:
        """Write the mask into a row of a bitmask; False if it allows everything."""
        return self.native.fill(bitmask, index)

    def traverse_draft_tree(
        self,
        retrieve_next_token: Tensor,
        retrieve_next_sibling: Tensor,
        draft_tokens: Tensor,
        token_bitmask: Tensor,
        time_threshold: float = -1.0,
    ) -> bool:
        """Write the masks of a draft tree; False if the time was up before its end.

        Args:
            retrieve_next_token: ``[N]``, int64: the first child of each node, -1 = none.
            retrieve_next_sibling: ``[N]``, int64, likewise.
            draft_tokens: ``[N]``, int64; node 0 is the token read last.
            token_bitmask: ``[N, mask_words]``, int32.
            time_threshold: seconds; negative = no limit.
        """
        order, parents = _depth_first(retrieve_next_token.tolist(), retrieve_next_sibling.tolist())
        tokens = [int(draft_tokens[node]) for node in order]
        rows = _grammar.new_bitmask(len(order), 32 * token_bitmask.shape[1])
        max_ms = 0 if time_threshold < 0 else max(1, math.ceil(time_threshold * 1000))
        valid = self.native.fill_tree(parents, tokens, rows, True, max_ms)
        token_bitmask[order] = rows
        return 2 not in valid

    def find_jump_forward_string(self) -> str:
        """Return the text that must come next."""
        return self.native.forced_bytes().decode()

    def rollback(self, num_tokens: int = 1) -> None:
        """Undo the last steps."""
        self.native.rollback(num_tokens)

    def is_terminated(self) -> bool:
        """Return whether a stop token was read."""
        return self.native.is_terminated()

    def is_completed(self) -> bool:
        """Return whether the text may end here."""
        return self.native.is_completed()

    def reset(self) -> None:
        """Begin anew."""
        self.native.reset()

    def fork(self) -> "GrammarMatcher":
        """Return a copy that goes its own way."""
        twin = GrammarMatcher.__new__(GrammarMatcher)
        twin.native = self.native.fork()
        twin.max_rollback_tokens = self.max_rollback_tokens
        twin.stop_token_ids = self.stop_token_ids
        return twin


def _depth_first(child: list[int], sibling: list[int]) -> tuple[list[int], list[int]]:
    """Return nodes, parents before children, and each one's parent as an index into that order."""
    order: list[int] = []
    parents: list[int] = []
    todo = [(0, -1)]
    while todo:
        node, parent = todo.pop()
        if not 0 <= node < len(child) or len(order) > len(child):
            raise ValueError(f"draft tree: expected links in [-1, {len(child)}), each node once")
        if sibling[node] >= 0:
            todo.append((sibling[node], parent))
        if child[node] >= 0:
            todo.append((child[node], len(order)))
        order.append(node)
        parents.append(parent)
    return order, parents


class BatchGrammarMatcher:
    """The same call for many matchers."""

    def __init__(self, max_threads: int | str = "auto") -> None:
        """Set the number of threads."""
        threads = max_threads if isinstance(max_threads, int) else torch.get_num_threads()
        self._batch = _grammar.BatchMatcher(threads)

    def batch_fill_next_token_bitmask(
        self,
        matchers: Sequence[GrammarMatcher],
        bitmask: Tensor,
        indices: Sequence[int] | None = None,
        debug_print: bool = False,
    ) -> None:
        """Write the masks of all matchers."""
        self._batch.fill([m.native for m in matchers], bitmask, indices)

    @staticmethod
    def batch_accept_token(
        matchers: Sequence[GrammarMatcher], tokens: Sequence[int], debug_print: bool = False
    ) -> list[bool]:
        """Give each matcher its token."""
        return [m.accept_token(t) for m, t in zip(matchers, tokens, strict=True)]

    @staticmethod
    def batch_accept_string(
        matchers: Sequence[GrammarMatcher],
        strings: Sequence[str | bytes],
        debug_print: bool = False,
    ) -> list[bool]:
        """Give each matcher its text."""
        return [m.accept_string(s) for m, s in zip(matchers, strings, strict=True)]

    @staticmethod
    def batch_rollback(
        matchers: Sequence[GrammarMatcher], num_tokens: Sequence[int] | int = 1
    ) -> None:
        """Undo the last steps of each matcher."""
        counts = [num_tokens] * len(matchers) if isinstance(num_tokens, int) else num_tokens
        for matcher, count in zip(matchers, counts, strict=True):
            matcher.rollback(count)


def get_bitmask_shape(batch_size: int, vocab_size: int) -> tuple[int, int]:
    """Return the shape of a bitmask."""
    return batch_size, (vocab_size + 31) // 32


def allocate_token_bitmask(batch_size: int, vocab_size: int) -> Tensor:
    """Return a bitmask that allows everything."""
    return _grammar.new_bitmask(batch_size, vocab_size)


def reset_token_bitmask(bitmask: Tensor) -> None:
    """Allow everything."""
    bitmask.fill_(-1)


def apply_token_bitmask_inplace(
    logits: Tensor,
    bitmask: Tensor,
    *,
    vocab_size: int | None = None,
    indices: Sequence[int] | None = None,
    backend: str = "auto",
) -> None:
    """Set the logits of tokens that are not allowed to -inf.

    Args:
        logits: ``[num_rows, V]`` or ``[V]``.
        bitmask: int32, a row per row of logits.
        vocab_size: only the first tokens are looked at.
        indices: the rows to change; all by default.
        backend: accepted, and of no consequence.
    """
    rows, masks = (logits[None], bitmask[None]) if logits.dim() == 1 else (logits, bitmask)
    view = rows if vocab_size is None else rows[:, :vocab_size]
    masks = masks[:, : (view.shape[1] + 31) // 32].to(logits.device).contiguous()
    if indices is None:
        vocab.mask_apply_(view, masks)
        return
    for row in indices:
        vocab.mask_apply_(view[row : row + 1], masks[row : row + 1])
