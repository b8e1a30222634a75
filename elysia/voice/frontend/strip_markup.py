"""Removes what is written for the eye only: code, addresses, markdown, emoji, stage directions.

The text inside bold, links and headings stays. Works on a complete text; a stream is cut into sentences
first (`voice.sentence_splitter`).
"""

from __future__ import annotations

import re
import unicodedata

HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"

_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FENCE = re.compile(r"(?:```|~~~).*?(?:```|~~~|\Z)", re.S)
# Every repetition has a limit, so that no input can make a rule backtrack for long.
_IMAGE = re.compile(r"!\[[^\[\]\n]{0,300}\]\([^()\n]{0,500}\)")
_LINK = re.compile(r"\[([^\[\]\n]{0,300})\]\([^()\n]{0,500}\)")
_MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_ADDRESS = re.compile(r"(?:https?://|ftp://|www\.)[!-~]+", re.I)
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")
_RULE = re.compile(r"^[ \t]*(?:[-*_=][ \t]*){3,}$", re.M)
_TABLE_RULE = re.compile(r"^[ \t]*\|?[ \t:|-]*-{3}[ \t:|-]*$", re.M)
_TABLE_ROW = re.compile(r"^[ \t]*\|(.*)\|[ \t]*$", re.M)
_LINE_START = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+•][ \t]+)+", re.M)
_BOLD = re.compile(r"(\*\*\*|\*\*|__|~~)(?=\S)([^\n]{1,500}?)(?<=\S)\1")
_TICKS = re.compile(r"`([^`\n]*)`")
# A direction has at most 120 characters; a longer parenthesis is prose, and is read.
# Between letters or digits a star multiplies; beside Han, which has no blanks, it may open at once.
_STARS = re.compile(r"(?<![A-Za-z0-9*])\*(?=[^\s*])[^*]{1,120}?(?<=\S)\*(?![A-Za-z0-9*])")
_WIDE = re.compile(r"（[^（）]{0,120}）|【[^【】]{0,120}】")
_NARROW = re.compile(r"\(([^()]{0,120})\)")
_WORDLESS = re.compile(r"^[\W_]*$")
_PICTURES = re.compile(
    "[\U0001f000-\U0001faff\U0001fb00-\U0001fbff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff"
    "\u25a0-\u25ff\u3030\u303d\u3297\u3299\ufe0e\ufe0f\u200d\u20e3\u266a-\u266f"
    "\U000e0020-\U000e007f\U0001f1e6-\U0001f1ff]"
)
_LEFTOVER = re.compile(r"[*_`#|\\^{}<>=]{1,}(?=\s|$)|(?<![\w])[*_`#|\\^{}]{2,}")


def strip_markup(text: str, *, directions: bool = False) -> str:
    """`text` without markup; `directions` keeps the words of *actions* and （动作）.

    >>> strip_markup("**你好**，我是`爱莉`！😊（挥手）看 https://a.b/c?d=1 吧")
    '你好，我是爱莉！看 吧'
    >>> strip_markup("*smiles* Hello, [friend](http://x.y).")
    'Hello, friend.'
    """
    text = _plain_characters(_TERMINAL.sub("", text))
    text = _FENCE.sub("\n", text)
    text = _LINK.sub(r"\1", _IMAGE.sub("", text))
    text = _TAG.sub("", _ADDRESS.sub("", _MAIL.sub("", text)))
    text = _TABLE_ROW.sub(_join_cells, _TABLE_RULE.sub("", _RULE.sub("", text)))
    text = _LINE_START.sub("", text)
    text = _TICKS.sub(r"\1", _BOLD.sub(r"\2", text))
    text = text.replace("*", "") if directions else _without_directions(text)
    text = _LEFTOVER.sub("", _PICTURES.sub("", text))
    return _tidy(text)


def _plain_characters(text: str) -> str:
    """Drop controls, bidirectional marks and lone surrogates; full-width letters and digits to ASCII."""
    chars = []
    for char in text.replace("\r\n", "\n").replace("\r", "\n"):
        point = ord(char)
        if 0xFF10 <= point <= 0xFF19 or 0xFF21 <= point <= 0xFF3A or 0xFF41 <= point <= 0xFF5A:
            chars.append(chr(point - 0xFEE0))
        elif char in "\n\u200d" or unicodedata.category(char)[0] != "C":
            chars.append(" " if char.isspace() and char != "\n" else char)
        elif char == "\t":
            chars.append(" ")
    return "".join(chars)


def _without_directions(text: str) -> str:
    text = _WIDE.sub("", _STARS.sub("", text))
    return _NARROW.sub(_unless_prose, text)


def _unless_prose(match: re.Match[str]) -> str:
    """An ASCII parenthesis is a stage direction if it holds Han, or no word at all (a kaomoji)."""
    inside = match[1]
    direction = re.search(f"[{HAN}]", inside) or _WORDLESS.match(inside)
    return "" if direction else match[0]


def _join_cells(match: re.Match[str]) -> str:
    return "，".join(cell.strip() for cell in match[1].split("|") if cell.strip()) + "。"


def _tidy(text: str) -> str:
    """Shorten runs of blanks and of punctuation."""
    text = re.sub(r"[ \u00a0\u3000]+", " ", text)
    text = re.sub(r"(?:\.{3,}|。{2,}|…+|⋯+)", "…", text)
    text = re.sub(r"([！!？?])[！!？?]+", r"\1", text)
    text = re.sub(r"[～〜]+|~{2,}", "~", text)
    text = re.sub(r"[—―─–]{1,}", "—", text)
    text = re.sub(r"([，,、；;])[，,、；; ]+(?=[，,、；;])", r"\1", text)
    text = re.sub(r" *\n[ \n]*", "\n", text)
    return text.strip()
