import re
import runpy
from pathlib import Path

import pytest
import transformers
from decode.toys import says, smollm2_hf, smollm2_layers

import lmx

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_generate(monkeypatch, capsys):
    model = says("yes", prompt="user: Name three rivers in Europe.\n")
    monkeypatch.setattr(lmx, "load", lambda name: model)
    runpy.run_path(str(EXAMPLES / "generate.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "0: 'y'\n" in out and "> Name three rivers in Europe.\nyes\n[eos, " in out


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


def test_user_model(capsys):
    runpy.run_path(str(EXAMPLES / "user_model.py"), run_name="__main__")
    plain, compiled = capsys.readouterr().out.splitlines()
    assert plain.removeprefix("plain    [") == compiled.removeprefix("compiled [")
    assert len(plain.split(",")) == 11
    [quote] = re.findall(r"```py\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)
    assert quote in (EXAMPLES / "user_model.py").read_text()
