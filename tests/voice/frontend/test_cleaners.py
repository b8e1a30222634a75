"""Writings for models: which fits, what is lost, what cannot be said."""

import pytest

from elysia.core.errors import VoiceError
from elysia.voice.frontend.cleaners import (
    BOPOMOFO,
    CJKE2,
    PINYIN,
    clean_text,
    count_dropped,
    detect_cleaner,
)
from elysia.voice.frontend.pipeline import explain_steps, normalize_text

HARD = "嗯，翁先生说：“穷人的熊，在雄伟的云朵下，吃水饺、喝二两酒——真的？”哦～对…"


@pytest.mark.parametrize(
    ("symbols", "named", "cleaner"),
    [
        (BOPOMOFO, "chinese_cleaners", "chinese_cleaners"),
        (CJKE2, "cjke_cleaners2", "cjke_cleaners2"),
        (CJKE2, "", "cjke_cleaners2"),
        (PINYIN, "chinese_cleaners", "pinyin"),  # some forks call pinyin so
        (BOPOMOFO, "cjke_cleaners2", "chinese_cleaners"),  # a config that names the wrong one
    ],
)
def test_the_cleaner_is_recognised_by_the_symbols(symbols, named, cleaner):
    assert detect_cleaner(symbols, named) == cleaner


def test_symbols_that_would_lose_much_are_refused_with_what_is_lost():
    with pytest.raises(VoiceError, match=r"fit no cleaner.*would lose"):
        detect_cleaner("_abcdefghij ", "english_cleaners2")


@pytest.mark.parametrize(
    ("cleaner", "symbols"),
    [("chinese_cleaners", BOPOMOFO), ("cjke_cleaners2", CJKE2), ("pinyin", PINYIN)],
)
def test_nothing_of_a_hard_text_is_lost(cleaner, symbols):
    text = normalize_text(HARD + "Well, GPT's OK & 5km!")
    assert count_dropped(text, cleaner, symbols) == (0.0, "")
    assert not clean_text(text, cleaner).unsaid


def test_what_has_no_symbols_is_named():
    assert clean_text("你好。こんにちは。Привет。", "cjke_cleaners2").unsaid == (
        "こんにちは。",
        "Привет。",
    )


def test_without_sandhi_tones_are_the_dictionarys():
    assert clean_text("你好", "pinyin", sandhi=False).symbols == "ni3 hao3."


@pytest.mark.parametrize(
    "text", ["", "😊", "……", "？！", "```\ncode\n```", "*只有动作*", "\x00\x1b"]
)
def test_nothing_to_say_is_empty(text):
    assert normalize_text(text) == ""


def test_an_unknown_cleaner_is_refused_by_name():
    with pytest.raises(VoiceError, match="no cleaner 'nope', only chinese_cleaners"):
        clean_text("好", "nope")


def test_explain_shows_every_step_and_what_a_model_would_lose():
    steps = dict(explain_steps("**我**有3个😊", "cjke_cleaners2", set(CJKE2) - {"ʊ", "o"}))
    assert steps["stripped"] == "我有3个"
    assert steps["normalised"] == "我有三个"
    assert steps["pinyin"] == "wo2 you3 san1ge4"
    assert steps["unknown to the model"] == "o ʊ"
