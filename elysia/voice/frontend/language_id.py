"""The language of each stretch of a text, and its numbers written out in that language.

Decided sentence by sentence: kana makes a sentence Japanese and hangul Korean, Han makes it Chinese with
English in it, Latin letters alone make it English.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from elysia.voice.frontend import normalize_en, normalize_zh
from elysia.voice.frontend.strip_markup import HAN

LANGUAGES = ("zh", "en", "ja", "ko", "other")
_KANA = re.compile("[\u3041-\u30ff\uff66-\uff9f]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
_HAN = re.compile(f"[{HAN}]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_SENTENCE = re.compile(r"[^。！？!?\n]*[。！？!?\n]+|[^。！？!?\n]+")
# English words with a number between them keep it English inside Chinese: "Windows 11 Pro".
_ENGLISH_AROUND = re.compile(r"[A-Za-z][A-Za-z'’]* (?:[\d.,:$%]+ )+[A-Za-z][A-Za-z'’]*")


@dataclass(frozen=True)
class LanguageSpan:
    """A stretch in one of LANGUAGES; "other" has letters that no part of the front end can read."""

    language: str
    text: str


def detect_language(sentence: str) -> str:
    """The language of a sentence; one without letters counts as Chinese.

    >>> detect_language("我爱Python"), detect_language("I do."), detect_language("こんにちは世界")
    ('zh', 'en', 'ja')
    """
    if _KANA.search(sentence):
        return "ja"
    if _HANGUL.search(sentence):
        return "ko"
    if _HAN.search(sentence):
        return "zh"
    if _LATIN.search(sentence):
        return "en"
    return "other" if any(char.isalpha() for char in sentence) else "zh"


def normalize_numbers(text: str) -> str:
    """Write out numbers and signs, each sentence in its own language.

    >>> normalize_numbers("我有3个。I have 3.")
    '我有三个。I have three.'
    """
    return "".join(_normalize_sentence(part[0]) for part in _SENTENCE.finditer(text))


def _normalize_sentence(sentence: str) -> str:
    language = detect_language(sentence)
    if language == "en":
        end = re.search(r"\s*$", sentence)
        return normalize_en.normalize_en(sentence) + (end[0] if end else "")
    if language == "zh":
        sentence = _ENGLISH_AROUND.sub(lambda m: normalize_en.normalize_en(m[0]), sentence)
        return normalize_zh.normalize_zh(sentence)
    return sentence


def split_languages(text: str) -> list[LanguageSpan]:
    """The stretches of a normalized text, in order; punctuation and blanks belong to what precedes them.

    >>> [(s.language, s.text) for s in split_languages("我爱Python，真的。")]
    [('zh', '我爱'), ('en', 'Python，'), ('zh', '真的。')]
    """
    spans: list[LanguageSpan] = []
    for part in _SENTENCE.finditer(text):
        home = detect_language(part[0])
        for char in part[0]:
            language = _char_language(char, home)
            if spans and (language is None or language == spans[-1].language):
                spans[-1] = LanguageSpan(spans[-1].language, spans[-1].text + char)
            else:
                spans.append(LanguageSpan(language or home, char))
    return spans


def _char_language(char: str, home: str) -> str | None:
    """The language of a letter inside a sentence of language `home`; None when it is no letter."""
    if _HAN.match(char):
        return home if home in ("ja", "ko") else "zh"
    if _KANA.match(char):
        return "ja"
    if _HANGUL.match(char):
        return "ko"
    if _LATIN.match(char):
        return "en"
    return "other" if char.isalpha() else None
