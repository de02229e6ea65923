"""``Grammar`` and ``Compiler``: languages, and languages over a tokenizer's tokens."""

import hashlib
import struct
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from .._C import grammar as _native
from .schema import SchemaSource, schema_grammar, structural_tag
from .tokenizer import TokenizerInfo

CompiledGrammar = _native.CompiledGrammar
_MAGIC = b"lmxgram1"


class Grammar:
    """A context-free language of texts. ``str(grammar)`` is EBNF of the same language."""

    def __init__(self, native: _native.Grammar) -> None:
        """Wrap a native grammar; use the class methods instead."""
        self.native = native

    @classmethod
    def from_ebnf(cls, text: str, root: str = "root") -> "Grammar":
        """Read EBNF, a superset of GBNF (docs/grammar.md).

        Raises:
            GrammarSyntaxError: with line and column, and what was expected there.
            GrammarError: a rule is undefined or defined twice, or there is no root.
        """
        return cls(_native.Grammar.from_ebnf(text, root))

    @classmethod
    def from_regex(cls, pattern: str, flags: str = "", *, search: bool = False) -> "Grammar":
        """Read a regular expression in ECMAScript's notation.

        Args:
            pattern: it matches whole texts.
            flags: letters of ``imsu``, as in ECMAScript.
            search: texts in which the pattern occurs, instead.

        Raises:
            GrammarSyntaxError, UnsupportedRegexError: with the offset.
        """
        return cls(_native.Grammar.from_regex(pattern, flags + "x" * search))

    @classmethod
    def json(
        cls,
        *,
        whitespace: str = "flex",
        max_whitespace: int | None = 64,
        only_containers: bool = False,
        indent: int | None = None,
        max_depth: int = 16,
    ) -> "Grammar":
        r"""Return the language of JSON texts (RFC 8259), without white space around them.

        Args:
            whitespace: between two JSON tokens. ``"flex"``: up to ``max_whitespace`` of
                ``[ \t\n\r]``; ``"compact"``: none; anything else is a regular expression.
            max_whitespace: None sets no limit: models are known to fall into endless newlines.
            only_containers: objects and arrays only.
            indent: the layout of Python's ``json.dumps(value, indent=indent)`` instead, which is
                no context-free language, therefore
            max_depth: down to so many objects and arrays within one another.

        Raises:
            ValueError: ``indent`` or ``max_depth`` is out of range, or ``indent`` comes with
                ``whitespace``.
        """
        if indent is not None:
            if whitespace != "flex" or not 0 <= indent <= 32 or not 1 <= max_depth <= 256:
                raise ValueError(
                    "Grammar.json: expected indent in [0, 32] without whitespace, and max_depth in "
                    f"[1, 256], got {indent}, {whitespace!r} and {max_depth}"
                )
            scalars = str(cls.json(whitespace="compact"))
            return cls.from_ebnf(_indented_json(scalars, indent, max_depth, only_containers))
        if whitespace == "flex":
            limit = "" if max_whitespace is None else str(max_whitespace)
            whitespace = rf"[ \t\n\r]{{0,{limit}}}"
        elif whitespace == "compact":
            whitespace = ""
        return cls(_native.Grammar.json(whitespace, only_containers))

    @classmethod
    def from_json_schema(
        cls,
        schema: SchemaSource,
        *,
        order: str = "schema",
        whitespace: str | int = "flex",
        max_whitespace: int | None = 64,
        separators: tuple[str, str] | None = None,
        strict: bool = False,
        lenient: bool = False,
        formats: str = "known",
        escapes: str = "needed",
        integer_fraction: bool = False,
        registry: Mapping[str, SchemaSource] | None = None,
    ) -> "Grammar":
        r"""Return the JSON texts of all values that fit a JSON schema (docs/grammar.md).

        Drafts 4, 6, 7, 2019-09 and 2020-12 (the default), by ``$schema``. Every keyword is
        honoured exactly or refused. Rules are made when a matcher first reaches them.

        Args:
            schema: text, a dict or boolean, or a pydantic model or type.
            order: of properties. ``"schema"``: as in the schema, then further ones; ``"any"``.
            whitespace: between two JSON tokens. ``"flex"``: up to ``max_whitespace`` of
                ``[

        ]``; ``"compact"``: none; a number: lines, as ``json.dumps(indent=n)``
                writes them; else a regular expression.
            max_whitespace: None sets no limit.
            separators: between items, and between key and value; default: as in ``json.dumps``
                with lines, else ``(",", ":")``.
            strict: no additional properties or items where the schema says nothing about them.
            lenient: drop keywords that cannot be honoured, each with a warning.
            formats: unknown ones are ignored with a warning (``"known"``) or refused
                (``"strict"``); ``"off"`` ignores all.
            escapes: of strings that the schema constrains: those that JSON needs, or ``"all"``.
            integer_fraction: integers may end with ``.0``.
            registry: schemas by URI, for references to other documents.

        Raises:
            GrammarSyntaxError: the text is not JSON.
            UnsupportedSchemaError: with the JSON pointer of a keyword, and why.
            UnsatisfiableSchemaError: no value fits.
            GrammarLimitError: too large.

        Source: JSON Schema 2020-12, Core and Validation.
        """
        native = schema_grammar(
            schema,
            {
                "order": order,
                "whitespace": whitespace,
                "max_whitespace": max_whitespace,
                "separators": separators,
                "strict": strict,
                "lenient": lenient,
                "formats": formats,
                "escapes": escapes,
                "integer_fraction": integer_fraction,
                "registry": registry,
            },
        )
        return cls(native)

    @classmethod
    def from_structural_tag(
        cls,
        tag: str | Mapping[str, Any],
        tokenizer_info: TokenizerInfo | None = None,
        **options: Any,
    ) -> "Grammar":
        """Return the language of a structural tag: free text, tags, schemas (docs/grammar.md).

        Args:
            tag: JSON, or the same as a dict.
            tokenizer_info: needed where tokens are given by their text.
            options: of its schemas, as in ``from_json_schema``.

        Raises:
            GrammarSyntaxError: it is none; says where.
            GrammarError: what its grammars and schemas raise.
        """
        return cls(structural_tag(tag, tokenizer_info, options))

    @classmethod
    def union(cls, grammars: Sequence["Grammar"]) -> "Grammar":
        """Return the language of all texts of any of some grammars."""
        return cls(_native.Grammar.union([g.native for g in grammars]))

    @classmethod
    def concat(cls, grammars: Sequence["Grammar"]) -> "Grammar":
        """Return the language of a text of each of some grammars, one after the other."""
        return cls(_native.Grammar.concat([g.native for g in grammars]))

    @property
    def warnings(self) -> list[str]:
        """Return what was read but not honoured."""
        return self.native.warnings

    def __str__(self) -> str:
        return str(self.native)

    def __repr__(self) -> str:
        return f"Grammar({str(self)!r})"


def _indented_json(compact: str, indent: int, max_depth: int, only_containers: bool) -> str:
    """Write the rules of each depth out; strings and numbers are those of the compact grammar."""
    shared = ("string ::=", "escape ::=", "number ::=")
    rules = [line for line in compact.splitlines() if line.startswith(shared)]
    rules.append('scalar ::= string | number | "true" | "false" | "null"')
    rules.append('empty ::= "{}" | "[]"')
    for depth in range(max_depth):
        inner, outer = (f'"\\n{" " * (indent * d)}"' for d in (depth + 1, depth))
        value = f"value-{depth + 1}"
        for name, brackets, item in (
            ("object", "{}", f'string ": " {value}'),
            ("array", "[]", value),
        ):
            body = f'"{brackets[0]}" {inner} {item} ("," {inner} {item})* {outer} "{brackets[1]}"'
            rules.append(f"{name}-{depth} ::= {body}")
        rules.append(f"value-{depth} ::= scalar | empty | object-{depth} | array-{depth}")
    rules.append(f"value-{max_depth} ::= scalar | empty")
    root = "empty | object-0 | array-0" if only_containers else "value-0"
    return "\n".join([f"root ::= {root}", *rules])


class Compiler:
    """Compiles grammars for a tokenizer, and remembers them. May be shared by threads."""

    def __init__(
        self,
        tokenizer_info: TokenizerInfo,
        *,
        cache_bytes: int = 256 << 20,
        limit_ms: int = 5000,
        max_steps: int = 200_000,
        max_memory: int = 256 << 20,
        cache: bool = True,
    ) -> None:
        """Set limits.

        Args:
            tokenizer_info: the tokens.
            cache_bytes: compiled grammars are forgotten, the longest unused first, above it.
            limit_ms: of one call of a matcher, 0 = none; GrammarLimitError beyond.
            max_steps: new steps of the automaton in one call, likewise.
            max_memory: of a grammar's stacks and masks; above it they are made anew.
            cache: False computes every mask from scratch: to check results, not for use.
        """
        self.tokenizer_info = tokenizer_info
        self._limits = (limit_ms, max_steps, max_memory, cache)
        self._cache_bytes = cache_bytes
        self._known: OrderedDict[str, CompiledGrammar] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar | str) -> CompiledGrammar:
        """Compile a grammar, given as such or as EBNF.

        What a state allows is worked out when it is first reached, so this takes time
        proportional to the grammar's text alone.

        Raises:
            GrammarError: the grammar admits no string, or names a token that does not exist.
            GrammarLimitError: it is too large.
        """
        if isinstance(grammar, str):
            grammar = Grammar.from_ebnf(grammar)
        text = grammar.native.key
        with self._lock:
            if (found := self._known.get(text)) is not None:
                self._known.move_to_end(text)
                return found
        compiled = _native.CompiledGrammar(
            grammar.native, self.tokenizer_info.native, *self._limits
        )
        with self._lock:
            compiled = self._known.setdefault(text, compiled)
            while len(self._known) > 1 and self.memory_bytes() > self._cache_bytes:
                self._known.popitem(last=False)
        return compiled

    def memory_bytes(self) -> int:
        """Return the size of all grammars that are remembered."""
        return sum(c.memory_bytes() for c in self._known.values())

    def clear(self) -> None:
        """Forget all grammars."""
        with self._lock:
            self._known.clear()


def serialize(compiled: CompiledGrammar) -> bytes:
    """Return bytes from which ``deserialize`` makes the same compiled grammar."""
    text = compiled.text.encode()
    head = _MAGIC + struct.pack("<Q", compiled.vocabulary.fingerprint) + text
    return head + hashlib.sha256(head).digest()


def deserialize(data: bytes, tokenizer_info: TokenizerInfo) -> CompiledGrammar:
    """Return the compiled grammar that ``serialize`` wrote for the same tokenizer.

    Raises:
        ValueError: the data is not of this version, changed, or for another tokenizer.
    """
    head, digest = data[:-32], data[-32:]
    if not head.startswith(_MAGIC) or hashlib.sha256(head).digest() != digest:
        raise ValueError("deserialize: expected what serialize wrote, got something else")
    (fingerprint,) = struct.unpack_from("<Q", head, len(_MAGIC))
    if fingerprint != tokenizer_info.native.fingerprint:
        raise ValueError("deserialize: the grammar was compiled for another tokenizer")
    return Compiler(tokenizer_info).compile(head[len(_MAGIC) + 8 :].decode())
