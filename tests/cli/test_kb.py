"""`elysia kb add`, `list`, `search` and `remove`."""

from __future__ import annotations

from pathlib import Path

import pytest

from elysia import cli
from elysia.core.paths import CHAT_DATABASE
from elysia.knowledge import sandbox

BUNDLED = Path(__file__).parents[2] / "knowledge_base"


@pytest.fixture
def kb(tmp_path, capsys):
    """Runs a verb against a database of its own; (exit code, stdout, stderr)."""

    def run(verb, *words, shelf=("--character", "elysia")):
        place = ["--database", str(tmp_path / "chat" / "a.db")]
        code = cli.main(["kb", verb, *map(str, words), *shelf, *place])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_bundled_shelf_is_added_listed_searched_and_removed(kb, tmp_path):
    code, out, _ = kb("add", BUNDLED / "elysia")
    assert code == 0 and "茶会.md: " in out and " spans" in out
    assert kb("list")[1].count("characters") == len(list((BUNDLED / "elysia").iterdir()))
    code, out, _ = kb("search", "茶會的規矩是什麼？", "-k", "1")
    assert code == 0 and out.startswith("茶会.md, 茶会 > 规矩 [") and "贝壳" in out
    assert (tmp_path / "chat" / "index" / "knowledge" / "words").is_dir()
    code, out, _ = kb("remove", "茶会.md")
    assert (code, out) == (0, "茶会.md: removed\n")
    assert "茶会.md" not in kb("list")[1] + kb("search", "茶会的规矩")[1]


def test_the_help_names_the_default_that_is_used(capsys):
    assert cli.main(["kb", "list", "--help"]) == 0
    assert CHAT_DATABASE in capsys.readouterr().out


def test_shelves_are_kept_apart_and_all_listed(kb, tmp_path):
    (tmp_path / "a.txt").write_text("秘密的玫瑰")
    assert kb("add", tmp_path / "a.txt", shelf=("--shelf", "user/1/e"))[0] == 0
    assert kb("search", "玫瑰") == (1, "Nothing was found.\n", "")
    assert kb("list")[1] == "No documents.\n"
    assert kb("list", shelf=())[1] == "user/1/e:\n  a.txt  6 characters, 1 spans\n"


def test_a_file_that_cannot_be_read_keeps_no_other_out(kb, tmp_path):
    (tmp_path / "bad.pdf").write_text("no pdf")
    (tmp_path / "good.txt").write_text("玫瑰")
    code, out, err = kb("add", tmp_path / "bad.pdf", tmp_path / "good.txt")
    assert code == 1 and "good.txt" in out
    assert "error: bad.pdf: it is no PDF, whatever its name says." in err


def test_a_file_beyond_the_limit_is_not_read_whole(kb, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_FILE", 1 << 20)
    with (tmp_path / "huge.txt").open("wb") as file:
        file.write(b"text ")
        file.truncate(1 << 40)  # a hole of a terabyte
    assert "more than 1 MB" in kb("add", tmp_path / "huge.txt")[2]


def test_what_a_document_says_cannot_move_the_terminals_cursor(kb, tmp_path):
    (tmp_path / "a.txt").write_text("玫瑰 \x1b[2J\x9b2J \u202e 花" + "。还有别的花" * 9)
    kb("add", tmp_path / "a.txt")
    out = kb("search", "玫瑰")[1]
    assert "玫瑰" in out and not {"\x1b", "\x9b", "\u202e"} & set(out)


@pytest.mark.parametrize(
    ("words", "shelf", "code", "sentence"),
    [
        (["search", "x"], (), 2, "Say whose documents"),
        (["search", "x"], ("--shelf", "a", "--character", "b"), 2, "Say whose documents"),
        (["search", "x", "-k", "0"], ("--shelf", "a"), 2, "1 or more"),
        (["add", "/nowhere.txt"], ("--shelf", "a"), 2, "There is no file /nowhere.txt"),
        (["remove", "a.txt"], ("--shelf", "a"), 1, "There is no a.txt on the shelf a"),
        (["add", __file__], ("--shelf", "a"), 1, "is not read here"),
        (["list", "--embedder", "/nowhere/model"], (), 1, "Name a local folder"),
    ],
)
def test_mistakes_are_sentences(kb, words, shelf, code, sentence):
    got, _, err = kb(*words, shelf=shelf)
    assert got == code
    assert sentence in err and "Traceback" not in err
