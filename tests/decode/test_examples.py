import re
import runpy
from pathlib import Path

import pytest
import transformers
from decode.toys import ByteTokenizer, says, smollm2_hf, smollm2_layers, tiny

import lmx

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_generate(monkeypatch, capsys):
    model = says("yes", prompt="user: Name three rivers in Europe.\n")
    monkeypatch.setattr(lmx, "load", lambda name: model)
    runpy.run_path(str(EXAMPLES / "generate.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "0: 'y'\n" in out and "> Name three rivers in Europe.\nyes\n[eos, " in out


def test_server_loop(monkeypatch, capsys):
    model = tiny()
    monkeypatch.setattr(model, "tokenizer", ByteTokenizer())
    monkeypatch.setattr(lmx, "load", lambda name: model)
    argv = ["server_loop.py", "--requests", "12", "--rate", "1000", "--pages", "40"]
    monkeypatch.setattr("sys.argv", [*argv, "--max-seqs", "6"])
    runpy.run_path(str(EXAMPLES / "server_loop.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("12 requests in ") and len(lines) == 6
    assert re.match(r"pages       \d+ of 40 in use at most", lines[3])
    assert int(lines[4].split()[0]) > 0  # requests made room


@pytest.mark.long
def test_server_loop_at_full_size(smollm2, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["server_loop.py", "--rate", "50"])
    runpy.run_path(str(EXAMPLES / "server_loop.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert out.startswith("64 requests in ") and "error" not in out
    print(out)


@pytest.fixture
def smollm2(monkeypatch):
    """Let examples find SmolLM2 loaded."""
    layers, model = smollm2_layers(), smollm2_hf()
    monkeypatch.setattr(lmx, "load", lambda name: layers)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda folder: model)


@pytest.mark.long
def test_hf_generate(smollm2, capsys):
    runpy.run_path(str(EXAMPLES / "hf_generate.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "The first moon landing was in" in out and not any(c.isdigit() for c in out)


@pytest.mark.long
def test_demo(smollm2, capsys):
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    assert done.value.code == 0 and capsys.readouterr().out.count("same text") == 3


@pytest.mark.long
def test_speculate(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["speculate.py", "8"])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(EXAMPLES / "speculate.py"), run_name="__main__")
    assert done.value.code == 0 and capsys.readouterr().out.count("same text") == 18


def test_user_model(capsys):
    runpy.run_path(str(EXAMPLES / "user_model.py"), run_name="__main__")
    plain, compiled = capsys.readouterr().out.splitlines()
    assert plain.removeprefix("plain    [") == compiled.removeprefix("compiled [")
    assert len(plain.split(",")) == 11
    [quote] = re.findall(r"```py\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)
    assert quote in (EXAMPLES / "user_model.py").read_text()
