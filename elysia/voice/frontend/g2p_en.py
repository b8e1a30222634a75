"""English words as IPA: from the CMU dictionary, else spelled or sounded out by rule.

The dictionary is the package eng_to_ipa, from which the VITS models with cjke_cleaners2 learned.
"""

from __future__ import annotations

import re
from functools import lru_cache

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

# Words in capitals that are spoken, not spelled.
_SPOKEN_CAPITALS = {
    "NASA", "NATO", "AIDS", "LASER", "RADAR", "HELLO", "YES", "NO", "WOW", "LOVE", "STOP", "GO",
}  # fmt: skip
_WORD_PART = re.compile(r"[A-Z]+(?![a-z'’])|[A-Z]?[a-z'’]+")


@lru_cache(maxsize=4096)
def word_to_ipa(word: str) -> str:
    """IPA of one word: the dictionary's, else part by part, cut where its capitals show it.

    >>> word_to_ipa("hello"), word_to_ipa("ChatGPT")
    ('hɛˈloʊ', 'ʧæt ʤi pi ti')
    """
    word = word.replace("’", "'").strip("'")
    whole = _cmu_ipa(word.lower()) if not (word.isupper() and 1 < len(word) <= 5) else None
    if whole:
        return whole
    return " ".join(filter(None, (_part_to_ipa(part) for part in _WORD_PART.findall(word))))


def _part_to_ipa(part: str) -> str:
    """A part of a word: spelled if it is in capitals or has no vowel, else looked up, else by rule."""
    lower = part.lower()
    capitals = part.isupper() and len(part) <= 5 and part not in _SPOKEN_CAPITALS
    if not capitals and (entry := _cmu_ipa(lower)):
        return entry
    if lower.endswith("'s") and len(lower) > 2:
        return _part_to_ipa(part[:-2]) + "z"
    if capitals or not re.search("[aeiouy]", lower):
        return " ".join(_LETTERS[char] for char in lower if char in _LETTERS)
    lower = re.sub(r"(?<=[^aeiou])e$", "", lower)
    return "".join(_LETTER_SOUNDS[piece] for piece in _LETTER_GROUP.findall(lower))


def _cmu_ipa(word: str) -> str | None:
    """The dictionary's IPA of a lower-case word; None when it has no entry."""
    import eng_to_ipa

    ipa: str = eng_to_ipa.convert(word, keep_punct=False)
    return ipa if ipa and not ipa.endswith("*") else None


def to_model_ipa(ipa: str) -> str:
    """The dictionary's IPA in the symbols of cjke_cleaners2: no affricate letters, ɹ, dark l.

    >>> to_model_ipa("ˈlɪtəl ʤəʤ")
    'ˈlɪtəɫ dʒədʒ'
    """
    ipa = re.sub(r"l(?=[^aeiouæɑɔəɛɪʊ ]*(?: |$))", "ɫ", ipa)
    return ipa.replace("r", "ɹ").replace("ʤ", "dʒ").replace("ʧ", "tʃ")
