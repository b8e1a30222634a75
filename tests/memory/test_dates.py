"""Days that a text names."""

from __future__ import annotations

from datetime import datetime

import pytest

from elysia.memory.dates import find_date_ranges

NOON = datetime(2024, 5, 13, 12).timestamp()  # a Monday


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("前天我说了什么", "2024-05-11", "2024-05-11"),
        ("三月十六号那天", "2024-03-16", "2024-03-16"),
        ("去年十月", "2023-10-01", "2023-10-31"),
        ("上个月", "2024-04-01", "2024-04-30"),
        ("二月底", "2024-02-20", "2024-02-29"),
        ("上周末", "2024-05-11", "2024-05-12"),
        ("3天前", "2024-05-10", "2024-05-10"),
        ("三个月前", "2024-02-01", "2024-02-29"),
        ("2024年3月1日", "2024-03-01", "2024-03-01"),
        ("What did I do on May 2nd?", "2024-05-02", "2024-05-02"),
        ("the first of May", "2024-05-01", "2024-05-01"),
        ("in February", "2024-02-01", "2024-02-29"),
        ("two days ago", "2024-05-11", "2024-05-11"),
        ("last week", "2024-05-06", "2024-05-12"),
        ("July 4, 2022", "2022-07-04", "2022-07-04"),
        ("in December", "2023-12-01", "2023-12-31"),
    ],
)
def test_days_are_found(text, first, last):
    (span,) = find_date_ranges(text, NOON)
    assert (str(span.first), str(span.last)) == (first, last)
    assert span.contains(span.bounds[0]) and not span.contains(span.bounds[1])


@pytest.mark.parametrize(
    "text",
    ["You may go", "三个月", "31 April", "二月三十号", "99999天前", "一心一意", "second thoughts"],
)
def test_what_names_no_day_finds_none(text):
    assert find_date_ranges(text, NOON) == []


def test_a_plan_looks_ahead_and_a_question_back():
    assert str(find_date_ranges("周二", NOON)[0].first) == "2024-05-07"
    assert str(find_date_ranges("周二", NOON, ahead=True)[0].first) == "2024-05-14"
    assert str(find_date_ranges("5月1号", NOON, ahead=True)[0].first) == "2025-05-01"
