"""Finds the dates that a text names, in Chinese and English, relative to a moment: 上周二, May 3rd, two
days ago.

Dates are of this machine's time zone. dateparser and jionlp found fewer of the expressions in
`benchmarks/memory.py` and its tests.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

DIGITS = "零一二三四五六七八九"
MONTHS = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
]  # fmt: skip
WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
ORDINALS = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
]  # fmt: skip
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

_N = r"(?:\d{1,2}|[一二三四五六七八九十]{1,3}|两)"
_MONTH = rf"(?:{'|'.join(MONTHS)}|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b\.?"
_DAY = rf"(?:\d{{1,2}}(?:st|nd|rd|th)?|{'|'.join(ORDINALS)})\b"
_COUNT = rf"(?:\d{{1,3}}|a|an|{'|'.join(NUMBERS)})"

DayBounds = tuple[date, date]  # the first and the last day, both included
# From a match, today, and whether to look ahead. None: the match is not a date after all.
DateRule = Callable[["re.Match[str]", date, bool], DayBounds | None]


@dataclass(frozen=True)
class DateRange:
    """The days from `first` to `last`, both included, and the words that name them."""

    first: date
    last: date
    words: str

    def contains(self, at: float) -> bool:
        """Whether a moment (seconds since 1970) lies in it."""
        return self.first <= get_local_date(at) <= self.last

    @property
    def bounds(self) -> tuple[float, float]:
        """The first moment, and the first one after it, in seconds since 1970."""
        after = datetime.combine(self.last + timedelta(days=1), datetime.min.time())
        return datetime.combine(self.first, datetime.min.time()).timestamp(), after.timestamp()


def get_local_date(at: float) -> date:
    """The day of a moment (seconds since 1970)."""
    return datetime.fromtimestamp(at).date()


def find_date_ranges(text: str, at: float, *, ahead: bool = False) -> list[DateRange]:
    """The dates that `text`, written at `at` (seconds since 1970), names, in order.

    A day without a year, or a weekday alone, is the last one; with `ahead`, the next one.
    """
    today = get_local_date(at)
    ranges: dict[int, DateRange] = {}  # by position
    is_used = [False] * len(text)
    for pattern, rule in _RULES:
        for match in pattern.finditer(text):
            if any(is_used[match.start() : match.end()]):
                continue  # part of a longer expression
            try:
                days = rule(match, today, ahead)
            except (ValueError, OverflowError):
                continue  # the 31st of April
            if days:
                is_used[match.start() : match.end()] = [True] * (match.end() - match.start())
                ranges[match.start()] = DateRange(*days, match.group().strip())
    return [ranges[position] for position in sorted(ranges)]


def parse_number(text: str) -> int:
    """A number in digits or words, Chinese or English, cardinal or ordinal.

    >>> [parse_number(text) for text in ("12", "十二", "二十八", "third", "22nd", "a")]
    [12, 12, 28, 3, 22, 1]
    """
    text = text.casefold()
    if digits := re.match(r"\d+", text):
        return int(digits.group())
    for words in (ORDINALS, NUMBERS):
        if text in words:
            return words.index(text) + 1
    if text in ("a", "an"):
        return 1
    tens, ten, ones = text.replace("两", "二").rpartition("十")
    value = DIGITS.index(ones) if ones else 0
    return value + (10 * (DIGITS.index(tens) if tens else 1) if ten else 0)


def _parse_month(word: str) -> int:
    return next(n for n, name in enumerate(MONTHS, 1) if name.startswith(word.casefold()[:3]))


def _single(day: date) -> DayBounds:
    return day, day


def _whole_month(year: int, month: int) -> DayBounds:
    """A month, counted on from January of `year`: month 13 is the next January, month 0 the last December."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    return date(year, month, 1), date(year, month, monthrange(year, month)[1])


def _whole_year(year: int) -> DayBounds:
    return date(year, 1, 1), date(year, 12, 31)


def _nearest(today: date, month: int, day: int | None, ahead: bool) -> DayBounds:
    """That day or month, of the year in which it is the last one or the next one."""
    for year in (today.year, today.year + 1) if ahead else (today.year, today.year - 1):
        first, last = _single(date(year, month, day)) if day else _whole_month(year, month)
        if last >= today if ahead else first <= today:
            break
    return first, last


def _part_of_month(month: DayBounds, part: str) -> DayBounds:
    first, last = month
    if part in ("初", "early"):
        return first, first.replace(day=10)
    if part in ("中", "中旬", "mid"):
        return first.replace(day=11), first.replace(day=20)
    return (first.replace(day=20), last) if part in ("底", "末", "late") else month


def _full_date(match: re.Match[str], _today: date, _ahead: bool) -> DayBounds:
    return _single(date(*(int(part) for part in match.groups())))


def _zh_day(match: re.Match[str], today: date, ahead: bool) -> DayBounds:
    year, month, day, part = match.groups()
    month = parse_number(month)
    if year:
        years = {"去年": -1, "今年": 0, "明年": 1}
        value = today.year + years[year] if year in years else int(year[:-1])
        days = _single(date(value, month, parse_number(day))) if day else _whole_month(value, month)
    else:
        days = _nearest(today, month, parse_number(day) if day else None, ahead)
    return days if day else _part_of_month(days, part or "")


def _zh_relative_month(match: re.Match[str], today: date, _ahead: bool) -> DayBounds:
    step = {"上": -1, "这": 0, "本": 0, "下": 1}[match[1]]
    first, last = _whole_month(today.year, today.month + step)
    if match[2]:
        first = last = first.replace(day=parse_number(match[2]))
    return _part_of_month((first, last), match[3] or "")


def _week(today: date, step: int, weekday: int | None) -> DayBounds:
    """The week `step` weeks on, or one day of it (Monday is 0)."""
    monday = today - timedelta(days=today.weekday()) + timedelta(weeks=step)
    if weekday is None:
        return monday, monday + timedelta(days=6)
    return _single(monday + timedelta(days=weekday))


def _zh_week(match: re.Match[str], today: date, ahead: bool) -> DayBounds | None:
    step = {"上上": -2, "上": -1, "这": 0, "本": 0, "下": 1, "下下": 2}.get(match[1] or "")
    if match[2] == "末":
        return _weekend(today, step, ahead)
    day = {"日": 6, "天": 6}.get(match[2], parse_number(match[2]) - 1) if match[2] else None
    if step is None:
        return _weekday(today, day, ahead) if day is not None else None
    return _week(today, step, day)


def _weekend(today: date, step: int | None, ahead: bool) -> DayBounds:
    if step is None:
        step = 0 if ahead or today.weekday() >= 5 else -1
    saturday = _week(today, step, 5)[0]
    return saturday, saturday + timedelta(days=1)


def _weekday(today: date, day: int, ahead: bool) -> DayBounds:
    distance = (day - today.weekday()) % 7 if ahead else -((today.weekday() - day) % 7)
    return _single(today + timedelta(days=distance or (7 if ahead else 0)))


def _named_days(days: dict[str, int]) -> DateRule:
    def rule(match: re.Match[str], today: date, _ahead: bool) -> DayBounds:
        return _single(today + timedelta(days=days[match[0].casefold()]))

    return rule


def _ago(match: re.Match[str], today: date, _ahead: bool) -> DayBounds:
    count, unit = parse_number(match[1]), match[2].casefold()
    if unit in ("天", "day"):
        return _single(today - timedelta(days=count))
    if unit in ("周", "星期", "week"):
        return _week(today, -count, None)
    if unit in ("月", "month"):
        return _whole_month(today.year, today.month - count)
    return _whole_year(today.year - count)


def _relative_year(match: re.Match[str], today: date, _ahead: bool) -> DayBounds:
    return _whole_year(today.year + (-1 if match[0].casefold() in ("去年", "last year") else 1))


def _en_day(month: int, day: int, year: int) -> DateRule:
    """`month`, `day` and `year` are numbers of groups."""

    def rule(match: re.Match[str], today: date, ahead: bool) -> DayBounds:
        if match[year]:
            value = int(match[year])
            return _single(date(value, _parse_month(match[month]), parse_number(match[day])))
        return _nearest(today, _parse_month(match[month]), parse_number(match[day]), ahead)

    return rule


def _en_month(match: re.Match[str], today: date, ahead: bool) -> DayBounds:
    month = _nearest(today, _parse_month(match[2]), None, ahead)
    return _part_of_month(month, (match[1] or "").strip("- ").casefold())


def _en_week(match: re.Match[str], today: date, ahead: bool) -> DayBounds:
    step, unit = {"last": -1, "this": 0, "next": 1}[match[1].casefold()], match[2].casefold()
    if unit == "week":
        return _week(today, step, None)
    if unit == "month":
        return _whole_month(today.year, today.month + step)
    if unit == "weekend":
        return _weekend(today, step, ahead)
    return _weekday(today, WEEKDAYS.index(unit), step >= 0)


def _en_weekday(match: re.Match[str], today: date, ahead: bool) -> DayBounds:
    return _weekday(today, WEEKDAYS.index(match[1].casefold()), ahead)


def _rules() -> Iterator[tuple[str, DateRule]]:
    """Patterns with what their matches mean."""
    yield r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)", _full_date
    yield (
        rf"(\d{{4}}年|去年|今年|明年)?的?({_N})月份?(?:({_N})[日号]|(初|中旬|中|底|末))?",
        _zh_day,
    )
    yield rf"(上|这|本|下)个?月(?:({_N})[日号]|(初|中旬|底|末))?", _zh_relative_month
    yield r"(上上|下下|上|这|本|下)?(?:个)?(?:周|星期|礼拜)([一二三四五六日天末])?", _zh_week
    yield (
        "大前天|前天|昨天|昨晚|今天|今晚|明天|明晚|大后天|后天",
        _named_days(
            {"大前天": -3, "前天": -2, "昨天": -1, "昨晚": -1, "今天": 0, "今晚": 0}
            | {"明天": 1, "明晚": 1, "后天": 2, "大后天": 3}
        ),
    )
    yield rf"(?<![\d一二三四五六七八九十])({_N}) ?个?(天|周|星期|月|年)(?:之前|以前|前)", _ago
    yield "去年|明年", _relative_year
    yield rf"\b({_MONTH}) (?:the )?({_DAY})(?:,? (\d{{4}})\b)?", _en_day(1, 2, 3)
    yield rf"\b({_DAY})(?: of)? ({_MONTH})(?:,? (\d{{4}})\b)?", _en_day(2, 1, 3)
    # A month alone needs a preposition, as "may" is more often a verb.
    yield (
        rf"(?<![a-z])(early |late |mid[- ])?(?:(?<=in )|(?<=of )|(?<=early )|(?<=late )|"
        rf"(?<=since )|(?<=during )|(?<=last )|(?<=this )|(?<=mid-))({_MONTH})",
        _en_month,
    )
    yield (
        r"\bthe day before yesterday\b|\byesterday\b|\btoday\b|\btonight\b|\blast night\b|"
        r"\bthe day after tomorrow\b|\btomorrow\b",
        _named_days(
            {"the day before yesterday": -2, "yesterday": -1, "last night": -1, "today": 0}
            | {"tonight": 0, "tomorrow": 1, "the day after tomorrow": 2}
        ),
    )
    yield rf"\b({_COUNT}) (day|week|month|year)s? ago\b", _ago
    yield rf"\b(last|this|next) (week|month|weekend|{'|'.join(WEEKDAYS)})\b", _en_week
    yield r"\b(?:last|next) year\b", _relative_year
    yield rf"\b({'|'.join(WEEKDAYS)})\b", _en_weekday


# Longer expressions come first: what they match is not matched again.
_RULES = [(re.compile(pattern, re.I), rule) for pattern, rule in _rules()]
