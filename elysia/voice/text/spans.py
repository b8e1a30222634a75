"""Which language each stretch of a text is in, and its numbers written out in that language.

Decided sentence by sentence: kana makes a sentence Japanese, Han makes it Chinese with English in
it, Latin letters alone make it English. Knows nothing of sounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from elysia.voice.text import chinese, english
from elysia.voice.text.strip import HAN

LANGUAGES = ("zh", "en", "ja", "ko", "other")
_KANA = re.compile("[\u3041-\u30ff\uff66-\uff9f]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
_HAN = re.compile(f"[{HAN}]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_SENTENCE = re.compile(r"[^。！？!?\n]*[。！？!?\n]+|[^。！？!?\n]+")
# English words with a number between them keep it English inside Chinese: "Windows 11 Pro".
_ENGLISH_AROUND = re.compile(r"[A-Za-z][A-Za-z'’]* (?:[\d.,:$%]+ )+[A-Za-z][A-Za-z'’]*")


@dataclass(frozen=True)
class Span:
    """A stretch in one of LANGUAGES; "other" has letters that no part of ours can say."""

    language: str
    text: str


def language_of(sentence: str) -> str:
    """The language of a whole sentence; without any letter it is Chinese.

    >>> language_of("我爱Python"), language_of("I do."), language_of("こんにちは世界")
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


def normalise(text: str) -> str:
    """Numbers and signs written out, each sentence in its own language.

    >>> normalise("我有3个。I have 3.")
    '我有三个。I have three.'
    """
    return "".join(_normalised(part[0]) for part in _SENTENCE.finditer(text))


def _normalised(sentence: str) -> str:
    language = language_of(sentence)
    if language == "en":
        end = re.search(r"\s*$", sentence)
        return english.normalise(sentence) + (end[0] if end else "")
    if language == "zh":
        sentence = _ENGLISH_AROUND.sub(lambda m: english.normalise(m[0]), sentence)
        return chinese.normalise(sentence)
    return sentence


def split(text: str) -> list[Span]:
    """The stretches of a normalised text, in order; marks and blanks go with what is before them.

    >>> [(s.language, s.text) for s in split("我爱Python，真的。")]
    [('zh', '我爱'), ('en', 'Python，'), ('zh', '真的。')]
    """
    spans: list[Span] = []
    for part in _SENTENCE.finditer(text):
        home = language_of(part[0])
        for char in part[0]:
            language = _of_char(char, home)
            if spans and (language is None or language == spans[-1].language):
                spans[-1] = Span(spans[-1].language, spans[-1].text + char)
            else:
                spans.append(Span(language or home, char))
    return spans


def _of_char(char: str, home: str) -> str | None:
    """The language of a letter inside a sentence of language `home`; None for what is no letter."""
    if _HAN.match(char):
        return home if home in ("ja", "ko") else "zh"
    if _KANA.match(char):
        return "ja"
    if _HANGUL.match(char):
        return "ko"
    if _LATIN.match(char):
        return "en"
    return "other" if char.isalpha() else None
