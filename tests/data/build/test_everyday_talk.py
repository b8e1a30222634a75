"""The bundled everyday talk: what the banks compose, and that the ordinary probes are unseen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from elysia.core.errors import DataError
from data.build.everyday_talk import compose, dump
from elysia.data.synthesis.phrase_banks import expand_choices

DATA = Path(__file__).resolve().parents[3] / "data"
BRANDS = re.compile(
    r"爱莉|希雅|elysia|chat\s?gpt|gpt|openai|claude|anthropic|gemini|bard|siri|alexa|copilot|llama"
    r"|qwen|deepseek|internlm|mistral|grok|google|microsoft|chatglm|ernie|kimi"
    r"|通义|千问|文心|书生|浦语|豆包|混元|讯飞|星火|智谱|百川|小爱|小度|百度|阿里|腾讯|谷歌|微软",
    re.IGNORECASE,
)
IDENTITY = re.compile(
    r"你(到底|究竟)?是(谁|什么|哪|不是(人|机器|AI))|你叫|你的名字|你(来自|多大|几岁)|谁(创造|开发|制造|训练|设计)了?你"
    r"|你是(人|机器|AI)|你自己|自我介绍|who are you|what are you\W*$|your name\b(?! is)|who (made|built|created|trained) you"
    r"|introduce yourself|about yourself|how old are you|where are you from|are you (an? )?(ai|robot|bot|human)",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def rows():
    return compose(DATA / "source")


def squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def training_inputs() -> Iterator[tuple[str, str]]:
    """(file name, input) of every bundled file of conversations."""
    for file in sorted(DATA.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        for row in content if isinstance(content, list) else []:
            for turn in row.get("conversation", []):
                yield file.name, turn["input"]


def test_the_bundled_file_is_exactly_what_the_banks_compose(rows):
    bundled = (DATA / "chat.json").read_text(encoding="utf-8")
    assert bundled == dump(rows), "run: python data/build/everyday_talk.py"
    assert len(bundled.encode()) < 1_000_000


def test_there_are_many_distinct_rows_over_many_intents_in_both_languages(rows):
    assert len({row.turns[::2] for row in rows}) == len(rows) >= 2000
    assert len({row.intent for row in rows}) >= 100
    assert sum(row.near for row in rows) >= 300
    assert sum(len(row.turns) >= 4 for row in rows) >= 200
    english = sum(row.lang == "en" for row in rows) / len(rows)
    assert 0.25 < english < 0.35


def test_every_text_is_there_and_short(rows):
    for row in rows:
        assert len(row.turns) % 2 == 0
        for text in row.turns:
            assert text.strip() == text != ""
            assert not re.search(r"[{}\[\]|\ufffd]", text), row
        for reply in row.turns[1::2]:
            assert len(reply.split()) <= 16 if reply.isascii() else len(reply) <= 30, row


def test_no_row_names_an_assistant_or_asks_who_it_is(rows):
    for row in rows:
        assert not BRANDS.search(" ".join(row.turns)), row
        for ask in row.turns[::2]:
            assert not IDENTITY.search(ask), row


def test_one_question_has_one_answer(rows):
    answers: dict[str, set[str]] = {}
    for row in rows:
        if len(row.turns) == 2:
            answers.setdefault(row.turns[0], set()).add(row.turns[1])
    assert not {ask: replies for ask, replies in answers.items() if len(replies) > 1}


def test_the_ordinary_probes_are_sixty_and_in_no_training_row():
    probes = json.loads((DATA / "probes_ordinary.json").read_text(encoding="utf-8"))
    seen = {squeezed(text): name for name, text in training_inputs()}
    assert len({squeezed(probe["text"]) for probe in probes}) == 60
    assert sum(probe["lang"] == "en" for probe in probes) == 15
    assert sum(probe["kind"].startswith("near") for probe in probes) >= 15
    for probe in probes:
        key = squeezed(probe["text"])
        assert not IDENTITY.search(probe["text"]) and not BRANDS.search(probe["text"])
        assert key not in seen, probe
        matcher = SequenceMatcher(None, b=key, autojunk=False)
        for other, name in seen.items():
            matcher.set_seq1(other)
            near = matcher.real_quick_ratio() >= 0.95 and matcher.quick_ratio() >= 0.95
            assert not near or matcher.ratio() < 0.95, (probe, name, other)


def test_choices_multiply():
    assert expand_choices("[a|b][c|]") == ["ac", "a", "bc", "b"]
    assert expand_choices("plain") == ["plain"]


def test_a_folder_without_banks_and_a_damaged_bank_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"holds no everyday_\*\.json"):
        compose(tmp_path)
    bank = tmp_path / "everyday_x.json"
    bank.write_text('{"greeting": {"asks": ["hi"]}}', encoding="utf-8")
    with pytest.raises(DataError, match=r"everyday_x\.json: the bank 'greeting' is damaged"):
        compose(tmp_path)
    bank.write_text('{"greeting": ', encoding="utf-8")
    with pytest.raises(DataError, match="is not JSON"):
        compose(tmp_path)
    bank.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="must map intents"):
        compose(tmp_path)
    bank.write_text('{"a": {"make": "nosuch", "asks": ["hi"], "replies": ["x"]}}', encoding="utf-8")
    with pytest.raises(DataError, match="nosuch"):
        compose(tmp_path)
