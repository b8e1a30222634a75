"""Splitting: exact offsets, whole paragraphs and sentences, headings and pages."""

from __future__ import annotations

import random

import pytest

from elysia.knowledge.chunking import MAX_LENGTH, TARGET_LENGTH, split_chunks
from elysia.knowledge.readers import ParsedText, SectionHeading
from elysia.knowledge.readers.plain import read_markdown, read_text


def pieces(text):
    return [text.text[chunk.start : chunk.end] for chunk in split_chunks(text)]


def test_short_paragraphs_share_a_span_and_long_ones_have_their_own():
    short, long = "短句。" * 30, "长句子。" * 120
    assert pieces(read_text(f"{short}\n\n{short}\n\n{long}\n\n{short}".encode())) == [
        f"{short}\n\n{short}",
        long,
        short,
    ]


def test_a_very_long_paragraph_is_cut_between_sentences():
    text = "".join(f"这是第{number}句话，她说得很慢。" for number in range(300))
    chunks = pieces(ParsedText(text))
    assert "".join(chunks) == text
    assert all(
        piece.endswith("。") and TARGET_LENGTH // 2 < len(piece) <= MAX_LENGTH for piece in chunks
    )


@pytest.mark.parametrize("unit", ["a", "花", "word ", "一，", "a.b"])
def test_text_without_sentences_is_cut_all_the_same(unit):
    text = unit * 5_000
    chunks = pieces(ParsedText(text))
    assert "".join("".join(chunks).split()) == "".join(text.split())
    assert max(map(len, chunks)) <= MAX_LENGTH


def test_an_english_sentence_ends_at_a_point_before_a_space():
    text = "Version 1.5 of e.g.this came late, said Mr Smith. " * 60
    assert all(piece.endswith("Smith.") for piece in pieces(ParsedText(text)))


def test_a_span_lies_under_its_headings_and_none_reaches_over_one():
    source = read_markdown("序\n\n# 一\n\n甲\n\n## 二\n\n乙\n\n## 三\n\n丙\n\n# 四\n\n丁".encode())
    chunks = [
        (chunk.heading, source.text[chunk.start : chunk.end]) for chunk in split_chunks(source)
    ]
    assert chunks == [
        ("", "序"),
        ("一", "# 一\n\n甲"),
        ("一 > 二", "## 二\n\n乙"),
        ("一 > 三", "## 三\n\n丙"),
        ("四", "# 四\n\n丁"),
    ]


def test_a_heading_alone_is_no_span_unless_there_is_nothing_else():
    assert pieces(read_markdown("# 一\n\n## 二\n\n乙".encode())) == ["## 二\n\n乙"]
    assert pieces(read_markdown("# 一".encode())) == ["# 一"]


def test_pages_are_counted_from_one_and_not_crossed():
    source = ParsedText("one\n\ntwo\n\nthree\n", pages=[0, 5, 10])
    assert [
        (chunk.page, source.text[chunk.start : chunk.end]) for chunk in split_chunks(source)
    ] == [
        (1, "one"),
        (2, "two"),
        (3, "three"),
    ]


def test_rows_stand_each_alone():
    assert pieces(ParsedText("a: 1\na: 2\n", rows=True)) == ["a: 1", "a: 2"]


def test_any_text_is_covered_in_order_and_without_overlap():
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choices("花a。 ，\n\n.\t#", k=rng.randrange(3_000)))
        headings = sorted(rng.sample(range(len(text) + 1), k=min(3, len(text))))
        source = ParsedText(text, [SectionHeading(at, rng.randint(1, 6), "h") for at in headings])
        position = 0
        for chunk in split_chunks(source):
            assert chunk.start >= position and chunk.end > chunk.start
            assert not text[chunk.start].isspace() and not text[chunk.end - 1].isspace()
            position = chunk.end
        if not headings:
            covered = "".join(text[chunk.start : chunk.end] for chunk in split_chunks(source))
            assert "".join(covered.split()) == "".join(text.split())


def test_a_hostile_text_is_split_in_linear_time():
    # A quadratic pass would take longer than any test may.
    for text in (" " * 2_000_000 + "a", "\n \n" * 500_000, "a" * 2_000_000, "#\n" * 500_000):
        split_chunks(ParsedText(text))
