"""A text as the terms that a search compares: one spelling for what people write in several.

Full and half width, large and small letters, accents, and simplified and traditional characters are
folded. Han, kana and hangul, which stand without spaces, give each character and each pair of
neighbours; everything else gives words; where the two touch ("1786年"), they give a pair, too.
jieba's words on top of these, and groups of three, found no more (`benchmarks/knowledge.py`).
Knows nothing of indexes or scores.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache
from typing import Any

LONGEST = 64  # characters of a word that count; longer ones are base64 and the like

_UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"([{_UNSPACED}]+)|((?:(?![{_UNSPACED}])[^\W_])+(?:'[a-z]+)?)")
_ACCENTED = re.compile("[\u00c0-\u024f\u1e00-\u1eff]")
_HALVES = re.compile("[\ud800-\udfff]")  # of a character; no text in UTF-8 has them
# Of folded questions. Texts seldom ask, so BM25 would take these for telling.
_ASKING = re.compile(
    "为什么|什么|甚么|怎么样|怎么|怎样|如何|多少|哪里|哪儿|哪个|哪些|哪一|请问|何时|何地|何人|何处|何者"
)
_PARTICLES = frozenset("谁何吗呢几是的哪")
_lock = threading.Lock()


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repeated as often as they stand there.

    >>> terms("軟體 Ｇarden")
    ['软', '软体', '体', 'garden']
    """
    return _terms(fold(text))


def asked(question: str) -> list[str]:
    """The terms of a question that tell its answer: those that only ask are left out, if others stay.

    >>> asked("玫瑰是什么颜色的？")
    ['玫', '玫瑰', '瑰', '瑰是', '颜', '颜色', '色', '色的']
    """
    text = fold(question)
    found = [term for term in _terms(_ASKING.sub(" ", text)) if term not in _PARTICLES]
    return found or _terms(text)


def fold(text: str) -> str:
    """The text with everything that readers take for the same written the same way.

    >>> fold("Ｃafé 愛莉")
    'cafe 爱莉'
    """
    text = unicodedata.normalize("NFKC", _HALVES.sub(" ", text)).casefold().replace("’", "'")
    text = _ACCENTED.sub(lambda hit: unicodedata.normalize("NFKD", hit.group())[0], text)
    # opencc's converter is C++ that says nothing of threads; it takes microseconds.
    with _lock:
        return str(_to_simplified().convert(text))


def _terms(text: str) -> list[str]:
    found: list[str] = []
    before: re.Match[str] | None = None
    for run in _RUN.finditer(text):
        unspaced, word = run.groups()
        if before is not None and before.end() == run.start():
            found.append(_side(before, -1) + _side(run, 0))
        before = run
        if word:
            found.append(word[:LONGEST])
            continue
        last = len(unspaced) - 1
        for place, character in enumerate(unspaced):
            found.append(character)
            if place < last:
                found.append(unspaced[place : place + 2])
    return found


def _side(run: re.Match[str], place: int) -> str:
    """What of a run stands next to another: a whole word, or one character."""
    return str(run[2][:LONGEST]) if run[2] else str(run[1][place])


@cache
def _to_simplified() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")
