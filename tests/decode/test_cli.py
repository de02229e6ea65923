import argparse
import json
import re
import subprocess
import sys

import pytest
import torch
from decode.toys import says, tiny

import lmx
from lmx.cli import main
from lmx.cli.options import add_model_options, load_model
from lmx.cli.terminal import escape


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a command on a model and returns (exit code, out, err)."""

    def run(model, *argv, stdin=""):
        monkeypatch.setattr("lmx.cli.options.load", lambda *args, **kwargs: model)
        lines = iter(stdin.splitlines())
        monkeypatch.setattr("sys.stdin.read", lambda: stdin, raising=False)
        monkeypatch.setattr("builtins.input", lambda prompt: next_line(lines))
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def next_line(lines):
    try:
        return next(lines)
    except StopIteration:
        raise EOFError from None


def test_generate_streams_one_answer(run):
    code, out, err = run(says("hello"), "generate", "--prompt", "?")
    assert (code, out) == (0, "hello\n")
    assert err.startswith("lmx: [0] 6 tokens, ") and err.endswith("tokens/s, eos\n")


def test_generate_answers_several_prompts(run):
    model = says("yes")
    code, out, _ = run(model, "generate", "--prompt", "?", "--prompt", "!", "--stop", "s")
    assert (code, out) == (0, "[0] ye\n[1] ye\n")


def test_generate_reads_standard_input(run):
    code, out, _ = run(
        says("yes", prompt="a\nb"), "generate", "--max-new-tokens", "2", stdin="a\nb"
    )
    assert (code, out) == (0, "ye\n")
    code, out, _ = run(says("yes", prompt="a\nb"), "generate", stdin="a\nb\n")  # as echo ends it
    assert (code, out) == (0, "yes\n")
    code, out, _ = run(says("yes", prompt="a\n"), "generate", stdin="a\n\n")
    assert (code, out) == (0, "yes\n")
    for stdin in ("", "\n"):
        code, _, err = run(says("yes"), "generate", stdin=stdin)
        assert (code, err) == (2, "lmx: no prompt: expected --prompt or text on standard input\n")


def test_generate_writes_json(run):
    code, out, _ = run(says("\x1b[31mé"), "generate", "--prompt", "?", "--prompt", "?", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(lines) == 2 and "\x1b" not in out
    stats = lines[0]["stats"]
    assert stats["mean_accepted"] == 1.0
    assert stats["tokens_per_s"] == pytest.approx(stats["tokens"] / stats["seconds"])
    assert lines[0]["text"] == "\x1b[31mé" and lines[0]["finish_reason"] == "eos"
    assert lines[0]["stats"]["prompt_tokens"] == 1


def test_model_text_is_escaped(run):
    _, out, _ = run(says("a\x1b]0;x\x07\tb\r\n\u202ec"), "generate", "--prompt", "?")
    assert out == "a\\x1b]0;x\\x07\tb\\x0d\n\\u202ec\n"
    assert escape("\x9b\x7f\u2066\N{SNOWMAN}") == "\\x9b\\x7f\\u2066\N{SNOWMAN}"
    assert escape("\N{ARABIC LETTER MARK}\u2028\xad") == "\\u061c\\u2028\\xad"
    assert escape("\N{TAG LATIN SMALL LETTER A}\ud800é😀") == "\\U000e0061\\ud800é😀"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate", "--prompt", "?", "--drafter", "guess"], "lmx: drafter='guess': exp"),
        (["generate", "--prompt", "?", "--constraint", "lark:f"], "lmx: constraint='lark:f':"),
        (["generate", "--prompt", "?", "--constraint", "schema:f"], "lmx: [Errno 2] No such file"),
        (["generate", "--prompt", "?", "--cache", "h2o"], "lmx: cache='h2o': no eviction policy"),
        (["generate", "--prompt", "?", "--depth", "skip"], "lmx: depth='skip': no depth policy is"),
        (["generate", "--prompt", "?", "--top-p", "2"], "lmx: top_p: expected a number in [0, 1]"),
        (["generate", "--prompt", "?" * 9], "lmx: [0] 0 tokens, 0.0 tokens/s, prompt: expected"),
        (["bench", "--repeats", "0"], "lmx: --repeats: expected an integer of at least 1, got 0"),
        (["bench", "--prompt-tokens", "9"], "lmx: prompt: expected at most 8 tokens, got 9"),
    ],
)  # fmt: skip
def test_errors_are_one_line(run, argv, message):
    code, _, err = run(says("a", max_positions=8), *argv)
    assert code == 2 and err.startswith(message) and err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate", "--top-k", "x"], "lmx generate: argument --top-k: invalid int value: 'x'\n"),
        ([], "lmx: the following arguments are required: COMMAND\n"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, argv, message):
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert capsys.readouterr().err == message


def test_chat_keeps_the_conversation(run, monkeypatch):
    model, seen = says("x", prompt="user: hi\n"), []
    template = model.tokenizer.apply_chat_template

    def spy(messages, **options):
        seen.append([dict(message) for message in messages])
        return template(messages, **options)

    monkeypatch.setattr(model.tokenizer, "apply_chat_template", spy)
    code, out, _ = run(model, "chat", "--system", "be", "--max-new-tokens", "3", stdin="hi\n\nbye")
    assert code == 0 and len(seen) == 2 and seen[0] == seen[1][:2]
    assert [message["role"] for message in seen[1]] == ["system", "user", "assistant", "user"]


def test_ctrl_c_stops_an_answer_of_the_chat(run, monkeypatch):
    model = says("abc", prompt="user: hi\n")
    norm_head, calls = model.norm_head, []

    def interrupt_second(hidden):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return norm_head(hidden)

    monkeypatch.setattr(model, "norm_head", interrupt_second)
    code, out, _ = run(model, "chat", stdin="hi\n")
    assert code == 0 and out == "a\n\n"


def test_a_chat_goes_on_after_an_error(run):
    code, _, err = run(says("a", max_positions=8), "chat", stdin="far too long\nalso too long\n")
    assert code == 0 and err.count("lmx: prompt: expected at most 8 tokens") == 2


def test_ctrl_c_ends_generate(run, monkeypatch):
    model = says("abc")
    monkeypatch.setattr(model, "norm_head", lambda hidden: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(model, "generate", "--prompt", "?")[0] == 130


def test_bench(run):
    code, out, _ = run(
        says("a"), "bench", "--prompt-tokens", "600", "--new-tokens", "3", "--repeats", "2"
    )
    lines = out.splitlines()
    assert code == 0 and lines[0] == "smollm2, float32, cpu, 1 threads, 2 runs"
    assert lines[1].startswith("prefill     600 tokens   min") and "median" in lines[1]
    assert lines[2].startswith("decode        3 tokens   min") and lines[2].endswith("tokens/s")


def test_a_missing_model_is_one_line(capsys):
    assert main(["generate", "--model", "no/such/folder", "--prompt", "?"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("lmx: no/such/folder")


def test_too_little_memory_is_one_line(monkeypatch, capsys):
    def load(*args, **kwargs):
        raise MemoryError("smollm2 needs 500.0 MiB on cpu, where 0.1 MiB are available")

    monkeypatch.setattr("lmx.cli.options.load", load)
    assert main(["generate", "--prompt", "?"]) == 2
    captured = capsys.readouterr()
    message = "lmx: smollm2 needs 500.0 MiB on cpu, where 0.1 MiB are available\n"
    assert (captured.out, captured.err) == ("", message)


def test_bench_says_how_many_bytes_a_token_reads(run):
    code, out, _ = run(
        tiny(), "bench", "--prompt-tokens", "8", "--new-tokens", "3", "--repeats", "1"
    )
    line = out.splitlines()[-1]
    assert code == 0 and re.fullmatch(r"weights +0\.\d MiB per token, read at \d+\.\d GB/s", line)


def test_weights_are_handed_to_load(monkeypatch):
    given = {}
    monkeypatch.setattr("lmx.cli.options.load", lambda *args, **kwargs: given.update(kwargs))
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    load_model(parser.parse_args(["--weights", "file"]))
    assert given == {"dtype": None, "device": "cpu", "weights": "file"}
    load_model(parser.parse_args(["--dtype", "float16", "--weights", "int8"]))
    assert given == {"dtype": torch.float16, "device": "cpu", "weights": "int8"}


def test_info_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "lmx", "info"], capture_output=True, text=True, timeout=60
    )
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert done.returncode == 0 and done.stderr == ""
    assert list(facts) == ["lmx", "torch", "transformers", "python", "cpu", "cuda", "ops"]
    assert facts["cpu"].startswith(lmx._C.cpu_isa) and "vocab_argmax" in facts["ops"].split()
