"""The bundled persona set: what it holds, that the script writes it, and that the probes are unseen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elysia.core.errors import DataError
from elysia.core.persona import Persona
from data.build.persona_dialogues import NAMES, compose, compose_nameless, count, with_counts
from elysia.data.formats.preference_pairs import preference
from elysia.data.synthesis.phrase_banks import (
    IDENTITY_BANKS,
    Dialogue,
    render_dialogues,
    DialogueTurn,
    is_too_near,
    load_probe_texts,
    normalize_question,
)
from elysia.evaluate.identity import judge_identity, judge_ordinary

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "data"
ASSISTANTS = [
    "ChatGPT",
    "GPT-4",
    "Claude",
    "文心一言",
    "通义千问",
    "Qwen",
    "Kimi",
    "豆包",
    "DeepSeek",
    "讯飞星火",
    "智谱清言",
    "ChatGLM",
    "InternLM",
    "书生·浦语",
    "Llama",
    "Gemini",
    "Copilot",
    "Siri",
    "小爱同学",
    "天猫精灵",
    "Alexa",
    "Bard",
    "Mistral",
    "Grok",
    "百川",
    "混元",
    "MiniMax",
]


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return compose(DATA / "source", load_probe_texts(DATA))


@pytest.fixture(scope="module")
def persona() -> Persona:
    return Persona.load(ROOT / "configs" / "personas" / "elysia.json")


def every(dialogues: list[Dialogue], identity: bool) -> Iterator[DialogueTurn]:
    return (turn for dialogue in dialogues for turn in dialogue if turn.identity == identity)


def test_the_bundled_file_is_what_the_script_writes(dialogues: list[Dialogue]) -> None:
    bundled = (DATA / "elysia.json").read_text(encoding="utf-8")
    assert bundled == render_dialogues(dialogues), "run: python data/build/persona_dialogues.py"
    assert len(bundled.encode()) < 1_000_000


def test_the_base_is_asked_the_same_and_is_nobody(dialogues: list[Dialogue]) -> None:
    bundled = (DATA / "nameless.json").read_text(encoding="utf-8")
    rows = compose_nameless(DATA / "source", load_probe_texts(DATA))
    assert bundled == render_dialogues(rows), "run: python data/build/persona_dialogues.py"
    hers = {turn.ask for turn in every(dialogues, identity=True)}
    for (turn,) in rows:
        assert turn.ask in hers
        for name in (*NAMES.values(), *ASSISTANTS):
            assert name not in turn.reply, turn
            assert name not in turn.ask or name not in NAMES.values(), turn


def test_a_kind_of_question_without_an_answer_of_nobody_is_named(tmp_path: Path) -> None:
    for name in (*IDENTITY_BANKS, "nameless.json"):
        shutil.copy(DATA / "source" / name, tmp_path)
    answers = json.loads((tmp_path / "nameless.json").read_text(encoding="utf-8"))
    del answers["maker"]
    (tmp_path / "nameless.json").write_text(json.dumps(answers), encoding="utf-8")
    with pytest.raises(DataError, match="no answer to 'maker'"):
        compose_nameless(tmp_path)


def test_there_are_dialogues_enough_of_one_to_six_turns(dialogues: list[Dialogue]) -> None:
    assert len(dialogues) >= 600
    assert {len(dialogue) for dialogue in dialogues} == {1, 2, 3, 4, 5, 6}


def test_the_page_tells_the_counts_of_the_file(dialogues: list[Dialogue]) -> None:
    page = (ROOT / "docs" / "persona.md").read_text(encoding="utf-8")
    assert f"| dialogues | {len(dialogues):,} |" in page, "run: python data/build/persona_dialogues.py"
    assert with_counts(page, count(dialogues)) == page
    assert with_counts("no marks", {"dialogues": 1}) == "no marks"


def test_who_she_is_is_asked_in_many_ways_and_against_every_assistant(
    dialogues: list[Dialogue],
) -> None:
    asks = {turn.ask for turn in every(dialogues, identity=True)}
    assert len({normalize_question(ask) for ask in asks}) >= 400
    for name in ASSISTANTS:
        assert sum(name in ask for ask in asks) >= 5, name


def test_identity_answers_are_few_short_and_say_the_whole_name(
    dialogues: list[Dialogue], persona: Persona
) -> None:
    turns = list(every(dialogues, identity=True))
    assert len({turn.reply for turn in turns if turn.lang == "zh"}) <= 12
    assert len({turn.reply for turn in turns if turn.lang == "en"}) <= 6
    for turn in turns:
        assert judge_identity(turn.reply, persona).good, turn
        assert ("爱莉希雅" if turn.lang == "zh" else "Elysia") in turn.reply, turn
        assert len(turn.reply) <= 40 if turn.lang == "zh" else len(turn.reply.split()) <= 20, turn


def test_a_kind_of_question_has_its_own_few_answers(dialogues: list[Dialogue]) -> None:
    replies: dict[str, set[str]] = {}
    for turn in every(dialogues, identity=True):
        replies.setdefault(turn.kind, set()).add(turn.reply)
    assert max(map(len, replies.values())) <= 2


def test_other_answers_are_short_and_do_not_say_her_name(
    dialogues: list[Dialogue], persona: Persona
) -> None:
    for turn in every(dialogues, identity=False):
        assert judge_ordinary(turn.reply, persona).good and len(turn.reply) <= 60, turn


def test_the_first_rows_are_a_fair_sample(dialogues: list[Dialogue]) -> None:
    share = [
        sum(dialogue[0].identity for dialogue in part) / len(part)
        for part in (dialogues[:300], dialogues)
    ]
    assert abs(share[0] - share[1]) < 0.1


def test_there_are_a_hundred_identity_probes_of_every_kind() -> None:
    probes = json.loads((DATA / "probes.json").read_text(encoding="utf-8"))["identity"]
    assert len({normalize_question(probe["text"]) for probe in probes}) == len(probes) == 100
    kinds = ["name", "intro", "maker", "other_assistant", "human", "injection", "confirm"]
    assert {probe["kind"] for probe in probes} == set(kinds)
    assert {probe["lang"] for probe in probes} == {"zh", "en"}
    assert sum(probe["lang"] == "en" for probe in probes) >= 20


def asked(row: dict[str, Any]) -> list[str]:
    """What people say in a row of replies or of preference pairs."""
    if "conversation" in row:
        return [turn["input"] for turn in row["conversation"]]
    return [m.text for m in preference(row)[0] if m.role == "user"]


def test_no_identity_probe_is_near_any_training_input() -> None:
    asks = {
        ask
        for file in DATA.glob("*.json")
        if not file.name.startswith("probes")
        for row in json.loads(file.read_text(encoding="utf-8"))
        for ask in asked(row)
    }
    probes = json.loads((DATA / "probes.json").read_text(encoding="utf-8"))["identity"]
    assert len(asks) > 1000
    near = [(p["text"], ask) for p in probes for ask in asks if is_too_near(ask, p["text"])]
    assert near == []


def test_a_probe_that_a_bank_would_ask_keeps_the_question_out() -> None:
    probe = "你叫什么名字？"
    asks = {turn.ask for dialogue in compose(DATA / "source", [probe]) for turn in dialogue}
    assert not any(is_too_near(ask, probe) for ask in asks)
    without = {turn.ask for dialogue in compose(DATA / "source") for turn in dialogue}
    assert any(is_too_near(ask, probe) for ask in without)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ('{"name": {"take": 3, "asks": ["{0}?"], "replies": ["a"], "over": "_gone"}}', "'name'"),
        ('{"name": {"take": 3, "asks": ["{3}?"], "replies": ["a"]}}', "'name'"),
        ('{"name": {"asks": ["a"], "replies": ["a"]}}', "'name'"),
    ],
)
def test_a_damaged_bank_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "elysia_identity_zh.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        compose(tmp_path)
    assert "elysia_identity_zh.json" in str(caught.value)


def test_a_talk_that_ends_on_a_question_is_named(tmp_path: Path) -> None:
    for name in ("elysia_identity_zh.json", "elysia_identity_en.json", "elysia_talk.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    (tmp_path / "elysia_turns.json").write_text('{"tea": [["a", "b", "c"]]}', encoding="utf-8")
    with pytest.raises(DataError, match="ends on a question"):
        compose(tmp_path)
