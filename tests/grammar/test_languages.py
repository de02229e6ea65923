"""What EBNF, patterns and the built-in JSON mean, and what is refused, with which words."""

import json
import random
import re

import pytest
from grammar.machines import allowed, matcher, small_info

from lmx.errors import (
    GrammarError,
    GrammarLimitError,
    GrammarSyntaxError,
    UnsupportedRegexError,
)
from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo

BYTES = TokenizerInfo([bytes([b]) for b in range(256)])
COMPILER = Compiler(BYTES)


def accepts(grammar: Grammar | str, text: str | bytes) -> bool:
    m = Matcher(COMPILER.compile(grammar))
    return m.accept_bytes(text) and m.is_completed()


EBNF = [
    (r'root ::= "\x41\u0042\U00000043\n\t\"\\\/\e\0"', ['ABC\n\t"\\/\x1b\0'], ["ABC"]),
    ('root ::= "a"* "b"+ "c"? "d"{2} "e"{1,} "f"{0,2} "g"{,1}', ["bdde", "aabbcddeeffg"], ["bde"]),
    ("root ::= [a-c] [^a-c] [^] [\\]\\-^] .", ["ad\n]x", "b\u00e9c^\U0001f600"], ["aa\n]x"]),
    ('root ::= a b # rule\na ::= "x"\n  | "y" b\nb ::= "" | "z"', ["x", "xz", "yzz"], ["z"]),
    ('root ::= root "+" "1" | "1"', ["1", "1+1+1"], ["", "+1", "1+"]),
    ('root ::= a\na ::= b "x" | "y"\nb ::= c\nc ::= a | ""', ["y", "x", "yx", "xxx"], ["", "xy"]),
    ('root ::= root root | "a" | ""', ["", "a", "aaaa"], ["b"]),
    ('root ::= "a" | "b" (= "c")', ["a", "b"], ["bc"]),
    ('root ::= Regex("a.c", flags="s") | Regex("[x-z]{2}", "i")', ["a\nc", "Xy"], ["ac", "x"]),
    ('root ::= Substring("one ", "two ", "three ")', ["", "two three ", "one "], ["one three "]),
    ('root ::= TagDispatch(("<a>", "x" "</a>"), ("<b>", inner))\ninner ::= [0-9]+',
     ["", "hi", "t<a>x</a>u<b>1", "<"], ["<a>y", "<a>", "<b>x"]),
    ('root ::= TagDispatch(("<a>", "x"), loop_after_dispatch=false, excludes=("no"))',
     ["", "n", "n<a>x"], ["no", "<a>xy", "ano<a>x"]),
    ('root ::= "\\u00e9" [\\u0100-\\u017f]', ["\u00e9\u0101"], ["\u00e9a"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "good", "bad"), EBNF)
def test_ebnf(text, good, bad):
    grammar = Grammar.from_ebnf(text)
    printed = Grammar.from_ebnf(str(grammar))
    assert str(printed) == str(grammar)
    for g in (grammar, printed):
        for word in good:
            assert accepts(g, word), word
        for word in bad:
            assert not accepts(g, word), word


SYNTAX = [
    ("root ::= (", "grammar:1:11: expected ) that ends a group, got the end"),
    ('root ::= "a', 'grammar:1:12: expected " that ends the string of grammar:1:10:'),
    ('x ::= "a"\n  root = "b"', "grammar:2:8: expected an expression or a new rule, got '='"),
    ('root ::= "a" ::= "b"', "grammar:1:14: expected an expression or a new rule, got ':'"),
    ("root ::= [a", "grammar:1:12: expected ] that ends the class of grammar:1:10:"),
    ("root ::= []", "expected a class with members"),
    ("root ::= [z-a]", "expected a class whose ranges go upwards"),
    ('root ::= "\\q"', "expected an escape that is known, got 'q'"),
    ("root ::= [\\d]", "no \\d in a class: write the ranges, such as 0-9"),
    ('root ::= "a"+*', "expected one repetition per element (write (x+)+), got '*'"),
    ('root ::= "a"{3,2}', "expected {m,n} with m <= n, got {3,2}"),
    ('root ::= "a"{-1}', "expected a count of at least 0, got '-'"),
    ('root ::= "a"{2147483648}', "expected a number up to 2147483647"),
    ('root ::= "\\uD800"', "expected an escape of a Unicode scalar value"),
    ('root ::= "a" )', "expected an expression or a new rule, got ')'"),
    ("", "grammar:1:1: expected a rule, name ::= ..., got the end"),
    ("root ::= " + "(" * 2001 + '"a"' + ")" * 2001, "parentheses nested more than 2000 deep"),
]


@pytest.mark.parametrize(("text", "message"), SYNTAX)
def test_syntax_errors(text, message):
    with pytest.raises(GrammarSyntaxError, match=re.escape(message)):
        Grammar.from_ebnf(text)


ERRORS = [
    ('root ::= "a" b', "grammar:1:14: undefined rule b"),
    ('root ::= "a"\nroot ::= "b"', "grammar:2:1: duplicate rule root"),
    ('start ::= "a"', "grammar: no rule root, which is to be the root"),
    ("root ::= root", "grammar admits no string: rule root never ends"),
    ('root ::= "a" x\nx ::= "b" x', "grammar admits no string: rule root never ends"),
    ("root ::= Token(99999)", "expected token ids in [0, 256), got 99999"),
    ('root ::= TagDispatch(("ab", "x"), ("b", "y"))', '"b" is a part of "ab"'),
    ('root ::= TagDispatch(("", "x"))', 'expected tags and excludes, got ""'),
    ('root ::= TokenTagDispatch((1, "a"), excludes=(1))', "token 1 is both a tag and excluded"),
    ('root ::= a[max_tokens=3]\na ::= "x"', "budgets of rules (max_tokens, max_chars) are not"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_errors(text, message):
    with pytest.raises(GrammarError, match=re.escape(message)):
        COMPILER.compile(text)


def test_invalid_utf8_in_a_grammar():
    with pytest.raises(GrammarSyntaxError, match="invalid UTF-8 at byte 10"):
        Grammar.from_ebnf(b'root ::= "\xff"')


def test_unused_rules_cycles_and_the_empty_text():
    assert accepts('root ::= "a"\nx ::= x', "a")
    assert accepts('root ::= root | ""', "")
    info = small_info("a")
    assert allowed(matcher('root ::= ""', info), info) == {1}


@pytest.mark.parametrize(
    ("pattern", "flags", "good", "bad"),
    [
        (r"\d+\.\d{2}", "", ["3.14"], ["3.1", "\u0663.14"]),
        (r"\w\W\s\S\D", "", ["a- bc", "_\u00e9\u00a0..", "0-\ufeff_x"], ["--xyz"]),
        (r"a.c", "", ["abc", "a\u00e9c"], ["a\nc", "a\u2028c"]),
        (r"\x41\u0042\u{43}\cJ\u{1F600}\uD83D\uDE00", "", ["ABC\n\U0001f600\U0001f600"], ["ABC"]),
        (r"(?<year>\d{4})-(?:a|b)+?c*+", "", ["2024-abcc"], ["24-a"]),
        (r"stra\u00dfe|\u00c4", "i", ["STRA\u00dfE", "\u00e4"], ["strasse"]),
        (r"^a$|^b", "", ["a", "b"], ["ab"]),
        (r"(^a|x^b)c$", "", ["ac"], ["xbc"]),
        (r"(?:^\w+$\n?)+", "m", ["ab\ncd", "ab\n"], ["\n"]),
        (r"\bfoo\b.*", "", ["foo", "foo bar"], ["foobar"]),
        (r".*\Boo", "", ["foo"], ["oo", "f oo"]),
        (r"(?=.*\d)(?=.*[a-z]).{3,5}", "", ["a1b", "12c"], ["abc", "123", "a1bcde"]),
        (r"(?!con|aux)\w+", "", ["file", "co"], ["con", "console", "aux"]),
        (r".*(?<=ab)c(?<!abc)d|x(?<!y)z", "", ["xz"], ["abcd"]),
        (r"\w+(?<!ing)", "", ["sing2", "in"], ["sing"]),
        (r"\p{Lu}\p{L}*\P{L}\p{Script=Greek}\p{Nd}", "", ["\u00c9a!\u03b1\u0663"], ["ea!\u03b11"]),
        (r"[\w-]+[^\d\s][\]\b]", "", ["a-_]", "ab\b"], ["a1]"]),
        (r"a{,3}|{b}", "", ["a{,3}", "{b}"], ["aaa"]),
    ],
)
def test_patterns(pattern, flags, good, bad):
    grammar = Grammar.from_regex(pattern, flags)
    for word in good:
        assert accepts(grammar, word), word
    for word in bad:
        assert not accepts(grammar, word), word


def test_search():
    grammar = Grammar.from_regex("b+$|^x", search=True)
    for word, is_in in {"aab": True, "xa": True, "ba": False, "ax": False, "b": True}.items():
        assert accepts(grammar, word) == is_in


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("(a", GrammarSyntaxError, "regex: at 2: expected ) that ends a group, got the end"),
        ("a)", GrammarSyntaxError, "regex: at 1: expected the end or |, got ')'"),
        ("*a", GrammarSyntaxError, "regex: at 0: expected something to repeat, got '*'"),
        ("a**", GrammarSyntaxError, "regex: at 2: expected one quantifier, got '*'"),
        ("[b-a]", GrammarSyntaxError, "regex: at 2: expected a range that goes upwards"),
        ("[a", GrammarSyntaxError, "regex: at 2: expected ] that ends a class, got the end"),
        ("a{3,2}", GrammarSyntaxError, "regex: at 1: expected {m,n} with m <= n, got {3,2}"),
        (r"(a)\1", UnsupportedRegexError, "regex: at 3: a backreference is not supported"),
        (r"\k<n>", UnsupportedRegexError, "regex: at 0: a backreference is not supported"),
        ("(?(1)a|b)", UnsupportedRegexError, "regex: at 0: a conditional is not supported"),
        ("(?>a)", UnsupportedRegexError, "regex: at 0: an atomic group is not supported"),
        (r"\q", UnsupportedRegexError, r"regex: at 0: the escape \q is not supported"),
        (r"\p{No_Such}", UnsupportedRegexError, "regex: at 0: the property No_Such is not"),
    ],
)
def test_pattern_errors(pattern, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Grammar.from_regex(pattern)


def test_no_text_at_all():
    with pytest.raises(GrammarError, match="admits no string: rule root never ends"):
        COMPILER.compile(Grammar.from_regex("(?=a)b"))


# ---- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'root ::= "a"{0,10000} "b"',
        'root ::= "a"{1000}',
        'root ::= ("x" "a"{0,1000} "y"){0,1000}',
        'root ::= ("a" | "aa"){0,10000}',
        'root ::= Regex("(a|a)*")',
        'root ::= Regex("(.*a.{20})")',
        'root ::= Regex("' + "|".join(f".{{{i}}}a" for i in range(50)) + '")',
    ],
)
def test_large_counts_and_exponential_patterns(text):
    info = small_info("a", "aa", "aaaa", "x", "xa", "y", "b", "ab")
    m = matcher(text, info)
    for _ in range(200):
        tokens = allowed(m, info)
        token = next(t for t in (2, 1, 0, 3, 4, 5, 6, 7, 8) if t in tokens)
        assert m.accept(token)
    assert m.steps == 200


def test_exact_counts():
    m = Matcher(COMPILER.compile('root ::= "a"{300,400}'))
    assert m.accept_bytes("a" * 299) and not m.is_completed()
    assert m.accept_bytes("a") and m.is_completed()
    assert m.accept_bytes("a" * 100) and not m.accept_bytes("a") and m.is_completed()


def test_a_limit_leaves_the_matcher_as_it_was():
    # Every subset of the last 14 characters is a state of its own.
    info = small_info(
        "a", "b", *("".join("ab"[i >> k & 1] for k in range(14)) for i in range(2000))
    )
    text = 'root ::= x*\nx ::= [ab]* "a" ' + "[ab] " * 14
    m = Matcher(Compiler(info, max_steps=300).compile(text))
    assert m.accept(0)
    with pytest.raises(GrammarLimitError, match="the budget of steps is used up"):
        for _ in range(1):
            allowed(m, info)
    assert m.steps == 1 and m.accept(1)
    slow = Matcher(Compiler(info).compile(text))
    assert slow.accept(0)
    assert len(allowed(slow, info)) > 2000


def test_deep_nesting_of_texts():
    m = Matcher(COMPILER.compile(Grammar.json()))
    assert m.accept_bytes("[" * 100_000) and m.accept_bytes("]" * 100_000) and m.is_completed()


def test_budget_of_assertions():
    with pytest.raises(GrammarLimitError, match="assertions"):
        COMPILER.compile(Grammar.from_regex("(?=.*a.{30}b)(?=.*c.{30}d).*"))


# ---- the built-in JSON ---------------------------------------------------------------------------


def random_json(rng: random.Random, depth: int = 3):
    kind = rng.randrange(7 if depth else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.randrange(-(10**6), 10**6)
    if kind == 2:
        return rng.uniform(-1e6, 1e6) * 10.0 ** rng.randrange(-20, 20)
    if kind in (3, 4):
        return "".join(rng.choice('ab"\\/\n\té中😀\x7f') for _ in range(rng.randrange(6)))
    items = [random_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    return items if kind == 5 else {f"k{i}": item for i, item in enumerate(items)}


def test_json_texts():
    flex, compact = Grammar.json(), Grammar.json(whitespace="compact")
    rng = random.Random(0)
    for _ in range(300):
        value = random_json(rng)
        assert accepts(flex, json.dumps(value, indent=rng.choice((None, 2))))
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        assert accepts(compact, text)
        at = rng.randrange(len(text) + 1)
        for damaged in (text[:at] + rng.choice('x"]},:0') + text[at:], text[:at] + text[at + 1 :]):
            try:
                json.loads(damaged)
                is_json = damaged == damaged.strip()
            except ValueError:
                is_json = False
            if not is_json:
                assert not accepts(flex, damaged), damaged


@pytest.mark.parametrize(
    "text", ["01", "1.", ".5", "+1", "1e", '"\\x"', '"\n"', '"\\ud800"', '"\\udc00"', " 1", "nul"]
)
def test_no_json(text):
    assert not accepts(Grammar.json(), text)


def test_json_options():
    containers = Grammar.json(only_containers=True)
    assert accepts(containers, "[1]") and not accepts(containers, "1")
    assert not accepts(Grammar.json(whitespace="compact"), "[1, 2]")
    assert accepts(Grammar.json(whitespace=" ?"), "[1, 2]")
    long = "[" + " " * 65 + "1]"
    assert not accepts(Grammar.json(), long)
    assert accepts(Grammar.json(max_whitespace=None), long)
    assert accepts(Grammar.json(), '"\\ud83d\\ude00"')


@pytest.mark.parametrize("indent", [0, 1, 4])
def test_indented_json(indent):
    grammar = Grammar.json(indent=indent, max_depth=3)
    rng = random.Random(indent)
    for _ in range(60):
        value = random_json(rng)
        text = json.dumps(value, indent=indent)
        assert accepts(grammar, text), text
        if "\n" in text:
            assert not accepts(grammar, json.dumps(value, indent=indent + 1))
            assert not accepts(grammar, json.dumps(value))
    assert accepts(grammar, json.dumps([[[1]]], indent=indent))
    assert not accepts(grammar, json.dumps([[[[1]]]], indent=indent))
    containers = Grammar.json(indent=indent, only_containers=True)
    assert accepts(containers, "{}") and not accepts(containers, "1")


def test_bad_indents():
    for options in ({"indent": -1}, {"indent": 2, "max_depth": 0}, {"indent": 2, "whitespace": ""}):
        with pytest.raises(ValueError, match=r"expected indent in \[0, 32\]"):
            Grammar.json(**options)


def test_union_and_concat():
    a, b = Grammar.from_ebnf('root ::= x\nx ::= "a"'), Grammar.from_ebnf('root ::= x\nx ::= "b"')
    both = Grammar.union([a, b])
    assert accepts(both, "a") and accepts(both, "b") and not accepts(both, "ab")
    assert accepts(Grammar.concat([a, b]), "ab") and not accepts(Grammar.concat([a, b]), "a")
