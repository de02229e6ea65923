"""JSON schemas for ``Grammar.from_json_schema``: what counts as one, and its options."""

import json
from collections.abc import Mapping
from typing import Any

from .._C import grammar as _native
from .tokenizer import TokenizerInfo

SchemaSource = str | bool | Mapping[str, Any] | type | Any

_FLEX_GAP = r"[ \t\n\r]{{0,{}}}"
_WORDS = {"order": ("schema", "any"), "escapes": ("needed", "all")}
_FORMATS = ("known", "strict", "off")


def schema_text(schema: SchemaSource) -> str:
    """Return a schema as JSON: text is taken as it is, pydantic models and types say theirs.

    Raises:
        TypeError: it is none of them.
    """
    if isinstance(schema, str):
        return schema
    if isinstance(schema, (bool, Mapping)):
        return json.dumps(schema, ensure_ascii=False)
    if hasattr(schema, "model_json_schema"):
        return json.dumps(schema.model_json_schema(), ensure_ascii=False)
    try:
        from pydantic import TypeAdapter  # for types that are no models

        made = TypeAdapter(schema).json_schema()
    except ImportError:
        kind = type(schema).__name__
        raise TypeError(f"schema: expected text, a dict or a pydantic type, got {kind}") from None
    except Exception as error:
        raise TypeError(f"schema: expected text, a dict or a pydantic type: {error}") from None
    return json.dumps(made, ensure_ascii=False)


def native_options(options: Mapping[str, Any]) -> _native.SchemaOptions:
    """Return the options of ``Grammar.from_json_schema`` as the native ones.

    Raises:
        ValueError: a word that is none of the choices, or a negative count.
    """
    for name, choices in _WORDS.items():
        if options.get(name, choices[0]) not in choices:
            raise ValueError(f"{name}: expected one of {choices}, got {options[name]!r}")
    out = _native.SchemaOptions()
    out.formats = options.get("formats", "known")
    if out.formats not in _FORMATS:
        raise ValueError(f"formats: expected one of {_FORMATS}, got {out.formats!r}")
    out.any_order = options.get("order") == "any"
    out.every_escape = options.get("escapes") == "all"
    for name in ("strict", "lenient", "integer_fraction"):
        setattr(out, name, bool(options.get(name)))
    registry = options.get("registry") or {}
    out.registry = [(uri, schema_text(schema)) for uri, schema in registry.items()]
    _set_layout(out, options)
    return out


def _set_layout(out: _native.SchemaOptions, options: Mapping[str, Any]) -> None:
    whitespace = options.get("whitespace", "flex")
    separators = options.get("separators")
    if isinstance(whitespace, int):
        if whitespace < 0:
            raise ValueError(f"whitespace: expected at least 0 spaces, got {whitespace}")
        out.indent = whitespace
        separators = separators or (",", ": ")
    elif whitespace == "flex":
        limit = options.get("max_whitespace", 64)
        if limit is not None and limit < 0:
            raise ValueError(f"max_whitespace: expected at least 0, got {limit}")
        out.gap = _FLEX_GAP.format("" if limit is None else limit)
    elif whitespace != "compact":
        out.gap = f"(?:{whitespace})?"
    if separators is not None:
        out.item_separator, out.key_separator = separators


def schema_grammar(schema: SchemaSource, options: Mapping[str, Any]) -> _native.Grammar:
    """Return the native grammar of a schema; see ``Grammar.from_json_schema``."""
    return _native.schema_grammar(schema_text(schema), native_options(options))


def explain(schema: SchemaSource, **options: Any) -> list[str]:
    """Return every keyword of a schema that cannot be honoured: pointer, keyword and reason.

    Args:
        schema: as in ``Grammar.from_json_schema``.
        options: likewise.
    """
    return _native.explain_schema(schema_text(schema), native_options(options))


def structural_tag(
    tag: str | Mapping[str, Any], tokenizer_info: TokenizerInfo | None, options: Mapping[str, Any]
) -> _native.Grammar:
    """Return the native grammar of a structural tag; see ``Grammar.from_structural_tag``."""

    def token_of(text: str) -> int:
        if tokenizer_info is None:
            raise ValueError(f"structural tag: the token {text!r} needs tokenizer_info")
        wanted = text.encode()
        for token in range(tokenizer_info.vocab_size):
            if tokenizer_info.token_bytes(token) == wanted:
                return token
        raise ValueError(f"structural tag: the tokenizer has no token {text!r}")

    source = tag if isinstance(tag, str) else json.dumps(tag, ensure_ascii=False)
    return _native.structural_tag(source, native_options(options), token_of)
