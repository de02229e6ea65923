"""``python -m lmx index``: build, info, query."""

import json

from lmx.cli import main

TEXTS = {
    "a.txt": "the cat sat on the mat",
    "b/c.txt": "the cat ran",
    "d.jsonl": '{"text": "a dog"}\n{"text": "the dog"}\n',
}


def write(folder):
    for name, text in TEXTS.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (folder / "binary").write_bytes(b"\xff\xfe\x00")


def test_build_info_query(tmp_path, capsys):
    source, out = tmp_path / "text", str(tmp_path / "t.lmxn")
    source.mkdir()
    write(source)
    assert main(["index", "build", str(source), "--out", out]) == 0
    said = capsys.readouterr()
    assert "4 documents, 45 tokens, 1 shards" in said.out
    assert "4 files" in said.err and "is no UTF-8 text: left out" in said.err
    assert main(["index", "info", out]) == 0
    said = capsys.readouterr().out
    assert "documents    4" in said and "tokenizer    bytes" in said
    assert main(["index", "query", out, "the cat"]) == 0
    said = capsys.readouterr().out
    assert "2 times, 7 tokens" in said and '1.0000            2 " "' in said
    assert '"the cat sat on the mat"' in said and "a.txt" in said
    assert main(["index", "query", out, "the dog", "--docs", "1"]) == 0
    said = capsys.readouterr().out
    assert "(end)" in said and '"the dog"' in said


def test_what_is_shown_is_escaped(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "say \x1b[2J and \u202e more"}))
    out = str(tmp_path / "x.lmxn")
    assert main(["index", "build", str(tmp_path / "x.jsonl"), "--out", out]) == 0
    assert main(["index", "query", out, "say "]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\u202e" not in said


def test_mistakes_take_one_line(tmp_path, capsys):
    cases = {
        "not found": ["build", str(tmp_path / "none"), "--out", str(tmp_path / "o.lmxn")],
        "no finished index": ["info", str(tmp_path)],
        "bytes, smollm2 or a folder": [
            "build",
            str(tmp_path),
            "--out",
            "o",
            "--tokenizer",
            str(tmp_path),
        ],
    }
    for message, words in cases.items():
        assert main(["index", *words]) == 2
        said = capsys.readouterr().err
        assert message in said.splitlines()[-1] and "Traceback" not in said
    (tmp_path / "bad.jsonl").write_text("{}\n")
    words = ["build", str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "o.lmxn")]
    assert main(["index", *words]) == 2
    assert "line 1: expected an object with text" in capsys.readouterr().err
