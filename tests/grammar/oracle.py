"""What a grammar means, by brute force: Earley's algorithm over bytes, and derivatives of patterns.

Neither shares anything with the engine: grammars are nested tuples here, and text for lmx.

    ("lit", b"...")  ("set", frozenset of bytes)  ("seq", [e, ...])  ("alt", [e, ...])
    ("rep", e, min, max or None)  ("ref", name)
"""

import random
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

Expr = tuple[Any, ...]
Rules = dict[str, Expr]


# ---- grammars: text, productions, Earley -----------------------------------------------------


def spelled(e: Expr) -> str:
    """The expression as EBNF."""
    kind = e[0]
    if kind == "lit":
        return '"' + e[1].decode() + '"'
    if kind == "set":
        return "[" + "".join(map(chr, sorted(e[1]))) + "]"
    if kind == "ref":
        return e[1]
    if kind == "rep":
        low, high = e[2], "" if e[3] is None else e[3]
        return f"({spelled(e[1])}){{{low},{high}}}"
    return "(" + (" " if kind == "seq" else " | ").join(map(spelled, e[1])) + ")"


def as_text(rules: Rules) -> str:
    return "".join(f"{name} ::= {spelled(e)}\n" for name, e in rules.items())


class Productions:
    """Context-free productions; a symbol is a name or a set of bytes."""

    def __init__(self, rules: Rules) -> None:
        self.of: dict[str, list[tuple]] = {}
        self._new = 0
        for name, e in rules.items():
            self.of[name] = [tuple(self._symbols(e))]

    def _fresh(self, bodies: list[tuple]) -> str:
        self._new += 1
        name = f"#{self._new}"
        self.of[name] = bodies
        return name

    def _symbols(self, e: Expr) -> list:
        kind = e[0]
        if kind == "lit":
            return [frozenset([b]) for b in e[1]]
        if kind == "set":
            return [e[1]]
        if kind == "ref":
            return [e[1]]
        if kind == "seq":
            return [s for part in e[1] for s in self._symbols(part)]
        if kind == "alt":
            return [self._fresh([tuple(self._symbols(part)) for part in e[1]])]
        body = self._fresh([tuple(self._symbols(e[1]))])
        out = [body] * e[2]
        if e[3] is None:
            star = self._fresh([()])
            self.of[star].append((body, star))
            return [*out, star]
        for _ in range(e[3] - e[2]):
            option = self._fresh([(), (body,)])
            out.append(option)
        return out


class Earley:
    """Reads bytes one by one. A chart that has only productive symbols is a viable prefix."""

    def __init__(self, rules: Rules, root: str = "root") -> None:
        self.of = Productions(rules).of
        self.nullable = self._fixpoint(lambda s, done: isinstance(s, str) and s in done)
        productive = self._fixpoint(lambda s, done: not isinstance(s, str) or s in done)
        self.of = {
            name: [b for b in bodies if all(not isinstance(s, str) or s in productive for s in b)]
            for name, bodies in self.of.items()
        }
        self.is_empty = root not in productive
        self.root = root
        self.charts = [self._close({("^", (root,), 0, 0)}, [])]

    def _fixpoint(self, ok) -> set[str]:
        done: set[str] = set()
        while True:
            more = {
                name
                for name, bodies in self.of.items()
                if name not in done and any(all(ok(s, done) for s in body) for body in bodies)
            }
            if not more:
                return done
            done |= more

    def _close(self, kernel: set, charts: list) -> set:
        here = len(charts)
        items, todo = set(kernel), list(kernel)

        def add(item) -> None:
            if item not in items:
                items.add(item)
                todo.append(item)

        while todo:
            name, body, dot, origin = todo.pop()
            if dot == len(body):
                for other in list(items if origin == here else charts[origin]):
                    if other[2] < len(other[1]) and other[1][other[2]] == name:
                        add((*other[:2], other[2] + 1, other[3]))
                continue
            symbol = body[dot]
            if isinstance(symbol, str):
                for production in self.of[symbol]:
                    add((symbol, production, 0, here))
                if symbol in self.nullable:
                    add((name, body, dot + 1, origin))
        return items

    def read(self, byte: int) -> bool:
        """Take one more byte; False, and nothing changes, if no text begins so."""
        kernel = {
            (name, body, dot + 1, origin)
            for name, body, dot, origin in self.charts[-1]
            if dot < len(body) and not isinstance(body[dot], str) and byte in body[dot]
        }
        if not kernel:
            return False
        self.charts.append(self._close(kernel, self.charts))
        return True

    def unread(self) -> None:
        self.charts.pop()

    @property
    def is_complete(self) -> bool:
        return ("^", (self.root,), 1, 0) in self.charts[-1]

    def look(self, text: bytes, depth: int) -> dict[bytes, bool]:
        """Every viable prefix up to a depth, and whether it is complete, from where we are."""
        found = {text: self.is_complete}
        if len(text) < depth:
            for byte in b"ab":
                if self.read(byte):
                    found |= self.look(text + bytes([byte]), depth)
                    self.unread()
        return found


def random_rules(rng: random.Random, letters: bytes = b"ab") -> Rules:
    """Up to 6 rules with every kind of recursion, empty rules, and rules that never end."""
    names = ["root", "p", "q", "r", "s", "t"][: rng.randint(1, 6)]

    def expr(depth: int) -> Expr:
        kind = rng.choice(("lit", "lit", "set", "ref", "ref", "seq", "seq", "alt", "alt", "rep"))
        if depth == 0 and kind in ("seq", "alt", "rep"):
            kind = "lit"
        if kind == "lit":
            return ("lit", bytes(rng.choices(letters, k=rng.choice((0, 1, 1, 2)))))
        if kind == "set":
            return ("set", frozenset(rng.sample(letters, rng.randint(1, len(letters)))))
        if kind == "ref":
            return ("ref", rng.choice(names))
        if kind == "rep":
            low = rng.choice((0, 0, 1, 2))
            high = rng.choice((None, low, low + 1, low + 2, 9, 12))
            return ("rep", expr(depth - 1), low, high)
        return (kind, [expr(depth - 1) for _ in range(rng.randint(2, 3))])

    return {name: expr(rng.choice((1, 2, 3))) for name in names}


# ---- patterns: derivatives (Brzozowski 1964) ----------------------------------------------------
# An expression is a number; equal ones are the same number, so there are finitely many derivatives.
# Lookaheads are intersections with what follows.

_nodes: list[tuple] = []
_numbers: dict[tuple, int] = {}


def _node(*parts: Any) -> int:
    if parts not in _numbers:
        _numbers[parts] = len(_nodes)
        _nodes.append(parts)
    return _numbers[parts]


NONE, EMPTY, EVERYTHING = _node("none"), _node("empty"), _node("all")


def _set(chars: Iterable[str]) -> int:
    return _node("set", frozenset(chars))


def _cat(e: int, f: int) -> int:
    if NONE in (e, f):
        return NONE
    if e == EMPTY:
        return f
    if _nodes[e][0] == "cat":
        return _cat(_nodes[e][1], _cat(_nodes[e][2], f))
    return e if f == EMPTY else _node("cat", e, f)


def _join(kind: str, unit: int, zero: int, parts: Iterable[int]) -> int:
    """A union or intersection: a set of parts, none of them of its own kind."""
    flat: set[int] = set()
    for e in parts:
        flat |= _nodes[e][1] if _nodes[e][0] == kind else {e}
    if zero in flat:
        return zero
    flat.discard(unit)
    if len(flat) < 2:
        return flat.pop() if flat else unit
    return _node(kind, frozenset(flat))


def _alt(*parts: int) -> int:
    return _join("alt", NONE, EVERYTHING, parts)


def _and(*parts: int) -> int:
    return _join("and", EVERYTHING, NONE, parts)


def _not(e: int) -> int:
    if e in (NONE, EVERYTHING):
        return EVERYTHING if e == NONE else NONE
    return _node("not", e)


def _rep(e: int, low: int, high: int | None) -> int:
    return EMPTY if high == 0 else _node("rep", e, low, high)


@cache
def nullable(e: int) -> bool:
    kind, *parts = _nodes[e]
    if kind in ("none", "set"):
        return False
    if kind in ("empty", "all"):
        return True
    if kind == "rep":
        return parts[1] == 0 or nullable(parts[0])
    if kind == "not":
        return not nullable(parts[0])
    if kind == "cat":
        return nullable(parts[0]) and nullable(parts[1])
    return (any if kind == "alt" else all)(map(nullable, parts[0]))


@cache
def derivative(e: int, c: str) -> int:
    """What may follow ``c`` in a text of ``e``."""
    kind, *parts = _nodes[e]
    if kind in ("none", "empty"):
        return NONE
    if kind == "all":
        return e
    if kind == "set":
        return EMPTY if c in parts[0] else NONE
    if kind == "not":
        return _not(derivative(parts[0], c))
    if kind in ("alt", "and"):
        return (_alt if kind == "alt" else _and)(*(derivative(p, c) for p in parts[0]))
    if kind == "cat":
        first = _cat(derivative(parts[0], c), parts[1])
        return _alt(first, derivative(parts[1], c)) if nullable(parts[0]) else first
    body, low, high = parts
    low = 0 if nullable(body) else max(low - 1, 0)
    return _cat(derivative(body, c), _rep(body, low, None if high is None else high - 1))


def random_pattern(rng: random.Random, letters: str = "ab") -> tuple[str, int]:
    """A pattern and its meaning; lookaheads stand in top-level sequences only."""

    def atom(depth: int) -> tuple[str, int]:
        kind = rng.choice(("char", "char", "set", "not", "dot", "group", "group"))
        if depth == 0 and kind == "group":
            kind = "char"
        if kind == "char":
            c = rng.choice(letters)
            return c, _set(c)
        if kind in ("set", "not"):
            some = frozenset(rng.sample(letters, rng.randint(1, len(letters))))
            inside = "".join(sorted(some))
            if kind == "set":
                return f"[{inside}]", _set(some)
            return f"[^{inside}]", _set({*letters, "c", "\n"} - some)
        if kind == "dot":
            return ".", _set(letters + "c")
        text, e = branches(depth - 1)
        return rng.choice(("(%s)", "(?:%s)", "(?<n>%s)")) % text, e

    def piece(depth: int) -> tuple[str, int]:
        text, e = atom(depth)
        quantifier = rng.choice(("", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,11}", "{3,}"))
        spans = {"*": (0, None), "+": (1, None), "?": (0, 1), "{2}": (2, 2), "{1,3}": (1, 3)}
        spans |= {"{0,11}": (0, 11), "{3,}": (3, None)}
        if not quantifier:
            return text, e
        lazy = rng.choice(("", "?"))
        return text + quantifier + lazy, _rep(e, *spans[quantifier])

    def branches(depth: int) -> tuple[str, int]:
        text, e = series(depth, False)
        for _ in range(rng.choice((0, 0, 1))):
            more, f = series(depth, False)
            text, e = f"{text}|{more}", _alt(e, f)
        return text, e

    def series(depth: int, is_top: bool) -> tuple[str, int]:
        parts = [piece(depth) for _ in range(rng.randint(1, 3))]
        text, e = "", EMPTY
        for part_text, part in reversed(parts):
            text, e = part_text + text, _cat(part, e)
            if is_top and rng.random() < 0.3:
                inner, f = branches(1)
                is_negative = rng.random() < 0.5
                text = f"(?{'!' if is_negative else '='}{inner})" + text
                ahead = _cat(f, EVERYTHING)
                e = _and(_not(ahead) if is_negative else ahead, e)
        return text, e

    text, e = series(2, True)
    for _ in range(rng.choice((0, 0, 1))):
        more, f = series(2, True)
        text, e = f"{text}|{more}", _alt(e, f)
    return text, e


class TooLarge(Exception):
    """A pattern with more derivatives than a test has time for."""


_alive: dict[int, bool] = {NONE: False}


def is_alive(start: int, letters: str) -> bool:
    """Whether some text over ``letters`` is in the language: a search over derivatives."""
    if start not in _alive:
        seen, todo = {start}, [start]
        found = False
        while todo and not found:
            here = todo.pop()
            if len(seen) > 300:
                raise TooLarge
            found = nullable(here) or _alive.get(here, False)
            for c in letters:
                after = derivative(here, c)
                if after not in seen and _alive.get(after, True):
                    seen.add(after)
                    todo.append(after)
        _alive[start] = found
    return _alive[start]


def viable_words(e: int, letters: str, depth: int) -> Iterator[tuple[str, int]]:
    """Every prefix up to a depth that some text of the pattern begins with."""
    todo = [("", e)] if is_alive(e, letters) else []
    while todo:
        word, here = todo.pop()
        yield word, here
        if len(word) < depth:
            for c in letters:
                after = derivative(here, c)
                if is_alive(after, letters):
                    todo.append((word + c, after))
