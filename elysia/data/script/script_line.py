"""One line of a script, whatever its layout: who says what, in which scene."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

SPEECH, DIRECTION, HEADING, OTHER = "speech", "direction", "heading", "other"
BRACKETS = r"（[^（）]*）|\([^()]*\)|【[^【】]*】|\[[^\[\]]*\]|\*[^*]+\*"
_INLINE = re.compile(BRACKETS)
_QUOTES = {"「": "」", "『": "』", "“": "”", '"': '"', "‘": "’"}
_SEVERAL = re.compile(r"[、/&＆+]|和|与| and ", re.I)


@dataclass(frozen=True)
class ScriptLine:
    """A part of a script. `kind` is SPEECH, DIRECTION, HEADING or OTHER; `numbers` are the lines (or
    subtitles, or messages) it comes from, from 1; `scene` counts scenes from 1; `reason` says why an
    OTHER line is no speech.
    """

    kind: str
    text: str
    scene: int
    numbers: tuple[int, ...]
    speaker: str = ""
    reason: str = ""


def normalize_speaker(name: str) -> str:
    """A speaker's name without directions and marks, normalized.

    >>> normalize_speaker(" 小满（画外音）"), normalize_speaker("NOVA (V.O.)"), normalize_speaker("【阿砚】")
    ('小满', 'NOVA', '阿砚')
    """
    plain = unicodedata.normalize("NFKC", name).strip()
    if plain[:1] in "[【" and plain[-1:] in "]】":
        plain = plain[1:-1]
    return re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", plain).strip(" -—·*")


def is_several_speakers(name: str) -> bool:
    """Whether a name stands for more than one speaker: 小满和阿砚, A & B."""
    return bool(_SEVERAL.search(name))


def strip_quotes(text: str) -> str:
    """A line without quotes that enclose the whole of it.

    >>> strip_quotes("「早。」"), strip_quotes("“早。”他说")
    ('早。', '“早。”他说')
    """
    text = text.strip()
    end = _QUOTES.get(text[:1])
    if end and text.endswith(end) and end not in text[1:-1] and len(text) > 2:
        return text[1:-1].strip()
    return text


def strip_directions(text: str) -> str:
    """A speech without the stage directions in brackets.

    >>> strip_directions("（笑）早呀。(她转身)走吧。")
    '早呀。走吧。'
    """
    return re.sub(r"[ \t]{2,}", " ", _INLINE.sub("", text)).strip()
