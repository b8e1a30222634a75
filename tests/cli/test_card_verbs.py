"""`elysia card show`, `convert` and `check`."""

import json
from pathlib import Path

import pytest

from elysia import cli
from elysia.core.card_file import read_card

ENTRY = {
    "keys": ["sea"],
    "content": "@@depth 1\nSalt.",
    "enabled": True,
    "insertion_order": 0,
    "extensions": {},
}


@pytest.fixture
def card(tmp_path):
    """A V3 card in a file, with fields nobody knows."""
    data = {
        "name": "Mira",
        "nickname": "Mi",
        "first_mes": "Hi \x1b[2J",
        "strange": 1.10,
        "character_book": {"entries": [ENTRY]},
    }
    path = tmp_path / "mira.json"
    path.write_text(json.dumps({"spec": "chara_card_v3", "spec_version": "3.0", "data": data}))
    return path


def test_a_card_is_shown_and_cannot_move_the_terminals_cursor(card, capsys):
    assert cli.main(["card", "show", str(card)]) == 0
    shown = capsys.readouterr().out
    assert "Mira (V3, json)" in shown and "1 entries" in shown and "\x1b" not in shown
    assert cli.main(["card", "show", str(card), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(card.read_text())


def test_nothing_is_lost_without_force(card, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert cli.main(["card", "convert", str(card), str(out), "--spec", "v2"]) == 1
    err = capsys.readouterr().err
    assert "lost: nickname" in err and "decorators" in err and "--force" in err
    assert not out.exists()
    assert cli.main(["card", "convert", str(card), str(out), "--spec", "v2", "--force"]) == 0
    assert read_card(out).version == 2 and read_card(out).fields["strange"] == 1.1


def test_a_file_that_exists_is_not_replaced_without_force(card, capsys):
    assert cli.main(["card", "convert", str(card), str(card)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_kinds_are_told_by_the_ending(card, tmp_path, capsys):
    assert cli.main(["card", "convert", str(card), str(tmp_path / "a.charx")]) == 0
    assert read_card(tmp_path / "a.charx").text == card.read_bytes()
    assert cli.main(["card", "convert", str(card), str(tmp_path / "a.png")]) == 2
    assert "--picture" in capsys.readouterr().err
    assert cli.main(["card", "convert", str(card), str(tmp_path / "a.webp")]) == 1
    assert cli.main(["card", "convert", str(card), str(tmp_path / "b.charx"), "--spec", "v2"]) == 2


def test_a_real_picture_goes_to_charx_and_back_with_its_json(shared_data: Path, tmp_path, capsys):
    source = shared_data / "cards" / "jasl_test_character.png"
    charx, back = tmp_path / "a.charx", tmp_path / "a.png"
    assert cli.main(["card", "convert", str(source), str(charx)]) == 0
    assert cli.main(["card", "convert", str(charx), str(back), "--force"]) == 0
    assert read_card(back).text == read_card(source).text
    assert cli.main(["card", "convert", str(source), str(tmp_path / "a.json")]) == 1
    assert "lost: the picture" in capsys.readouterr().err


def test_a_check_names_what_is_odd_and_takes_world_files(card, tmp_path, capsys):
    assert cli.main(["card", "check", str(card)]) == 0
    assert "note" not in capsys.readouterr().out
    odd = [
        ENTRY | {"keys": ["("], "use_regex": True},
        ENTRY | {"keys": []},
        ENTRY | {"content": ""},
    ]
    book = tmp_path / "book.json"
    book.write_text(json.dumps({"spec": "lorebook_v3", "data": {"entries": odd}}))
    assert cli.main(["card", "check", str(book)]) == 0
    out = capsys.readouterr().out
    assert out.count("note:") == 3 and "regular expression" in out and "3 lorebook entries" in out
    book.write_text(json.dumps({"entries": {"0": {"key": ["sea"], "content": "x"}}}))
    assert cli.main(["card", "check", str(book)]) == 0
    book.write_text("{}")
    assert cli.main(["card", "check", str(book)]) == 1
    assert cli.main(["card", "check", str(tmp_path / "none.json")]) == 1


def test_a_world_file_becomes_a_lorebook_and_comes_back(tmp_path, capsys):
    world = {
        "entries": {
            "0": {
                "uid": 0,
                "key": ["sea"],
                "content": "x",
                "order": 1,
                "disable": False,
                "position": 0,
                "sticky": 2,
            }
        }
    }
    first, book, last = (tmp_path / name for name in ("w.json", "b.json", "again.json"))
    first.write_text(json.dumps(world))
    assert cli.main(["card", "convert", str(first), str(book), "--spec", "v3"]) == 0
    assert json.loads(book.read_text())["spec"] == "lorebook_v3"
    assert cli.main(["card", "convert", str(book), str(last), "--spec", "world"]) == 0
    assert json.loads(last.read_text()) == world
    assert cli.main(["card", "convert", str(first), str(tmp_path / "a.png")]) == 2


@pytest.mark.parametrize("entries", [5, "x", None, {"0": 7}])
def test_a_book_whose_entries_are_none_gets_a_sentence(tmp_path, entries, capsys):
    book, out = tmp_path / "b.json", tmp_path / "out.json"
    book.write_text(json.dumps({"entries": entries}))
    spec = "v3" if isinstance(entries, dict) else "world"
    assert cli.main(["card", "convert", str(book), str(out), "--spec", spec]) == 1
    assert capsys.readouterr().err.startswith("error: ") and not out.exists()
    book.write_text(json.dumps({"name": "a", "character_book": {"entries": entries}}))
    assert cli.main(["card", "show", str(book)]) == 0


def test_every_real_card_passes_the_check(shared_data: Path, capsys):
    for path in sorted((shared_data / "cards").iterdir()):
        assert cli.main(["card", "check", str(path)]) == 0, path
        assert cli.main(["card", "show", str(path)]) == 0
