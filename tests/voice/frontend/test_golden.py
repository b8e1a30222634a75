"""Phonemes and numbers, line by line, against files whose every line has its reason."""

from pathlib import Path

import pytest

from elysia.voice.frontend.cleaners import bopomofo_to_pinyin, clean_text
from elysia.voice.frontend.g2p_zh import text_to_words
from elysia.voice.frontend.pipeline import normalize_text

HERE = Path(__file__).parent


def lines(name):
    return [line.split("\t") for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def pinyin(text):
    return " ".join(
        f"{bopomofo_to_pinyin(s.bopomofo)}{s.tone}"
        for w in text_to_words(text)
        for s in w.syllables
    )


def test_there_are_at_least_three_hundred_lines_and_each_has_a_reason():
    golden = lines("golden_chinese.tsv")
    assert len({text for text, *_ in golden}) >= 300
    assert all(len(line) == 3 and line[2] for line in golden)


def test_chinese_is_read_with_the_right_readings_and_tones():
    wrong = [
        (text, pinyin(text), right, reason)
        for text, right, reason in lines("golden_chinese.tsv")
        if pinyin(text) != right
    ]
    assert not wrong


def test_numbers_are_written_out():
    golden = lines("golden_numbers.tsv")
    assert len(golden) > 90
    wrong = [
        (text, normalize_text(text), right)
        for text, right in golden
        if normalize_text(text) != right
    ]
    assert not wrong


@pytest.mark.parametrize(("column", "cleaner"), [(1, "cjke_cleaners2"), (2, "chinese_cleaners")])
def test_symbols_are_those_the_models_learned(column, cleaner):
    for line in lines("golden_symbols.tsv"):
        assert clean_text(normalize_text(line[0]), cleaner).symbols == line[column], line[0]
