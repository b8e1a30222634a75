"""Plays and the like: `角色：台词`, `Name: line`, `角色：「台词」`, `角色「台词」`, scene headings, stage
directions in brackets. Knows nothing of subtitles, novels or chats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from elysia.data.script.lines import (
    BRACKETS,
    DIRECTION,
    HEADING,
    OTHER,
    SPEECH,
    Line,
    several,
    speaker_of,
    unquoted,
)

NUMBER = r"[0-9一二三四五六七八九十百零〇两]+"
HEADS = (
    r"#+\s*\S.*",
    rf"[【\[（(]?\s*第\s*{NUMBER}\s*[幕场章集节回話话折](?=$|[\s:：、，·】\]）)-]).*",
    r"[【\[（(]?\s*(?:场景|地点|时间|場景|地點|時間)\s*[:：].*",
    r"[\[(]?\s*(?:scene|act|chapter|episode)\s+(?:\d+|[ivxlc]+|one|two|three|four|five)\b.*",
    r"[\[(]?\s*(?:scene|setting)\s*[:：].*",
    r"(?:INT|EXT|INT/EXT)[. ].+",
    r"[-=*_—~]{3,}|(?:\*\s*){3,}",
)
HEAD = re.compile(rf"^\s*(?:{'|'.join(HEADS)})\s*$", re.I)
NAME = r"[【\[]?[^\W\d_][\w .·•’'\-、&/]{0,30}?[】\]]?"
SPOKEN = re.compile(rf"^\s*(?:[-–—•]\s*)?({NAME}\s*(?:{BRACKETS})?)\s*[:：]\s*(.*)$")
QUOTED = re.compile(rf"^\s*({NAME}\s*(?:{BRACKETS})?)\s*([「『].*[」』])\s*$")
ASIDE = re.compile(rf"^\s*(?:{BRACKETS})\s*$")
# Words that stand before a colon without speaking.
NO_SPEAKER = frozenset(
    [
        "注",
        "备注",
        "旁白",
        "字幕",
        "音效",
        "时间",
        "地点",
        "人物",
        "作者",
        "剧名",
        "标题",
        "note",
        "narrator",
        "cast",
        "characters",
        "title",
        "author",
        "http",
        "https",
    ]
)
# 小满说：“……” is a novel's.
TOLD = re.compile(r".(?:说|道|问|答|喊|叫|笑|叹|回应)$")
LONGEST_NAME = 4  # words


def play(texts: Sequence[str]) -> Iterator[Line]:
    """The lines of a play. A line that follows a speech at once and names nobody goes on with it."""
    scene, numbers, speaker, said, open_ = 1, [0], "", [""], False

    def flush() -> Iterator[Line]:
        nonlocal speaker
        if speaker:
            yield _speech(speaker, "\n".join(said), scene, tuple(numbers))
        speaker = ""

    begun = False
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            open_ = False
            continue
        if HEAD.match(text):
            yield from flush()
            scene += begun
            begun = False
            yield Line(HEADING, text.strip(" \t#"), scene, (number,))
            open_ = False
            continue
        found = spoken(text)
        if found:
            yield from flush()
            speaker, said, numbers, open_, begun = found[0], [found[1]], [number], True, True
        elif ASIDE.match(text):
            yield from flush()
            yield Line(DIRECTION, text.strip(), scene, (number,))
            open_ = False
        elif speaker and open_:
            said.append(text.strip())
            numbers.append(number)
        else:
            yield from flush()
            yield Line(
                OTHER, text.strip(), scene, (number,), reason="nobody is named as its speaker"
            )
    yield from flush()


def _speech(speaker: str, text: str, scene: int, numbers: tuple[int, ...]) -> Line:
    if several(speaker):
        return Line(OTHER, text, scene, numbers, reason="several speak at once")
    text = unquoted(text)
    if not text:
        return Line(OTHER, text, scene, numbers, speaker, reason="the speech is empty")
    return Line(SPEECH, text, scene, numbers, speaker)


def spoken(text: str) -> tuple[str, str] | None:
    """(speaker, what is said) of a line that names its speaker, else None.

    >>> spoken("小满（笑）：早呀。"), spoken("阿砚「走吧。」"), spoken("12:30 出发")
    (('小满', '（笑）早呀。'), ('阿砚', '「走吧。」'), None)
    """
    match = SPOKEN.match(text) or QUOTED.match(text)
    if not match or match.group(2).startswith("//"):
        return None
    name = speaker_of(match.group(1))
    if TOLD.search(name) and match.group(2)[:1] in ("“", "「", '"'):
        return None
    if not name or name.lower() in NO_SPEAKER or len(name.split()) > LONGEST_NAME:
        return None
    aside = re.search(rf"(?:{BRACKETS})\s*$", match.group(1).strip())
    front = (
        aside.group().strip()
        if aside and not match.group(1).strip().startswith(("【", "["))
        else ""
    )
    return name, front + match.group(2).strip()


def is_play(texts: Sequence[str]) -> bool:
    """Whether enough lines name their speaker for the text to be read as a play."""
    full = [text for text in texts if text.strip()]
    return sum(spoken(text) is not None for text in full) * 4 >= len(full)
