"""Subtitles (SRT, ASS, SSA, VTT): the speaker from the style's name field or from the text; a long
silence ends a scene. Knows nothing of plays beyond how a line names its speaker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pysubs2

from elysia.core.errors import DataError
from elysia.data.script.lines import DIRECTION, OTHER, SPEECH, Line, several, speaker_of, unquoted
from elysia.data.script.plays import ASIDE, spoken

GAP = 8.0  # seconds without a subtitle that end a scene
_BRACKETED = re.compile(r"^\s*[（(【\[]([^（）()【】\[\]]{1,20})[）)】\]]\s*(\S.*)$", re.S)


def subtitles(text: str, format: str, gap: float = 0.0) -> Iterator[Line]:
    """The lines of subtitles; numbers count subtitles as they stand in the file.

    `format` is srt, ass, ssa or vtt. DataError where they cannot be read.
    """
    try:
        events = list(pysubs2.SSAFile.from_string(text, format_=format))
    except Exception as error:  # of any kind: whatever a damaged file leads the parser to
        raise DataError(f"the subtitles cannot be read as {format} ({error}).") from error
    if not events:
        raise DataError(f"there are no {format} subtitles in it.")
    scene, end = 1, None
    order = sorted(range(len(events)), key=lambda index: events[index].start)
    for index in order:
        event, number = events[index], (index + 1,)
        words = event.plaintext.strip()
        if event.is_comment:
            yield Line(OTHER, words, scene, number, reason="a comment of the subtitles")
            continue
        if end is not None and (event.start - end) / 1000 > (gap or GAP):
            scene += 1
        end = max(end or 0, event.end)
        yield _line(words, speaker_of(event.name or ""), scene, number)


def _line(words: str, named: str, scene: int, number: tuple[int, ...]) -> Line:
    found = (named, words) if named else spoken(words)
    if not words:
        return Line(OTHER, words, scene, number, reason="the subtitle is empty")
    if found is None and ASIDE.match(words):
        return Line(DIRECTION, words, scene, number)
    if found is None and (match := _BRACKETED.match(words)):
        found = (speaker_of(match.group(1)), match.group(2))
    if found is None:
        return Line(OTHER, words, scene, number, reason="nobody is named as its speaker")
    if several(found[0]):
        return Line(OTHER, words, scene, number, reason="several speak at once")
    return Line(SPEECH, unquoted(found[1]), scene, number, found[0])
