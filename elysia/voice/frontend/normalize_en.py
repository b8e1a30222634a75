"""Numbers, signs and abbreviations inside English text, written out in words.

The rules of `normalize_en` run from the most particular to the most general, so that a date is not read
as two subtractions. Cardinals and ordinals come from num2words.
"""

from __future__ import annotations

import re

from num2words import num2words

MAX_CARDINAL_DIGITS = 15  # longer numbers are read digit by digit

_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
_SHORT_FORMS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "st": "saint", "jr": "junior",
    "prof": "professor", "vs": "versus", "etc": "et cetera", "no": "number", "approx": "approximately",
    "e.g": "for example", "i.e": "that is",
}  # fmt: skip
_UNITS = {
    "km/h": "kilometers per hour", "mph": "miles per hour", "km": "kilometers", "cm": "centimeters",
    "mm": "millimeters", "m": "meters", "kg": "kilograms", "mg": "milligrams", "g": "grams",
    "ml": "milliliters", "l": "liters", "gb": "gigabytes", "mb": "megabytes", "kb": "kilobytes",
    "ghz": "gigahertz", "hz": "hertz", "°c": "degrees Celsius", "℃": "degrees Celsius",
    "°f": "degrees Fahrenheit", "°": "degrees", "ft": "feet", "lb": "pounds", "h": "hours",
    "min": "minutes", "ms": "milliseconds", "s": "seconds",
}  # fmt: skip
_MONEY = {
    "$": ("dollar", "cent"),
    "€": ("euro", "cent"),
    "£": ("pound", "penny"),
    "¥": ("yuan", ""),
}
_SIGNS = {"&": " and ", "+": " plus ", "=": " equals ", "×": " times ", "÷": " divided by ",
          "%": " percent ", "@": " at ", "#": " number "}  # fmt: skip
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))


def normalize_en(text: str) -> str:
    """`text` with every number, sign and short form in words.

    >>> normalize_en("Dr. Li paid $3.50 on 2024-05-03 for 21 km.")
    'doctor Li paid three dollars fifty on May third twenty twenty four for twenty one kilometers.'
    """
    text = re.sub(
        r"\b(e\.g|i\.e)\.|\b(mr|mrs|ms|dr|jr|prof|vs|etc|approx)\.|\b(st|no)\.(?=\s?[A-Z\d])",
        lambda m: _SHORT_FORMS[(m[1] or m[2] or m[3]).lower()],
        text,
        flags=re.I,
    )
    text = re.sub(r"\b(\d{4})[-/](\d{1,2})[-/](\d{1,2})\b", _read_date, text)
    text = re.sub(
        r"(?<!\d)(?:\+\d{1,3}[- ])?\(?\d{3}\)?[- ]\d{3}-?\d{4}(?!\d)", _read_telephone, text
    )
    text = re.sub(r"\b(\d{1,2}):([0-5]\d)\b", _read_time, text)
    text = re.sub(
        r"([$€£¥])\s?(\d[\d,]*)(?:\.(\d{2}))?(\.\d+)?( ?(?:million|billion|k\b))?",
        _read_money,
        text,
    )
    text = re.sub(
        r"(?<![\d,])\d{1,3}(?:,\d{3})+(?!\d)", lambda m: read_number(m[0].replace(",", "")), text
    )
    text = re.sub(r"(?<![\d.])(1[1-9]|20)(\d0)(s)\b", _read_year, text)
    text = re.sub(
        rf"(?<![\w.])(-?\d+(?:\.\d+)?)\s?({_UNIT})(?![A-Za-z\d])", _read_unit, text, flags=re.I
    )
    text = re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", lambda m: read_ordinal(int(m[1][:15])), text)
    text = re.sub(
        r"\b(\d+)/(\d+)\b", lambda m: f"{read_number(m[1])} over {read_number(m[2])}", text
    )
    text = re.sub(r"(?<=\d)\s?[-–]\s?(?=\d)", " to ", text)
    text = re.sub(r"(?<![\d.])(1[1-9]|20)(\d\d)(s?)(?![\d.]\d|\d)", _read_year, text)
    # What is still glued to letters is a name, such as A380 or 4K.
    text = re.sub(r"(?<=[A-Za-z])-?(?=\d)|(?<=\d)(?=[A-Za-z])", " ", text)
    text = re.sub(r"(?<![\w])[-−](?=\d)", "minus ", text)
    text = re.sub(r"\d+(?:\.\d+)*", lambda m: read_number(m[0]), text)
    text = re.sub("[" + re.escape("".join(_SIGNS)) + "]", lambda m: _SIGNS[m[0]], text)
    return re.sub(r" {2,}", " ", text).strip()


def read_number(digits: str) -> str:
    """A number in digits, perhaps with decimals, in words; very long ones and 007 digit by digit.

    >>> read_number("105"), read_number("3.14"), read_number("007")
    ('one hundred five', 'three point one four', 'zero zero seven')
    """
    whole, *decimals = digits.split(".")
    by_digit = len(whole) > MAX_CARDINAL_DIGITS or (len(whole) > 1 and whole[0] == "0")
    words = _spell_digits(whole) if by_digit else read_cardinal(int(whole))
    return " point ".join([words, *(_spell_digits(part) for part in decimals)])


def read_cardinal(value: int) -> str:
    """105 as 'one hundred five'."""
    return _plain_words(num2words(value))


def read_ordinal(value: int) -> str:
    """22 as 'twenty second'."""
    return _plain_words(num2words(value, to="ordinal"))


def _plain_words(words: str) -> str:
    """American English without marks: "one hundred and five" and "twenty-two" lose theirs."""
    return words.replace(" and ", " ").replace("-", " ").replace(",", "")


def _spell_digits(digits: str) -> str:
    return " ".join(read_cardinal(int(digit)) for digit in digits if digit.isdecimal())


def _read_date(match: re.Match[str]) -> str:
    month, day = int(match[2]), int(match[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{_MONTHS[month - 1]} {read_ordinal(day)} {match[1]}"


def _read_time(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    words = read_cardinal(hour)
    if not minute:
        return words + (" o'clock" if hour <= 12 else " hundred")
    return f"{words} {'oh ' if minute < 10 else ''}{read_cardinal(minute)}"


def _read_telephone(match: re.Match[str]) -> str:
    return ", ".join(_spell_digits(group) for group in re.findall(r"\d+", match[0]))


def _read_money(match: re.Match[str]) -> str:
    unit, small = _MONEY[match[1]]
    whole, cents, more = match[2].replace(",", ""), match[3], match[4]
    big = (match[5] or "").strip()
    if big or more or (cents and not small):
        amount = read_number(
            whole + (f".{cents}" if cents else "") + (more or "").replace(".", "", bool(cents))
        )
        return f"{amount} {'thousand' if big == 'k' else big} {unit}s".replace("  ", " ")
    words = f"{read_number(whole)} {unit}" + ("" if whole == "1" or unit == "yuan" else "s")
    return words + (f" {read_cardinal(int(cents))}" if cents and int(cents) else "")


def _read_unit(match: re.Match[str]) -> str:
    name, amount = _UNITS[match[2].lower()], match[1].lstrip("-")
    if amount == "1" and name == "feet":
        name = "foot"
    elif amount == "1" and name.endswith(("s", "hour")):
        name = re.sub(r"s(?= per|$)", "", name, count=1)
    return f"{'minus ' if match[1].startswith('-') else ''}{read_number(amount)} {name}"


def _read_year(match: re.Match[str]) -> str:
    century, rest = int(match[1]), int(match[2])
    if century == 20 and rest < 10:
        words = "two thousand" + (f" {read_cardinal(rest)}" if rest else "")
    elif not rest:
        words = read_cardinal(century) + " hundred"
    else:
        words = f"{read_cardinal(century)} {'oh ' if rest < 10 else ''}{read_cardinal(rest)}"
    if not match[3]:
        return words
    return words[:-1] + "ies" if words.endswith("y") else words + "s"
