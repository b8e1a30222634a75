"""Numbers and signs inside English text, written out, and words as sounds.

Sounds are IPA from the CMU dictionary (package eng_to_ipa), as the VITS models with
cjke_cleaners2 learned them; a word that it lacks is spelled or sounded out by rule. Knows nothing
of Chinese.
"""

from __future__ import annotations

import re
from functools import lru_cache

_BELOW_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_ONES = _BELOW_TWENTY.split()
_BY_TEN = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = _BY_TEN.split()
_GROUPS = ("", " thousand", " million", " billion", " trillion")
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
_MONTH_NAMES = (
    "January February March April May June July August September October November December"
)
_MONTHS = _MONTH_NAMES.split()
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
    text = re.sub(r"(?<=[A-Za-z])-?(?=\d)|(?<=\d)(?=[A-Za-z])", " ", text)
    text = re.sub(r"(?<![\w])[-−](?=\d)", "minus ", text)
    text = re.sub(r"\d+(?:\.\d+)*", lambda m: read_number(m[0]), text)
    text = re.sub("[" + re.escape("".join(_SIGNS)) + "]", lambda m: _SIGNS[m[0]], text)
    return re.sub(r" {2,}", " ", text).strip()


def read_number(digits: str) -> str:
    """A number of digits, perhaps with decimals, in words; long ones and 007 digit by digit.

    >>> read_number("105"), read_number("3.14"), read_number("007")
    ('one hundred five', 'three point one four', 'zero zero seven')
    """
    whole, *rest = digits.split(".")
    by_digit = len(whole) > 15 or (len(whole) > 1 and whole[0] == "0")
    said = _spell_digits(whole) if by_digit else _read_cardinal(int(whole))
    return " point ".join([said, *(_spell_digits(part) for part in rest)])


def read_ordinal(value: int) -> str:
    """1 to 'first', 22 to 'twenty second'."""
    *front, last = _read_cardinal(value).split()
    if last not in _ORDINALS:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    else:
        last = _ORDINALS[last]
    return " ".join([*front, last])


def _spell_digits(digits: str) -> str:
    return " ".join(_ONES[int(digit)] for digit in digits if digit.isdecimal())


def _read_cardinal(value: int) -> str:
    if value < 20:
        return _ONES[value]
    if value < 100:
        return _TENS[value // 10] + (" " + _ONES[value % 10] if value % 10 else "")
    if value < 1000:
        rest = " " + _read_cardinal(value % 100) if value % 100 else ""
        return f"{_ONES[value // 100]} hundred{rest}"
    power = (len(str(value)) - 1) // 3
    front, rest_value = divmod(value, 1000**power)
    rest = " " + _read_cardinal(rest_value) if rest_value else ""
    return _read_cardinal(front) + _GROUPS[power] + rest


def _read_date(found: re.Match[str]) -> str:
    month, day = int(found[2]), int(found[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return f"{_MONTHS[month - 1]} {read_ordinal(day)} {found[1]}"


def _read_time(found: re.Match[str]) -> str:
    hour, minute = int(found[1]), int(found[2])
    said = _read_cardinal(hour)
    if not minute:
        return said + (" o'clock" if hour <= 12 else " hundred")
    return f"{said} {'oh ' if minute < 10 else ''}{_read_cardinal(minute)}"


def _read_telephone(found: re.Match[str]) -> str:
    return ", ".join(_spell_digits(group) for group in re.findall(r"\d+", found[0]))


def _read_money(found: re.Match[str]) -> str:
    unit, small = _MONEY[found[1]]
    whole, cents, more, big = (
        found[2].replace(",", ""),
        found[3],
        found[4],
        (found[5] or "").strip(),
    )
    if big or more or (cents and not small):
        amount = read_number(
            whole + (f".{cents}" if cents else "") + (more or "").replace(".", "", bool(cents))
        )
        return f"{amount} {'thousand' if big == 'k' else big} {unit}s".replace("  ", " ")
    said = f"{read_number(whole)} {unit}" + ("" if whole == "1" or unit == "yuan" else "s")
    return said + (f" {_read_cardinal(int(cents))}" if cents and int(cents) else "")


def _read_unit(found: re.Match[str]) -> str:
    name = _UNITS[found[2].lower()]
    one = found[1].lstrip("-") == "1"
    name = (
        re.sub(r"s(?= per|$)", "", name, count=1) if one and name.endswith(("s", "hour")) else name
    )
    minus = "minus " if found[1].startswith("-") else ""
    return (
        f"{minus}{read_number(found[1].lstrip('-'))} {'foot' if one and name == 'feet' else name}"
    )


def _read_year(found: re.Match[str]) -> str:
    century, rest = int(found[1]), int(found[2])
    if century == 20 and rest < 10:
        said = "two thousand" + (f" {_read_cardinal(rest)}" if rest else "")
    elif not rest:
        said = _read_cardinal(century) + " hundred"
    else:
        said = f"{_read_cardinal(century)} {'oh ' if rest < 10 else ''}{_read_cardinal(rest)}"
    if not found[3]:
        return said
    return said[:-1] + "ies" if said.endswith("y") else said + "s"


_LETTER_NAMES = (
    "eɪ bi si di i ɛf ʤi eɪʧ aɪ ʤeɪ keɪ ɛl ɛm ɛn oʊ pi kju ɑr ɛs ti ju vi ˈdəbəlju ɛks waɪ zi"
)
_LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz", _LETTER_NAMES.split(), strict=True))
# Letters to sounds for words that no dictionary has: the longest that fits, from the left.
_LETTER_SOUNDS = {
    "tion": "ʃən", "sion": "ʒən", "ough": "oʊ", "augh": "ɔ", "eigh": "eɪ", "igh": "aɪ",
    "sch": "sk", "tch": "ʧ", "dge": "ʤ", "ch": "ʧ", "sh": "ʃ", "th": "θ", "ph": "f", "wh": "w",
    "ck": "k", "ng": "ŋ", "qu": "kw", "kn": "n", "wr": "r", "gh": "g", "ee": "i", "ea": "i",
    "oo": "u", "ou": "aʊ", "ow": "oʊ", "oi": "ɔɪ", "oy": "ɔɪ", "ai": "eɪ", "ay": "eɪ", "au": "ɔ",
    "aw": "ɔ", "ei": "eɪ", "ie": "i", "oa": "oʊ", "ar": "ɑr", "er": "ər", "ir": "ər", "or": "ɔr",
    "ur": "ər", "ia": "iə", "io": "ioʊ", "a": "æ", "b": "b", "c": "k", "d": "d", "e": "ɛ", "f": "f",
    "g": "g", "h": "h", "i": "ɪ", "j": "ʤ", "k": "k", "l": "l", "m": "m", "n": "n", "o": "oʊ",
    "p": "p", "q": "k", "r": "r", "s": "s", "t": "t", "u": "u", "v": "v", "w": "w", "x": "ks",
    "y": "i", "z": "z", "ce": "s", "ci": "sɪ", "cy": "si", "ge": "ʤ", "gi": "ʤɪ",
}  # fmt: skip
_LETTER_GROUP = re.compile("|".join(sorted(_LETTER_SOUNDS, key=len, reverse=True)))


_SPOKEN_CAPITALS = {
    "NASA",
    "NATO",
    "AIDS",
    "LASER",
    "RADAR",
    "HELLO",
    "YES",
    "NO",
    "WOW",
    "LOVE",
    "STOP",
    "GO",
}
_WORD_PART = re.compile(r"[A-Z]+(?![a-z'’])|[A-Z]?[a-z'’]+")


@lru_cache(maxsize=4096)
def word_to_ipa(word: str) -> str:
    """IPA of one word: CMU's, else part by part as its capitals show it.

    >>> word_to_ipa("hello"), word_to_ipa("ChatGPT")
    ('hɛˈloʊ', 'ʧæt ʤi pi ti')
    """
    word = word.replace("’", "'").strip("'")
    whole = _cmu_ipa(word.lower()) if not (word.isupper() and 1 < len(word) <= 5) else None
    if whole:
        return whole
    return " ".join(filter(None, (_part_to_ipa(part) for part in _WORD_PART.findall(word))))


def _part_to_ipa(part: str) -> str:
    """A part of a word: spelled when it is capitals or has no vowel, else known, else by rule."""
    lower = part.lower()
    capitals = part.isupper() and len(part) <= 5 and part not in _SPOKEN_CAPITALS
    if not capitals and (known := _cmu_ipa(lower)):
        return known
    if lower.endswith("'s") and len(lower) > 2:
        return _part_to_ipa(part[:-2]) + "z"
    if capitals or not re.search("[aeiouy]", lower):
        return " ".join(_LETTERS[char] for char in lower if char in _LETTERS)
    lower = re.sub(r"(?<=[^aeiou])e$", "", lower)
    return "".join(_LETTER_SOUNDS[piece] for piece in _LETTER_GROUP.findall(lower))


def _cmu_ipa(word: str) -> str | None:
    """CMU's IPA of a word in small letters, or None."""
    import eng_to_ipa

    said: str = eng_to_ipa.convert(word, keep_punct=False)
    return said if said and not said.endswith("*") else None
