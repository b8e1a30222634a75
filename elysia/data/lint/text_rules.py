"""Rules for one text: damage, markup, unfilled blanks, private data, mixed scripts.

Every check is a function from a text to descriptions of what is wrong. It is cheap on clean text: a
plain search for the characters that a fault needs comes before any regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from zhon import cedict

LOST = "\N{REPLACEMENT CHARACTER}"
# C0 and C1 without tab and line ends, DEL, direction marks, invisible spaces and joiners, BOM. The
# zero-width joiner is allowed: emoji are composed with it.
CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ue000-\uf8ff]"
)
SURROGATE = re.compile("[\ud800-\udfff]")
# UTF-8 decoded as Latin-1 or cp1252, what GBK makes of U+FFFD, and uninitialized memory of a debugger.
_AFTER = "[\x80-\xbf\u2013-\u2122\u0152-\u0192\u02c6\u02dc]"  # bytes 80 to BF, in either
MOJIBAKE = re.compile(f"[ÃÂ]{_AFTER}|(?:[ä-é]{_AFTER}{{2}}){{2}}|â€|ðŸ|锟斤拷|烫烫烫|屯屯屯")
TAG = re.compile(
    r"</?(?:br|p|div|span|font|b|i|u|em|strong|a|img|center|small|td|tr|li|ul)\b[^<>\n]{0,200}>"
    r"|&(?:nbsp|amp|lt|gt|quot|#\d{2,5});"
    r"|\[/(?:b|i|u|url|img|color|quote|size)\]|\[(?:url|img|color|size)=[^\]\n]{1,80}\]"
    r"|\{\\[a-z]+\d*[^}\n]{0,80}\}",
    re.I,
)
TEMPLATE = re.compile(
    r"<\|[a-zA-Z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>|\[(?:UNUSED|unused)_TOKEN_\d+\]"
    r"|^###? ?(?:Human|Assistant|Instruction|Response):",
    re.M,
)
# In a web page or program that is the subject of an answer, tags are not a fault.
CODE = re.compile(r"```|<!doctype|<html|<body|<head\b|</\w+>\s*\n\s*<|标签|\btags?\b|HTML", re.I)
BLANK = re.compile(
    r"\{\{\s*\w{1,30}\s*\}\}"
    r"|\[(?:(?:your|my|insert|enter)\b[^\[\]\n]{0,40}|[^\[\]\n]{0,30}\b(?:name|city|town|hometown"
    r"|state|location|username|university|address)|(?:user|speaker|person) ?\d)\]"
    r"|<(?:your|insert)[ _][^<>\n]{1,30}>|[\[【<](?:你的|您的|请填写|填入|插入|此处)[^\]】>\n]{0,15}[\]】>]"
    r"|(?<![A-Za-z])(?:XXX+|lorem ipsum)(?![A-Za-z])|(?<!某)某某某",
    re.I,
)
MACROS = re.compile(r"\{\{\s*(?:char|user|original)\s*\}\}", re.I)  # a card's, filled in later
MAIL = re.compile(r"(?<![\w.+-])\w[\w.+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}")
NO_MAIL = re.compile(
    r"@(?:example|test|domain|email|mail|company|xxx+|your\w*|abc)\.|@\S*\.(?:example|test|invalid)",
    re.I,
)
PHONE = re.compile(
    r"(?<![A-Za-z\d.\-])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?![A-Za-z\d-])"
    r"|(?<![\d.\-])0\d{2,3}-\d{7,8}(?!\d)|(?<![\w.\-])\+\d{1,3}[- ]\(?\d{2,4}\)?[- ]\d{3,4}[- ]?\d{3,4}(?!\d)"
    r"|(?<![\w.\-])\(\d{3}\) ?\d{3}-\d{4}(?!\d)|(?<![\w.\-])[2-9]\d{2}-[2-9]\d{2}-\d{4}(?!\d)"
)
IDENTITY = re.compile(
    r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\d)"
)
DIGITS = re.compile(r"\d[\d \-)]{8}")
SIMPLIFIED = re.compile(f"[{''.join(sorted(set(cedict.simp) - set(cedict.trad)))}]")
TRADITIONAL = re.compile(f"[{''.join(sorted(set(cedict.trad) - set(cedict.simp)))}]")
HAN = re.compile("[\u4e00-\u9fff]")


def find_lost_characters(text: str) -> Iterator[str]:
    """U+FFFD, or half of a surrogate pair."""
    if LOST in text:
        yield f"U+FFFD at character {text.index(LOST) + 1}: {quote_around(text, text.index(LOST))}"
    elif match := SURROGATE.search(text):
        byte = "\udc80" <= match.group() <= "\udcff"
        what = "a byte that is no UTF-8" if byte else "half of a surrogate pair"
        yield f"{what} at character {match.start() + 1}: {quote_around(text, match.start())}"


def find_mojibake(text: str) -> Iterator[str]:
    """Text decoded with the wrong encoding."""
    if match := MOJIBAKE.search(text):
        yield f"reads as decoded wrongly: {quote_around(text, match.start())}"


def find_control_characters(text: str) -> Iterator[str]:
    """Control and invisible characters."""
    characters = CONTROL.findall(text)
    if characters:
        names = ", ".join(f"U+{ord(ch):04X}" for ch in dict.fromkeys(characters))
        yield f"{len(characters)} control or invisible characters ({names[:80]})"


def find_placeholders(text: str) -> Iterator[str]:
    """A blank that was never filled in; {{char}} and {{user}} are filled by a card."""
    for match in BLANK.finditer(text):
        if not MACROS.fullmatch(match.group()):
            yield f"the blank {match.group()} was never filled in"
            return


def find_personal_data(text: str) -> Iterator[str]:
    """A mail address, phone number or Chinese identity number; shown in part only."""
    if "@" in text:
        addresses = (match.group() for match in MAIL.finditer(text))
        address = next((text for text in addresses if not NO_MAIL.search(text)), None)
        if address:
            yield f"a mail address ({_mask(address)})"
    if not DIGITS.search(text):
        return
    if any(_is_valid_id(match.group()) for match in IDENTITY.finditer(text)):
        yield "an identity number"
    elif match := PHONE.search(text):
        yield f"a phone number ({_mask(match.group())})"


def find_markup(text: str) -> Iterator[str]:
    """Tags, entities, subtitle codes, and marks of a prompt template."""
    if ("<" in text or "[" in text or "#" in text) and (match := TEMPLATE.search(text)):
        yield f"a mark of a prompt template, {match.group()}"
    elif (
        ("<" in text or "&" in text or "[" in text or "{\\" in text)
        and (match := TAG.search(text))
        and not CODE.search(text)
    ):
        yield f"markup, {match.group()[:40]}"


def find_mixed_scripts(text: str) -> Iterator[str]:
    """Traditional and simplified characters side by side."""
    if text.isascii():
        return
    few = TRADITIONAL.findall(text)
    if not few:
        return
    other = SIMPLIFIED.findall(text)
    less, more, kind = (
        (few, other, "traditional") if len(few) <= len(other) else (other, few, "simplified")
    )
    if len(set(less)) >= 2 and len(more) >= 2:
        yield f"{len(less)} {kind} characters ({''.join(dict.fromkeys(less))[:12]}) among the others"


# rule, check; every text goes through all of them
CHECKS: tuple[tuple[str, Callable[[str], Iterator[str]]], ...] = (
    ("lost-character", find_lost_characters),
    ("mojibake", find_mojibake),
    ("control-character", find_control_characters),
    ("placeholder", find_placeholders),
    ("personal-data", find_personal_data),
    ("markup", find_markup),
    ("mixed-script", find_mixed_scripts),
)

_DAMAGE = re.compile(f"[{LOST}\ud800-\udfff{CONTROL.pattern[1:-1]}ÃÂä-éâð锟烫屯]")


def get_possible_rules(text: str) -> set[str]:
    """The rules of CHECKS that can find anything in a text, or in several texts joined by line ends.

    A plain search for what every fault contains, so that a clean row is searched once only.
    """
    low, rules = text.lower(), set()
    if _DAMAGE.search(text):
        rules |= {"lost-character", "mojibake", "control-character"}
    if any(mark in low for mark in ("{{", "[", "<", "【", "某某某", "xxx", "lorem")):
        rules.add("placeholder")
    if "@" in text or DIGITS.search(text):
        rules.add("personal-data")
    if any(mark in text for mark in ("<", "[", "#", "&", "{\\")):
        rules.add("markup")
    if TRADITIONAL.search(text) and SIMPLIFIED.search(text):
        rules.add("mixed-script")
    return rules


_ENDS = set("。．.！!？?…~～—”\"’'」』》)）】]}>*`;；:|♪♡❤^_=/%℃°")
_GOES_ON = tuple("，,、：（(“「『《+—-和与的")
_LISTED = re.compile(r"^\s*(?:[-*•·#>|]|\d{1,3}[.、)）]|[一二三四五六七八九十]+、|[A-Da-d][.)])")


def find_cut_off(reply: str) -> Iterator[str]:
    """A reply whose last sentence does not end.

    Lists, titles, verse, code and short replies often end without a mark; they are not reported.
    """
    text = reply.rstrip()
    if len(text) < 24 or text[-1] in _ENDS or not _sentences(text):
        return
    last = text.rsplit("\n", 1)[-1]
    if text[-1] in _GOES_ON[:7]:
        yield f"ends in mid-sentence: …{text[-16:]}"
        return
    if (
        not text[-1].isalpha()
        or _LISTED.match(last)
        or "```" in text
        or "#" in last
        or "：" in last
        or ": " in last
    ):
        return
    lines = [line for line in text.split("\n") if line.strip()]
    unmarked = sum(line.rstrip()[-1:] not in _ENDS for line in lines)
    if unmarked == 1 and (HAN.match(text[-1]) or len(last.split()) >= 3):
        yield f"ends in mid-sentence: …{text[-16:]}"


def _sentences(text: str) -> bool:
    return any(mark in text for mark in ("。", "！", "？", ". ", "! ", "? ", ".\n"))


def quote_around(text: str, at: int) -> str:
    """A few characters around a place, on one line."""
    return "“" + " ".join(text[max(0, at - 10) : at + 10].split()) + "”"


def _mask(text: str) -> str:
    return f"{text[:3]}…{text[-2:]}"


def _is_valid_id(number: str) -> bool:
    """Whether the last digit of a Chinese identity number is right (ISO 7064 MOD 11-2)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(number, weights, strict=False))
    return "10X98765432"[total % 11] == number[-1].upper()
