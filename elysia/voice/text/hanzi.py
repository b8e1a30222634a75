"""Numbers as Chinese says them: quantities, digits, years, telephone numbers.

Knows nothing of the text around a number; `chinese.py` decides which reading fits.
"""

from __future__ import annotations

DIGITS = "零一二三四五六七八九"
_TENS = ("", "十", "百", "千")
_GROUPS = ("", "万", "亿", "万亿", "亿亿")
LONGEST_QUANTITY = 16  # digits; a longer number is read digit by digit


def quantity(number: str) -> str:
    """A number of digits, perhaps with a sign and a decimal point, as a quantity.

    >>> quantity("12"), quantity("105"), quantity("20010"), quantity("-3.50")
    ('十二', '一百零五', '二万零一十', '负三点五零')
    """
    if number[:1] in "+-−":
        return ("正" if number[0] == "+" else "负") + quantity(number[1:])
    whole, _, decimals = number.partition(".")
    said = _whole(whole) if len(whole.lstrip("0")) <= LONGEST_QUANTITY else digits(whole)
    return said + ("点" + digits(decimals) if decimals else "")


def digits(number: str, *, telephone: bool = False) -> str:
    """Digit by digit; on the telephone 1 is 幺.

    >>> digits("2024"), digits("110", telephone=True)
    ('二零二四', '幺幺零')
    """
    said = "".join(DIGITS[int(digit)] for digit in number if digit.isdecimal())
    return said.replace("一", "幺") if telephone else said


def _whole(number: str) -> str:
    number = number.lstrip("0")
    if not number:
        return "零"
    parts: list[str] = []
    groups = [number[max(0, end - 4) : end] for end in range(len(number), 0, -4)][::-1]
    owed = False  # a zero to be said before the next digit
    for place, group in enumerate(groups):
        value = int(group)
        if not value:
            owed = bool(parts)
            continue
        if parts and (owed or value < 1000):
            parts.append("零")
        parts.append(_group(value) + _GROUPS[len(groups) - 1 - place])
        owed = False
    said = "".join(parts)
    return said[1:] if said.startswith("一十") else said


def _group(value: int) -> str:
    said, zero = "", False
    for power in (3, 2, 1, 0):
        digit = value // 10**power % 10
        if digit:
            said += ("零" if zero and said else "") + DIGITS[digit] + _TENS[power]
            zero = False
        else:
            zero = True
    return said
