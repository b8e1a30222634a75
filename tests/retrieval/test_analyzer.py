"""Terms: what people write in several ways becomes one."""

from __future__ import annotations

import pytest

from elysia.retrieval.analyzer import MAX_TERM_LENGTH, extract_query_terms, extract_terms, fold_text


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("爱莉希雅后来的头发", "愛莉希雅後來的頭髮"),
        ("ＧＰＴ４　爱莉", "gpt4 爱莉"),
        ("Garden", "GARDEN"),
        ("café", "cafe"),
        ("ｶﾞｰﾃﾞﾝ", "ガーデン"),
        ("it’s", "it's"),
        ("爱莉，你好！", "爱莉。你好"),
    ],
)
def test_two_spellings_give_the_same_terms(text, other):
    assert extract_terms(text) == extract_terms(other)


def test_unspaced_scripts_give_characters_and_neighbours_and_words_stay_whole():
    assert extract_terms("爱莉 a1 花") == ["爱", "爱莉", "莉", "a1", "花"]
    assert extract_terms("ガーデン") == ["ガ", "ガー", "ー", "ーデ", "デ", "デン", "ン"]
    assert extract_terms("Don't stop-now") == ["don't", "stop", "now"]
    assert extract_terms("𠮷野家")[0] == "𠮷"


def test_a_word_and_a_character_that_touch_are_a_pair():
    assert extract_terms("1786年GPT") == ["1786", "1786年", "年", "年gpt", "gpt"]


@pytest.mark.parametrize(
    ("question", "telling"),
    [
        ("玫瑰什麼時候種", ["玫", "玫瑰", "瑰", "时", "时候", "候", "候种", "种"]),
        ("请问多少", ["请", "请问", "问", "问多", "多", "多少", "少"]),
        ("何时种", ["种"]),
        ("谁？", ["谁"]),
    ],
)
def test_what_only_asks_is_left_out_unless_there_is_nothing_else(question, telling):
    assert extract_query_terms(question) == telling


def test_neighbours_do_not_reach_over_punctuation():
    assert "莉你" not in extract_terms("爱莉，你好")


def test_nothing_to_search_for_gives_nothing():
    assert (
        extract_terms("")
        == extract_terms(" \n\x00")
        == extract_terms("？！…～♪")
        == extract_terms("\ud800")
        == []
    )


def test_a_word_without_end_is_cut():
    assert extract_terms("a" * 10_000) == ["a" * MAX_TERM_LENGTH]


def test_long_hostile_text_is_read_in_linear_time():
    # A quadratic pass would take longer than any test may.
    assert len(extract_terms("a'" * 100_000 + "爱" * 100_000)) > 200_000
    assert fold_text("a" + "\u0308" * 100_000)
