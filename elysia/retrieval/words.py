"""A text as the terms that a search compares: one spelling for what people write in several.

Full and half width, large and small letters, accents, and simplified and traditional characters are
folded. Han, kana and hangul, which stand without spaces, give each character and each pair of
neighbours; everything else gives words. Knows nothing of indexes, scores or languages.
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
_lock = threading.Lock()


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repeated as often as they stand there.

    >>> terms("軟體 Ｇarden")
    ['软', '软体', '体', 'garden']
    """
    found: list[str] = []
    for unspaced, word in _RUN.findall(fold(text)):
        if word:
            found.append(word[:LONGEST])
            continue
        last = len(unspaced) - 1
        for place, character in enumerate(unspaced):
            found.append(character)
            if place < last:
                found.append(unspaced[place : place + 2])
    return found


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


@cache
def _to_simplified() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")
