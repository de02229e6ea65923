"""The decode loop, the Transformers' processor, XGrammar's names, the command line."""

import re

import pytest
import torch
from decode.toys import FunctionModel
from grammar.machines import allowed, small_info

import lmx
import lmx.compat.xgrammar as xgr
from lmx.cli import main
from lmx.decode import Sampling
from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo
from lmx.grammar.constraint import GrammarConstraint, parse
from lmx.hf import GrammarLogitsProcessor
from lmx.protocols import DraftTree

BYTES = TokenizerInfo([b"", *(bytes([b]) for b in range(1, 256))], stop_ids=[0])


def babble(vocab_size: int = 256) -> FunctionModel:
    """Logits that depend on position and token, without any preference for what is legal."""

    def logits(position: int, token: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1000 * position + token)
        return torch.randn(vocab_size, generator=generator)

    return FunctionModel(logits, vocab_size)


def compiled(text: str, info: TokenizerInfo = BYTES):
    return Compiler(info).compile(Grammar.from_regex(text))


@pytest.mark.parametrize("pattern", [r"\d{3}-[a-c]+!", "(yes|no)( maybe){2,5}", r"[^\x00-\x7f]{4}"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generated_texts_match(pattern, temperature):
    constraint = GrammarConstraint(compiled(pattern))
    settings = [Sampling(temperature=temperature, seed=i) for i in range(4)]
    prompts = [[65 + i] for i in range(4)]
    answers = lmx.generate(
        babble(), prompts, max_new_tokens=200, constraint=constraint, sampling=settings
    )
    for answer in answers:
        assert answer.error is None
        text = bytes(answer.tokens).decode()
        assert re.fullmatch(pattern, text.rstrip("\0")) or answer.finish_reason == "length"
        assert Matcher(constraint.compiled).validate(answer.tokens) == len(answer.tokens)
        assert answer.stats.mask_time > 0


def test_masks_of_a_draft():
    info = small_info("a", "b", "ab")
    constraint = GrammarConstraint(compiled("(ab)+", info)).start()
    constraint.advance([0])
    tree = DraftTree(
        tokens=torch.tensor([0, 1, 0, 2]),
        parents=torch.tensor([-1, 0, 0, 1], dtype=torch.int32),
        indptr=torch.tensor([0, 4], dtype=torch.int32),
    )
    masks = constraint.masks(tree)
    assert masks[:, 0].tolist() == [0b0010, 0b1101, 0, 0b1101]
    with pytest.raises(ValueError, match="the grammar does not allow token 0 here"):
        constraint.advance([0])


@pytest.mark.parametrize("text", ["jsonx", "regex:", "ebnf:", "schema:", "schemas:f", ""])
def test_short_strings(text, tmp_path):
    with pytest.raises(ValueError, match="expected one of: json, regex:PATTERN, ebnf:FILE"):
        parse(text)
    path = tmp_path / "g"
    path.write_text('root ::= "é"', encoding="utf-8")
    assert str(parse(f"ebnf:{path}")) == 'root ::= "\\u00E9"\n'
    assert str(parse("regex:a:b")) == 'root ::= Regex("a:b")\n'
    assert "value ::=" in str(parse("json"))


def test_a_model_without_a_tokenizer():
    with pytest.raises(ValueError, match="constraint: expected a model with a tokenizer"):
        lmx.generate(babble(), [[1]], constraint="json")


def test_processor():
    processor = GrammarLogitsProcessor(compiled("ab|cd"))
    ids = torch.tensor([[5, 6], [7, 8]])
    scores = torch.zeros(2, 256)
    for column, expected in (("ac", ("b", "d")), ("bd", ("\0", "\0"))):
        out = processor(ids, scores)
        assert torch.equal(scores, torch.zeros(2, 256))
        ids = torch.cat((ids, torch.tensor([[ord(column[0])], [ord(column[1])]])), dim=1)
        after = processor(ids, scores)
        for row in range(2):
            assert after[row].isfinite().nonzero().flatten().tolist() == [ord(expected[row])]
        assert out[0].isfinite().sum() <= 2
    swapped = processor(ids.flip(0), scores)  # beam search has moved the rows
    assert swapped[0].isfinite().nonzero().flatten().tolist() == [0]
    with pytest.raises(ValueError, match="row 0: the grammar does not allow token 1 there"):
        processor(torch.cat((ids, torch.ones(2, 1, dtype=torch.int64)), dim=1), scores)


# ---- XGrammar's names --------------------------------------------------------------------------


def test_xgrammar_names():
    vocab = ["a", "b", "ab", '"', "</s>"]
    info = xgr.TokenizerInfo(vocab, xgr.VocabType.RAW, vocab_size=40)
    assert info.stop_token_ids == [4] and info.decoded_vocab[2] == b"ab" and info.vocab_size == 40
    compiler = xgr.GrammarCompiler(info, max_threads=1)
    made = compiler.compile_grammar('root ::= "ab"+')
    assert compiler.compile_grammar(xgr.Grammar.from_ebnf('root ::= "ab"+')).native is made.native
    matcher = xgr.GrammarMatcher(made)
    bitmask = xgr.allocate_token_bitmask(2, 40)
    assert tuple(bitmask.shape) == xgr.get_bitmask_shape(2, 40) == (2, 2)
    assert matcher.fill_next_token_bitmask(bitmask, 1) and bitmask[1].tolist() == [0b101, 0]
    logits = torch.zeros(2, 40)
    xgr.apply_token_bitmask_inplace(logits, bitmask, indices=[1])
    assert logits[0].isfinite().all() and logits[1].isfinite().nonzero().flatten().tolist() == [
        0,
        2,
    ]
    assert matcher.find_jump_forward_string() == "ab"
    assert matcher.accept_token(2) and not matcher.accept_token(1) and matcher.is_completed()
    twin = matcher.fork()
    assert matcher.accept_string("ab") and matcher.accept_token(4) and matcher.is_terminated()
    assert not twin.is_terminated()
    matcher.rollback(2)
    assert not matcher.is_terminated()
    matcher.reset()
    xgr.reset_token_bitmask(bitmask)
    batch = xgr.BatchGrammarMatcher(2)
    batch.batch_fill_next_token_bitmask([matcher, twin], bitmask)
    assert bitmask[:, 0].tolist() == [0b101, 0b10101]
    assert batch.batch_accept_token([matcher, twin], [1, 0]) == [False, True]
    assert batch.batch_accept_string([twin], ["b"]) == [True]
    batch.batch_rollback([twin], 1)


def test_xgrammar_schemas_and_tags():
    info = xgr.TokenizerInfo([*(bytes([b]) for b in range(256)), "</s>"])
    compiler = xgr.GrammarCompiler(info, max_threads=1, enable_dynamic_compilation=True)

    def accepts(compiled: xgr.CompiledGrammar, text: str) -> bool:
        matcher = xgr.GrammarMatcher(compiled, terminate_without_stop_token=False)
        return matcher.accept_string(text) and matcher.is_completed()

    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {}},
        "required": ["a"],
    }
    compiled = compiler.compile_json_schema(schema)
    assert accepts(compiled, '{"a" :1}') and not accepts(compiled, '{"a": 1, "c": 2}')
    assert accepts(compiler.compile_json_schema(schema, strict_mode=False), '{"a": 1, "c": 2}')
    assert accepts(compiler.compile_json_schema(schema, any_order=True), '{"b": 1, "a": 2}')
    dumped = compiler.compile_json_schema(schema, any_whitespace=False)
    assert accepts(dumped, '{"a": 1, "b": [1, 2]}') and not accepts(dumped, '{"a":1}')
    lines = compiler.compile_json_schema(schema, any_whitespace=False, indent=2)
    assert accepts(lines, '{\n  "a": 1\n}')
    item = xgr.StructuralTagItem(begin="<f>", schema=schema, end="</f>")
    for tags in (
        compiler.compile_structural_tag([item], ["<f"]),
        compiler.compile_structural_tag(
            {
                "type": "structural_tag",
                "format": {
                    "type": "triggered_tags",
                    "triggers": ["<f"],
                    "tags": [
                        {
                            "begin": "<f>",
                            "content": {"type": "json_schema", "json_schema": schema},
                            "end": "</f>",
                        }
                    ],
                },
            }
        ),
    ):
        assert accepts(tags, 'hello <f>{"a": 1}</f> bye') and not accepts(tags, "<f>{}</f>")
    with pytest.raises(xgr.InvalidJSONError):
        xgr.Grammar.from_structural_tag("{")
    with pytest.raises(xgr.InvalidStructuralTagError, match="unknown type"):
        xgr.Grammar.from_structural_tag({"type": "x"})


def test_xgrammar_draft_tree():
    info = xgr.TokenizerInfo(["a", "b", "ab", "</s>"])
    matcher = xgr.GrammarMatcher(xgr.GrammarCompiler(info).compile_regex("(ab)+"))
    assert matcher.accept_token(0)
    #     0(a) -> 1(b) -> 3(ab); 2(a), the sibling of 1, may not follow
    child, sibling = torch.tensor([1, 3, -1, -1]), torch.tensor([-1, 2, -1, -1])
    bitmask = xgr.allocate_token_bitmask(4, 4)
    tokens = torch.tensor([0, 1, 0, 2])
    assert matcher.traverse_draft_tree(child, sibling, tokens, bitmask)
    assert bitmask[:, 0].tolist() == [0b0010, 0b1101, 0, 0b1101]
    with pytest.raises(ValueError, match="each node once"):
        matcher.traverse_draft_tree(torch.tensor([0]), torch.tensor([-1]), tokens, bitmask)


# ---- the command line ----------------------------------------------------------------------------


def test_grammar_check(tmp_path, capsys):
    path = tmp_path / "list.ebnf"
    path.write_text('root ::= item ("," item)*\nitem ::= [a-z]+\n')
    words = ["grammar", "check", str(path), "--text", "a,b"]
    assert main([*words, "--print"]) == 0
    out = capsys.readouterr().out
    assert "2 rules" in out and "yes: a,b" in out and 'root ::= item ("," item)*' in out
    assert main([*words, "--text", "a,,", "--text", "a,"]) == 1
    out = capsys.readouterr().out
    assert "no: a,,: byte 2 is not allowed" in out and "no: a,: it must go on" in out
    path.write_text("root ::= (")
    assert main(["grammar", "check", str(path)]) == 2
    assert "lmx: grammar:1:11: expected ) that ends a group" in capsys.readouterr().err
    assert main(["grammar", "check", str(tmp_path / "none")]) == 2


def test_equal_masks_share_an_id():
    m = Matcher(compiled("a{0,500}"))
    info = BYTES
    assert m.accept_many([97] * 10) == 10
    first, mask = m.mask_id(), allowed(m, info)
    assert m.accept(97) and m.mask_id() == first and allowed(m, info) == mask
