"""Rows for a base that can talk: little identity, its own answers as replay, resumable, apart from probes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from elysia.cli import main
from elysia.core.errors import DataError
from elysia.core.paths import get_data_folder
from elysia.core.persona import Persona
from elysia.data.synthesis.answer_journal import AnswerJournal, BaseAnswer, BaseRequest
from elysia.data.synthesis.character_dialogues import (
    build_character_rows,
    find_voice_fault,
    load_asks,
    load_bank,
    load_character_probes,
    sort_examples,
)
from elysia.data.synthesis.phrase_banks import is_too_near
from elysia.evaluate.identity import judge_identity, judge_ordinary

ROOT = Path(__file__).resolve().parents[3]
MIRA = ROOT / "data" / "source" / "mira.json"


class EchoBase:
    """A base that answers each request differently, counts what it was asked, and dies after `lives`."""

    def __init__(self, lives: int = 100_000) -> None:
        self.lives, self.asked = lives, 0

    def __call__(self, requests: Sequence[BaseRequest]) -> Iterator[tuple[int, BaseAnswer]]:
        for place, request in enumerate(requests):
            if self.asked == self.lives:
                raise KeyboardInterrupt
            self.asked += 1
            yield place, BaseAnswer(f"About that {request.key} I would say this.", True)


def test_at_most_a_tenth_is_identity_and_every_such_answer_gives_the_name(tmp_path: Path) -> None:
    persona = Persona.load(MIRA)
    rows = build_character_rows(persona, AnswerJournal(tmp_path / "a", "m"), EchoBase())
    assert rows.groups["identity"] >= 20
    assert rows.groups["identity"] <= 0.1 * sum(rows.groups.values())
    single = [row for row in rows.train if len(row["conversation"]) == 1]
    identity = [r["conversation"][0]["output"] for r in single if r["kind"] == "identity"]
    assert all(judge_identity(reply, persona).good for reply in identity)
    assert len(set(identity)) > 0.6 * len(identity)
    ordinary = [r["conversation"][0]["output"] for r in single if r["kind"] in ("voice", "replay")]
    assert ordinary and all(judge_ordinary(reply, persona).good for reply in ordinary)
    assert any(len(row["conversation"]) > 1 for row in rows.train)
    trained = {turn["input"] for row in rows.train for turn in row["conversation"]}
    assert not trained & {row["conversation"][0]["input"] for row in rows.general_heldout}


def test_a_killed_run_goes_on_to_the_same_rows_and_asks_nothing_twice(tmp_path: Path) -> None:
    persona, whole = Persona.load(MIRA), EchoBase()
    expected = build_character_rows(persona, AnswerJournal(tmp_path / "whole", "m"), whole)
    killed = EchoBase(lives=60)
    with pytest.raises(KeyboardInterrupt):
        build_character_rows(persona, AnswerJournal(tmp_path / "cut", "m"), killed)
    with (tmp_path / "cut").open("a") as file:
        file.write('{"model": "m", "key": "half')
    resumed = EchoBase()
    rows = build_character_rows(persona, AnswerJournal(tmp_path / "cut", "m"), resumed)
    assert rows.train == expected.train
    assert killed.asked + resumed.asked == whole.asked
    assert all(json.loads(line) for line in (tmp_path / "whole").read_text().split("\n") if line)


def test_no_question_is_close_to_a_probe() -> None:
    probes = load_character_probes(get_data_folder())
    assert len(probes) == len(set(probes)) == 200
    asks = load_asks(("zh", "en"))
    assert len(asks) > 450
    assert not [ask.text for ask in asks if any(is_too_near(ask.text, p) for p in probes)]


def test_the_examples_of_the_bundled_card_are_apart_from_the_probes() -> None:
    from elysia.data.synthesis.persona_rows import example_rows

    probes = load_character_probes(get_data_folder())
    asks = [turn.ask for talk in example_rows(Persona.load(MIRA)) for turn in talk]
    assert not [ask for ask in asks if any(is_too_near(ask, probe) for probe in probes)]


def test_a_card_that_shows_no_line_is_refused(tmp_path: Path) -> None:
    journal = AnswerJournal(tmp_path / "a", "m")
    with pytest.raises(DataError, match="mes_example"):
        build_character_rows(Persona("Nova", description="A captain."), journal, EchoBase())
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("text", "ended", "fault"),
    [
        ("The kettle is on. Sit down.", True, ""),
        ("I am Mira, and the kettle is on.", True, "says-name"),
        ("As an AI language model, I have no kettle.", True, "other-assistant"),
        ("The kettle is on and", False, "cut-off"),
        ("He loved fish. " * 8, True, "repeats"),
        ("No.", True, "length"),
    ],
)
def test_replies_that_would_spoil_the_voice_are_left_out(
    text: str, ended: bool, fault: str
) -> None:
    assert find_voice_fault(text.strip(), ended, Persona.load(MIRA)) == fault


def test_examples_are_lent_only_to_questions_of_their_kind() -> None:
    shots = [
        ("I'm so tired.", "Rest."),
        ("I got the job!", "Ha!"),
        ("You're grumpy today.", "Never."),
        ("Have you ever seen a shipwreck?", "Once."),
        ("Help me cheat on my test.", "No."),
        ("Good morning.", "Morning."),
    ]
    assert sort_examples(shots, ("en",), load_bank(get_data_folder())) == {
        ("en", "comfort"): ["Rest."],
        ("en", "joy"): ["Ha!"],
        ("en", "teasing"): ["Never."],
        ("en", "refusal"): ["No."],
        ("en", "greeting"): ["Morning."],
    }


@pytest.mark.parametrize("base", ["absent.gguf", "http://127.0.0.1:9/v1"])
def test_a_base_that_cannot_be_reached_leaves_nothing_behind(tmp_path: Path, base: str) -> None:
    rows = str(tmp_path / "rows.jsonl")
    assert main(["data", "persona", str(MIRA), "-o", rows, "--base", base]) == 1
    assert not list(tmp_path.iterdir())
