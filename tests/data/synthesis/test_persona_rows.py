"""Identity rows for any name or card, and the script that writes them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from elysia.core.errors import DataError, PersonaError, UsageError
from elysia.core.persona import Persona
from elysia.data.formats.registry import FORMATS
from elysia.data.synthesis.persona_rows import (
    TUTORIAL_ASK,
    describe_in_answer,
    identity_rows,
    self_cognition_rows,
    write_rows,
)
from elysia.data.synthesis.phrase_banks import is_too_near, load_probe_texts, normalize_question

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "data" / "generate_data.py"
CARD = ROOT / "configs" / "personas" / "elysia.json"


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True)


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_self_cognition_rows_say_the_name_and_the_author() -> None:
    rows = self_cognition_rows("小团", "云边", 300)
    assert len(rows) == 300 and rows[0][0].ask == TUTORIAL_ASK
    assert "云边" in rows[0][0].reply
    assert len({normalize_question(turn.ask) for (turn,) in rows}) == 300
    assert all("小团" in turn.reply for (turn,) in rows)
    assert sum("云边" in turn.reply for (turn,) in rows) >= 30


def test_more_rows_than_there_are_start_over_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    rows = self_cognition_rows("小团", "云边", 3000)
    assert len(rows) == 3000 and "repeat" in caplog.text
    assert rows[0] == rows[len(set(rows))]


@pytest.mark.parametrize(
    ("name", "author", "rows", "message"),
    [("", "a", 1, "--name"), ("a", "  ", 1, "--author"), ("a", "b", 0, "--repeat"), ("a\ufffd", "b", 1, "--name"), ("a\nb", "b", 1, "--name")],
)  # fmt: skip
def test_what_cannot_be_a_name_or_count_is_refused(
    name: str, author: str, rows: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        self_cognition_rows(name, author, rows)


def test_braces_and_brackets_in_a_name_stay_as_they_are() -> None:
    assert "我是{0}[a|b]" in self_cognition_rows("{0}[a|b]", "c", 1)[0][0].reply


def test_a_card_gives_400_questions_and_answers_with_its_own_names() -> None:
    rows = identity_rows(Persona.load(CARD))
    assert len({normalize_question(turn.ask) for (turn,) in rows}) == len(rows) >= 400
    for (turn,) in rows:
        assert ("Elysia" if turn.lang == "en" else "爱莉希雅") in turn.reply
    assert any("小满花房" in turn.reply for (turn,) in rows)
    assert any("Xiaoman Greenhouse" in turn.reply for (turn,) in rows)
    assert any("粉色长发" in turn.reply for (turn,) in rows)
    probes = load_probe_texts(ROOT / "data")
    assert not any(is_too_near(turn.ask, probe) for (turn,) in rows[:100] for probe in probes)


def test_a_card_whose_author_is_broken_is_refused() -> None:
    with pytest.raises(PersonaError, match="author"):
        identity_rows(Persona("Mira", extra={"creator": "a\ufffd"}))


def test_another_card_brings_nothing_of_elysia() -> None:
    rows = identity_rows(Persona("Mira", description="You are a sailor."))
    text = json.dumps([(turn.ask, turn.reply) for (turn,) in rows], ensure_ascii=False)
    assert not any(word in text for word in ("Elysia", "爱莉", "小满", "{", "None"))
    assert "I'm Mira, a sailor." in text


@pytest.mark.parametrize(
    ("description", "about"),
    [
        ("", ("", "")),
        ("A keeper of bees. Old.", ("", ", a keeper of bees")),
        ("{{char}}（船长）是一个海员！很老。", ("，一个海员", "")),
        ("一" * 61, ("", "")),
    ],
)
def test_the_first_sentence_of_the_description(description: str, about: tuple[str, str]) -> None:
    assert describe_in_answer(Persona("Mira", description=description)) == about


def test_cards_of_others_give_rows_too(shared_data: Path) -> None:
    for path in (shared_data / "cards").glob("*.json"):
        persona = Persona.load(path)
        assert all(persona.display_name in turn.reply for (turn,) in identity_rows(persona)), path


def test_the_script_writes_rows_that_training_reads(tmp_path: Path) -> None:
    out = tmp_path / "self.json"
    done = run("--name", "小团", "--author", "云边", "--repeat", 20, "--output", out)
    assert done.returncode == 0 and "20 rows" in done.stderr
    rows = read(out)
    assert len(rows) == 20
    assert FORMATS["xtuner"](rows[0])[0].text == TUTORIAL_ASK
    assert os.listdir(tmp_path) == ["self.json"]


def test_the_script_writes_the_rows_of_a_card_and_replaces_only_when_told(tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    assert run("card", CARD, "--output", out).returncode == 0
    assert len(read(out)) >= 400
    out.write_text("mine")
    refused = run("card", CARD, "--output", out)
    assert refused.returncode == 2 and "--force" in refused.stderr and out.read_text() == "mine"
    assert run("card", CARD, "--output", out, "--force").returncode == 0
    assert len(read(out)) >= 400


def test_the_script_answers_bad_input_with_a_sentence_and_writes_nothing(tmp_path: Path) -> None:
    out, bad = tmp_path / "out.json", tmp_path / "bad.json"
    bad.write_text("{}")
    for args, code in (
        (("card", tmp_path / "none.json", "--output", out), 1),
        (("card", bad, "--output", out), 1),
        (("--name", "a", "--author", "b", "--output", tmp_path / "no" / "out.json"), 2),
        (("--name", "a", "--author", "b", "--output", tmp_path), 2),
        (("--name", "a", "--output", out), 2),
    ):
        done = run(*args)
        assert done.returncode == code and done.stderr and "Traceback" not in done.stderr, args
    assert sorted(os.listdir(tmp_path)) == ["bad.json"]


def test_a_full_disk_leaves_the_old_file_and_no_scrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="the disk is full"):
        write_rows(self_cognition_rows("a", "b", 2), out, force=True)
    assert out.read_text() == "old" and os.listdir(tmp_path) == ["out.json"]


@pytest.mark.parametrize("author", ["我", "me"])
def test_an_author_in_the_first_person_is_you_in_the_assistants_mouth(author) -> None:
    replies = [turn.reply for (turn,) in self_cognition_rows("小团", author, 300)]
    assert any("是你做出来的助手" in reply for reply in replies)
    assert not any("我做出来" in reply or "made by me" in reply for reply in replies)
