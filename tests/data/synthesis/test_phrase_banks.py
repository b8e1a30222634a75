"""Likeness of questions, and the even use of a bank's patterns and items."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from elysia.core.errors import DataError
from elysia.data.synthesis.phrase_banks import (
    QuestionFilter,
    generate_turns,
    is_one_edit_apart,
    is_too_near,
    load_probe_texts,
    normalize_question,
)

NAMES = {"name": "小满", "english": "Xiaoman", "nick": "满"}


def distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_one_edit_agrees_with_the_edit_distance() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("ab", k=rng.randint(0, 5))) for _ in range(120)]
    for a in words:
        for b in words:
            assert is_one_edit_apart(a, b) == (distance(a, b) <= 1), (a, b)


@pytest.mark.parametrize(
    ("ask", "probe", "near"),
    [
        ("你是谁", "你 是 谁？！", True),
        ("ＷＨＯ are you", "who are you?", True),
        ("你是谁呀", "你是谁", True),
        (
            "Please tell me what your name is, friend",
            "please tell me what your name is, friends!",
            True,
        ),
        ("你叫什么", "你的名字呢", False),
        ("你是豆包吗", "难道你是豆包不成", False),
    ],
)
def test_questions_that_give_a_probe_away(ask: str, probe: str, near: bool) -> None:
    assert is_too_near(ask, probe) is near
    assert QuestionFilter([probe]).accept(ask) is not near


def bank(folder: Path, **banks: object) -> Path:
    path = folder / "bank.json"
    path.write_text(json.dumps(banks), encoding="utf-8")
    return path


def test_patterns_and_items_are_used_evenly(tmp_path: Path) -> None:
    asks = ["是{0}[吗|么|吧|嘛]", "和{0}[像吗|比呢|熟吗]？"]
    path = bank(
        tmp_path,
        _n=[["a", ""], ["b", ""]],
        other={"asks": asks, "take": 8, "over": "_n", "replies": ["不"]},
    )
    turns = generate_turns(path, QuestionFilter(), NAMES, identity=True)["other"]
    assert len(turns) == 8
    assert min(Counter("a" in turn.ask.lower() for turn in turns).values()) >= 3
    assert min(Counter("是" in turn.ask for turn in turns).values()) >= 3


def test_asked_again_a_bank_gives_the_next_questions(tmp_path: Path) -> None:
    path = bank(
        tmp_path,
        name={"asks": ["你[是谁|叫什么|叫啥|姓什么]"], "take": 2, "replies": ["我是{name}"]},
    )
    questions = QuestionFilter()
    first, second, third = (
        generate_turns(path, questions, NAMES, identity=True)["name"] for _ in range(3)
    )
    assert len(first) == len(second) == 2 and third == []
    assert not {t.ask for t in first} & {t.ask for t in second}
    assert {t.reply for t in first} == {"我是小满"}


def test_a_character_is_not_asked_whether_it_is_itself_an_assistant_of_its_name(
    tmp_path: Path,
) -> None:
    path = bank(
        tmp_path,
        _n=[["Claude", ""], ["Siri", ""]],
        other={"asks": ["你是{0}吗"], "take": 9, "over": "_n", "replies": ["不"]},
    )
    turns = generate_turns(path, QuestionFilter(), {**NAMES, "name": "Claude"}, identity=True)[
        "other"
    ]
    assert [normalize_question(turn.ask) for turn in turns] == ["你是siri吗"]


def test_probes_are_read_from_lists_and_objects(tmp_path: Path) -> None:
    (tmp_path / "probes.json").write_text('{"identity": [{"text": "a"}], "ordinary": []}')
    (tmp_path / "probes_ordinary.json").write_text('["b", {"text": "c"}]')
    assert load_probe_texts(tmp_path) == ["a", "b", "c"]


def test_a_missing_bank_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json"):
        generate_turns(tmp_path / "none.json", QuestionFilter(), NAMES, identity=True)
