"""`--fix` mends what is safe, says it, keeps the old file, and leaves the rest."""

import json

import pytest

from elysia.core.errors import DataError
from elysia.data.lint.autofix import fix_file
from elysia.data.lint.lint_run import lint_files
from elysia.data.readers.row_reader import read_rows


def turn(ask, reply):
    return {"conversation": [{"input": ask, "output": reply}]}


ROWS = [
    turn("早呀", "早\u200b上好。"),
    turn("早呀", "早上好。"),
    turn("你好", "你好呀，今天去散步吧".encode().decode("latin-1")),
    turn("走吗", "好的&nbsp;走。<br>等我一下。 "),
    turn("你是谁", "我是{{name}}。"),
]


def test_safe_faults_are_mended_and_each_change_is_said(tmp_path):
    path = tmp_path / "a.jsonl"
    raw = json.dumps(ROWS, ensure_ascii=False).encode("utf-16")
    path.write_bytes(raw)
    changes = fix_file(path)
    rows = [row.value["conversation"][0]["output"] for row in read_rows(path)]
    assert rows == ["早上好。", "你好呀，今天去散步吧", "好的 走。\n等我一下。", "我是{{name}}。"]
    assert (tmp_path / "a.jsonl.orig").read_bytes() == raw
    text = "\n".join(changes)
    for words in (
        "saved as UTF-8",
        "a row a line",
        "invisible",
        "the same as row 1",
        "decoded again",
        "entities",
    ):
        assert words in text
    assert lint_files([path])[0].findings.counts == {"placeholder": 1}
    assert fix_file(path) == []


def test_a_file_that_is_well_is_not_written(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([turn("早", "早上好。")]))
    before = path.stat().st_mtime_ns
    assert fix_file(path) == []
    assert path.stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_read_whole_is_left_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "a\u200b", "output": "b"}\n{"inp\n', "utf-8")
    before = path.read_bytes()
    with pytest.raises(DataError, match="line 2"):
        fix_file(path)
    assert path.read_bytes() == before


def test_an_older_copy_is_not_overwritten(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n")
    (tmp_path / "a.jsonl.orig").write_text("kept")
    with pytest.raises(DataError, match="exists"):
        fix_file(path)
    assert (tmp_path / "a.jsonl.orig").read_text() == "kept"
