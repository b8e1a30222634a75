"""Numbers and signs inside Chinese text, written out: dates, times, money, units, telephone numbers.

RULES are applied from the most particular to the most general; each replaces what it understands, so
that the general ones see only the rest. The numbers are spelled here and not by cn2an, which leaves out
zeros (3800003069 is 三十八亿零三千零六十九) and says 六万…亿 for 六万亿.
"""

from __future__ import annotations

import re
from collections.abc import Callable

UNITS = {
    "km/h": "公里每小时", "m/s": "米每秒", "kwh": "千瓦时", "km²": "平方公里", "km2": "平方公里",
    "m²": "平方米", "m2": "平方米", "㎡": "平方米", "m³": "立方米", "m3": "立方米",
    "km": "公里", "cm": "厘米", "mm": "毫米", "nm": "纳米", "μm": "微米", "m": "米",
    "kg": "千克", "mg": "毫克", "g": "克", "t": "吨",
    "ml": "毫升", "l": "升", "℃": "摄氏度", "°c": "摄氏度", "°f": "华氏度", "°": "度",
    "tb": "太字节", "gb": "吉字节", "mb": "兆字节", "kb": "千字节",
    "ghz": "吉赫兹", "mhz": "兆赫兹", "khz": "千赫兹", "hz": "赫兹",
    "kw": "千瓦", "w": "瓦", "v": "伏", "ma": "毫安", "mah": "毫安时", "kcal": "千卡",
    "min": "分钟", "ms": "毫秒", "h": "小时", "s": "秒",
}  # fmt: skip
CURRENCIES = {
    "¥": "元", "￥": "元", "$": "美元", "€": "欧元", "£": "英镑", "₩": "韩元",
    "RMB": "元", "CNY": "元", "USD": "美元", "EUR": "欧元", "JPY": "日元", "HK$": "港元",
}  # fmt: skip
MEASURES = "个只位本张次天年周件条杯块岁句首人名家间座辆匹头朵颗道两点分秒种样遍趟下双对层场碗瓶盒包份篇部台"
_SIGNS = {
    "&": "和", "+": "加", "×": "乘", "÷": "除以", "=": "等于", "≈": "约等于", "≥": "大于等于",
    "≤": "小于等于", "@": "at", "°": "度", "№": "号", "％": "%",
}  # fmt: skip

_N = r"\d+(?:\.\d+)?"
_EDGE = r"(?<![\dA-Za-z.])"
_UNIT = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_SYMBOL = "|".join(sorted(map(re.escape, CURRENCIES), key=len, reverse=True))

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def normalize_zh(text: str) -> str:
    """Write out every number and sign of `text`.

    >>> normalize_zh("2024年5月3日12:05，气温-3.5℃，涨了12%。")
    '二零二四年五月三日十二点零五分，气温负三点五摄氏度，涨了百分之十二。'
    >>> normalize_zh("打13800138000，花了¥12.50，买2个。")
    '打幺三八零零幺三八零零零，花了十二点五元，买两个。'
    """
    text = re.sub(r"(?<=\d)：(?=\d)", ":", text.replace("％", "%"))
    for pattern, say in RULES:
        text = pattern.sub(say, text)
    return text


def _read_date(match: re.Match[str]) -> str:
    year, month, day = match["year"], int(match["month"]), int(match["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return "".join(read_digits(part) for part in (year, match["month"], match["day"]))
    return f"{read_digits(year)}年{read_quantity(str(month))}月{read_quantity(str(day))}日"


def _read_time(match: re.Match[str]) -> str:
    hour, minute, second = match["hour"], match["minute"], match["second"]
    if int(hour) > 24 or int(minute) > 59:
        return f"{read_quantity(hour)}比{read_quantity(minute)}"
    words = ("两" if int(hour) == 2 else read_quantity(hour)) + "点"
    if int(minute) or second:
        words += ("零" if int(minute) < 10 else "") + (read_quantity(minute) if int(minute) else "")
        words += "分"
    elif not second:
        words += "整"
    return words + (_read_seconds(second) + "秒" if second else "")


def _read_seconds(number: str) -> str:
    return ("零" if number.startswith("0") and int(number) else "") + read_quantity(number)


def _read_telephone(match: re.Match[str]) -> str:
    plus = "加" if match[0].startswith("+") else ""
    groups = re.findall(r"\d+", match[0])
    return plus + "，".join(read_digits(group, telephone=True) for group in groups)


def _read_money(match: re.Match[str]) -> str:
    amount = match["amount"].replace(",", "")
    whole, _, cents = amount.partition(".")
    amount = f"{whole}.{cents.rstrip('0')}".rstrip(".") if cents else whole
    words = _read_counted(amount) if not match["big"] else read_quantity(amount) + match["big"]
    return words + CURRENCIES[match["symbol"].upper()]


def _read_unit(match: re.Match[str]) -> str:
    if match["unit"] in ("G", "M", "T", "H", "S"):  # 5G is a name, not five grams
        return read_quantity(match["n"]) + match["unit"]
    return _read_counted(match["n"]) + UNITS[match["unit"].lower()]


def _read_counted(number: str) -> str:
    return "两" if number == "2" else read_quantity(number)


def _read_percent(match: re.Match[str]) -> str:
    return ("千" if match["sign"] == "‰" else "百") + "分之" + read_quantity(match["n"])


def _read_model_code(match: re.Match[str]) -> str:
    """A number behind Latin letters, as in A380: two digits are a quantity, more are spelled."""
    number = match[0]
    return read_quantity(number) if len(number) <= 2 and number[0] != "0" else read_digits(number)


def _read_number(match: re.Match[str]) -> str:
    number = match[0].replace(",", "")
    whole = number.lstrip("+-−").partition(".")[0]
    if len(whole) > 1 and whole[0] == "0":
        return read_digits(number)
    return read_quantity(number)


def _build_rule(pattern: str, say: Callable[[re.Match[str]], str], flags: int = 0) -> Rule:
    return re.compile(pattern, flags), say


RULES: list[Rule] = [
    _build_rule(
        r"(?<!\d)(?P<year>\d{4})([-/.])(?P<month>\d{1,2})\2(?P<day>\d{1,2})(?!\d)", _read_date
    ),
    _build_rule(
        r"(?<![\d,.])(\d{4}|\d{2})(?=年(?!前|后|内|间|来|以|的时间))", lambda m: read_digits(m[1])
    ),
    _build_rule(
        r"(?<!\d)(?:(?:\+?86[- ]?)?1[3-9]\d([- ]?)\d{4}\1\d{4}|0\d{2,3}-\d{7,8}|[48]00-\d{3,4}-\d{3,4}"
        r"|\+\d{1,3}(?:[- ]\d{2,5}){2,4})(?!\d)",
        _read_telephone,
    ),
    _build_rule(r"(?<=[话机线打拨播报])(\s*)(\d{3}|\d{5})(?!\d)(?![.,%个块元])", _read_telephone),
    _build_rule(
        r"(比分[是为：:]?\s?)(\d+)[:：](\d+)",
        lambda m: f"{m[1].rstrip('：:')}{read_quantity(m[2])}比{read_quantity(m[3])}",
    ),
    _build_rule(r"(?<!\d)([5-9]0|0\d)(?=后(?!的?\d|来))", lambda m: read_digits(m[1])),
    _build_rule(
        r"(?<!\d)(?P<hour>\d{1,2}):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?!\d)", _read_time
    ),
    _build_rule(
        r"(?<!\d)(\d+):(\d+)(?!\d)", lambda m: f"{read_quantity(m[1])}比{read_quantity(m[2])}"
    ),
    _build_rule(
        rf"(?P<symbol>{_SYMBOL})\s?(?P<amount>\d[\d,]*(?:\.\d+)?)(?P<big>[万亿]?)",
        _read_money,
        re.I,
    ),
    _build_rule(
        r"(?P<amount>\d[\d,]*(?:\.\d+)?)(?P<big>[万亿]?)\s?(?P<symbol>RMB|CNY|USD|EUR|JPY|€)",
        _read_money,
    ),
    _build_rule(
        rf"({_N})\s?%?\s?[-~—–至到]\s?({_N})%",
        lambda m: f"百分之{read_quantity(m[1])}到百分之{read_quantity(m[2])}",
    ),
    _build_rule(rf"(?<![\dA-Za-z])(?P<n>[-−]?{_N})\s?(?P<sign>[%‰])", _read_percent),
    _build_rule(
        rf"(?<![\d.A-Za-z])({_N})\s?[-~—–]\s?({_N})(?=\s?(?:{_UNIT})(?![A-Za-z])|[^\d.A-Za-z=-]|$)",
        lambda m: f"{_read_counted(m[1])}到{m[2]}",
        re.I,
    ),
    _build_rule(rf"{_EDGE}(?P<n>[-−]?{_N})\s?(?P<unit>{_UNIT})(?![A-Za-z\d])", _read_unit, re.I),
    _build_rule(
        r"(?<![\d/])(\d+)/(\d+)(?![\d/])",
        lambda m: f"{read_quantity(m[2])}分之{read_quantity(m[1])}",
    ),
    _build_rule(
        rf"(?<![\d.,第\-−])2(?=\s?(?:[{MEASURES}]|小时|公|米|厘米|元|千克|吨|升)(?!份|月|号|日))",
        lambda m: "两",
    ),
    _build_rule(r"(?<=[A-Za-z])\d+(?![\d.])", _read_model_code),
    _build_rule(r"(?<=[A-Za-z]-)\d+(?![\d.])", _read_model_code),
    _build_rule(r"(?<![\dA-Za-z])[-−+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", _read_number),
    _build_rule(
        r"(?<=\d)\s?-\s?(?=\d)|(?<=[\d）)])\s?([+×÷=≈≥≤])\s?(?=[\d（(-])",
        lambda m: _SIGNS[m[1]] if m[1] else "减",
    ),
    _build_rule(
        r"(?<!\d)\d+(?:\.\d+){2,}", lambda m: "点".join(read_quantity(p) for p in m[0].split("."))
    ),
    _build_rule(rf"(?<![\dA-Za-z])[-−]{_N}|{_N}", _read_number),
    _build_rule("[" + re.escape("".join(_SIGNS)) + "]", lambda m: _SIGNS[m[0]]),
]


DIGITS = "零一二三四五六七八九"
_TENS = ("", "十", "百", "千")
_GROUPS = ("", "万", "亿", "万亿", "亿亿")
MAX_QUANTITY_DIGITS = 16  # digits; a longer number is read digit by digit


def read_quantity(number: str) -> str:
    """A number of digits, perhaps with a sign and a decimal point, as a quantity.

    >>> read_quantity("12"), read_quantity("105"), read_quantity("20010"), read_quantity("-3.50")
    ('十二', '一百零五', '二万零一十', '负三点五零')
    """
    if number[:1] in "+-−":
        return ("正" if number[0] == "+" else "负") + read_quantity(number[1:])
    whole, _, decimals = number.partition(".")
    words = (
        _read_integer(whole)
        if len(whole.lstrip("0")) <= MAX_QUANTITY_DIGITS
        else read_digits(whole)
    )
    return words + ("点" + read_digits(decimals) if decimals else "")


def read_digits(number: str, *, telephone: bool = False) -> str:
    """Digit by digit; on the telephone 1 is 幺.

    >>> read_digits("2024"), read_digits("110", telephone=True)
    ('二零二四', '幺幺零')
    """
    words = "".join(DIGITS[int(digit)] for digit in number if digit.isdecimal())
    return words.replace("一", "幺") if telephone else words


def _read_integer(number: str) -> str:
    number = number.lstrip("0")
    if not number:
        return "零"
    parts: list[str] = []
    groups = [number[max(0, end - 4) : end] for end in range(len(number), 0, -4)][::-1]
    owed = False  # a group of zeros was skipped, so 零 must come before the next digit
    for place, group in enumerate(groups):
        value = int(group)
        if not value:
            owed = bool(parts)
            continue
        if parts and (owed or value < 1000):
            parts.append("零")
        parts.append(_read_group(value) + _GROUPS[len(groups) - 1 - place])
        owed = False
    words = "".join(parts)
    return words[1:] if words.startswith("一十") else words


def _read_group(value: int) -> str:
    words, zero = "", False
    for power in (3, 2, 1, 0):
        digit = value // 10**power % 10
        if digit:
            words += ("零" if zero and words else "") + DIGITS[digit] + _TENS[power]
            zero = False
        else:
            zero = True
    return words
