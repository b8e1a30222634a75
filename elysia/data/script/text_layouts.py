"""Parse plays, novels and subtitles into script lines.

Plays: `角色：台词`, `Name: line`, `角色：「台词」`, `角色「台词」`, scene headings, stage directions in
brackets. Novels, best effort: quoted speech whose speaker is named beside it; what is uncertain (a
pronoun, a quote without a name) is set aside, not guessed. Subtitles (SRT, ASS, SSA, VTT): the speaker
comes from the event's name field or from the text, and a long silence ends a scene.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import pysubs2

from elysia.core.errors import DataError
from elysia.data.script.script_line import (
    BRACKETS,
    DIRECTION,
    HEADING,
    OTHER,
    SPEECH,
    ScriptLine,
    is_several_speakers,
    normalize_speaker,
    strip_quotes,
)

_NUMBER = r"[0-9一二三四五六七八九十百零〇两]+"
_HEADINGS = (
    r"#+\s*\S.*",
    rf"[【\[（(]?\s*第\s*{_NUMBER}\s*[幕场章集节回話话折](?=$|[\s:：、，·】\]）)-]).*",
    r"[【\[（(]?\s*(?:场景|地点|时间|場景|地點|時間)\s*[:：].*",
    r"[\[(]?\s*(?:scene|act|chapter|episode)\s+(?:\d+|[ivxlc]+|one|two|three|four|five)\b.*",
    r"[\[(]?\s*(?:scene|setting)\s*[:：].*",
    r"(?:INT|EXT|INT/EXT)[. ].+",
    r"[-=*_—~]{3,}|(?:\*\s*){3,}",
)
_HEADING = re.compile(rf"^\s*(?:{'|'.join(_HEADINGS)})\s*$", re.I)
_NAME = r"[【\[]?[^\W\d_][\w .·•’'\-、&/]{0,30}?[】\]]?"
_SPEECH = re.compile(rf"^\s*(?:[-–—•]\s*)?({_NAME}\s*(?:{BRACKETS})?)\s*[:：]\s*(.*)$")
_QUOTED_SPEECH = re.compile(rf"^\s*({_NAME}\s*(?:{BRACKETS})?)\s*([「『].*[」』])\s*$")
_STAGE_DIRECTION = re.compile(rf"^\s*(?:{BRACKETS})\s*$")
# Words that stand before a colon without speaking.
_NOT_SPEAKERS = frozenset(
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
_NOVEL_SPEECH = re.compile(r".(?:说|道|问|答|喊|叫|笑|叹|回应)$")
_LONGEST_NAME = 4  # words


def parse_play(texts: Sequence[str]) -> Iterator[ScriptLine]:
    """The lines of a play. A line that directly follows a speech and names nobody continues it."""
    scene, numbers, speaker, words, is_open = 1, [0], "", [""], False

    def flush() -> Iterator[ScriptLine]:
        nonlocal speaker
        if speaker:
            yield _speech(speaker, "\n".join(words), scene, tuple(numbers))
        speaker = ""

    begun = False
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            is_open = False
            continue
        if _HEADING.match(text):
            yield from flush()
            scene += begun
            begun = False
            yield ScriptLine(HEADING, text.strip(" \t#"), scene, (number,))
            is_open = False
            continue
        speech = parse_speech(text)
        if speech:
            yield from flush()
            speaker, words, numbers, is_open, begun = speech[0], [speech[1]], [number], True, True
        elif _STAGE_DIRECTION.match(text):
            yield from flush()
            yield ScriptLine(DIRECTION, text.strip(), scene, (number,))
            is_open = False
        elif speaker and is_open:
            words.append(text.strip())
            numbers.append(number)
        else:
            yield from flush()
            yield ScriptLine(
                OTHER, text.strip(), scene, (number,), reason="nobody is named as its speaker"
            )
    yield from flush()


def _speech(speaker: str, text: str, scene: int, numbers: tuple[int, ...]) -> ScriptLine:
    if is_several_speakers(speaker):
        return ScriptLine(OTHER, text, scene, numbers, reason="several speak at once")
    text = strip_quotes(text)
    if not text:
        return ScriptLine(OTHER, text, scene, numbers, speaker, reason="the speech is empty")
    return ScriptLine(SPEECH, text, scene, numbers, speaker)


def parse_speech(text: str) -> tuple[str, str] | None:
    """(speaker, speech) of a line that names its speaker, else None.

    >>> parse_speech("小满（笑）：早呀。"), parse_speech("阿砚「走吧。」"), parse_speech("12:30 出发")
    (('小满', '（笑）早呀。'), ('阿砚', '「走吧。」'), None)
    """
    match = _SPEECH.match(text) or _QUOTED_SPEECH.match(text)
    if not match or match.group(2).startswith("//"):
        return None
    name = normalize_speaker(match.group(1))
    if _NOVEL_SPEECH.search(name) and match.group(2)[:1] in ("“", "「", '"'):
        return None
    if not name or name.lower() in _NOT_SPEAKERS or len(name.split()) > _LONGEST_NAME:
        return None
    aside = re.search(rf"(?:{BRACKETS})\s*$", match.group(1).strip())
    front = (
        aside.group().strip()
        if aside and not match.group(1).strip().startswith(("【", "["))
        else ""
    )
    return name, front + match.group(2).strip()


def is_play(texts: Sequence[str]) -> bool:
    """Whether enough lines (a quarter) name their speaker for the text to be read as a play."""
    full = [text for text in texts if text.strip()]
    return sum(parse_speech(text) is not None for text in full) * 4 >= len(full)


_QUOTE = re.compile(r"“([^“”]+)”|「([^「」]+)」|『([^『』]+)』|\"([^\"]+)\"")
_VERB = r"(?:说道|问道|答道|喊道|叫道|笑道|叹道|回答|开口|嘟囔|低声说|轻声说|说|问|答|喊|叫|道|笑)"
_VERB_EN = (
    r"(?:said|asked|replied|answered|whispered|shouted|cried|called|murmured|laughed|added|sighed)"
)
_NAME_BEFORE_QUOTE = re.compile(
    rf"(?:^|[。！？”」\s])([\u4e00-\u9fff·]{{2,5}}?|[A-Z][A-Za-z]+){_VERB}(?:道|着)?\s*[:：，,]?\s*[“「『]"
)
_NAME_EN = r"([A-Z][a-z]+(?: [A-Z][a-z]+)?)"
_NAME_BESIDE_VERB = re.compile(rf"\b{_NAME_EN} {_VERB_EN}\b|\b{_VERB_EN} {_NAME_EN}")
_PRONOUNS = frozenset(["他", "她", "它", "我", "你", "他们", "她们", "有人", "那人"])


def parse_novel(texts: Sequence[str], known: Collection[str] = ()) -> Iterator[ScriptLine]:
    """The lines of a novel; `known` are names of speakers, in addition to those that the text shows."""
    names = sorted({*known, *_find_names(texts)}, key=len, reverse=True)
    scene, begun = 1, False
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        if _HEADING.match(text) and not _QUOTE.search(text):
            scene += begun
            begun = False
            yield ScriptLine(HEADING, text.strip(" \t#"), scene, (number,))
            continue
        quotes = [next(filter(None, match.groups())).strip() for match in _QUOTE.finditer(text)]
        if not quotes:
            yield ScriptLine(OTHER, text.strip(), scene, (number,), reason="narration")
            continue
        begun = True
        speakers = _speakers(text, names)
        if len(speakers) == 1:
            yield ScriptLine(SPEECH, "".join(quotes), scene, (number,), speakers.pop())
        else:
            reason = "its speaker is uncertain" if not speakers else "several might be its speaker"
            yield ScriptLine(OTHER, text.strip(), scene, (number,), reason=reason)


def _speakers(text: str, names: Sequence[str]) -> set[str]:
    """Names beside a verb of speaking, outside the quotes."""
    around = _QUOTE.sub("“”", text)
    speakers: set[str] = set()
    for name in names:
        word, english = re.escape(name), ""
        if name.isascii():  # which may stand in a Chinese sentence, too
            english = rf"\b{word}\b(?: \w+){{0,2}} {_VERB_EN}\b|\b{_VERB_EN} {word}\b|"
            word = rf"(?<![A-Za-z]){word}(?![A-Za-z])"
        says = rf"{english}{word}[^“”。！？，,]{{0,8}}{_VERB}|{word}[^“”。！？]{{0,6}}[:：]\s*“"
        if re.search(says, around) and not any(name in other for other in speakers):
            speakers.add(name)
    return speakers


def _find_names(texts: Sequence[str]) -> set[str]:
    """Names that stand at least twice directly before or after a verb of speaking."""
    counts: Counter[str] = Counter()
    for text in texts:
        outside = text if _QUOTE.search(text) else ""
        counts.update(match.group(1) for match in _NAME_BEFORE_QUOTE.finditer(outside))
        plain = _QUOTE.sub("“”", outside)
        counts.update(next(filter(None, m.groups())) for m in _NAME_BESIDE_VERB.finditer(plain))
    return {
        name
        for name, count in counts.items()
        if count > 1 and name not in _PRONOUNS and name not in ("He", "She", "They", "It")
    }


SCENE_GAP = 8.0  # seconds without a subtitle that end a scene
_BRACKETED = re.compile(r"^\s*[（(【\[]([^（）()【】\[\]]{1,20})[）)】\]]\s*(\S.*)$", re.S)


def parse_subtitles(text: str, format: str, gap: float = 0.0) -> Iterator[ScriptLine]:
    """The lines of subtitles; numbers count subtitles in the order of the file.

    `format` is srt, ass, ssa or vtt; `gap` the seconds of silence that end a scene. DataError where
    they cannot be read.
    """
    try:
        events = list(pysubs2.SSAFile.from_string(text, format_=format))
    except Exception as error:  # of any kind: a damaged file may break the parser anywhere
        raise DataError("data.subtitles_unreadable", format=format, detail=str(error)) from error
    if not events:
        raise DataError("data.no_subtitles", format=format)
    scene, end = 1, None
    order = sorted(range(len(events)), key=lambda index: events[index].start)
    for index in order:
        event, number = events[index], (index + 1,)
        words = event.plaintext.strip()
        if event.is_comment:
            yield ScriptLine(OTHER, words, scene, number, reason="a comment of the subtitles")
            continue
        if end is not None and (event.start - end) / 1000 > (gap or SCENE_GAP):
            scene += 1
        end = max(end or 0, event.end)
        yield _parse_subtitle(words, normalize_speaker(event.name or ""), scene, number)


def _parse_subtitle(words: str, named: str, scene: int, number: tuple[int, ...]) -> ScriptLine:
    speech = (named, words) if named else parse_speech(words)
    if not words:
        return ScriptLine(OTHER, words, scene, number, reason="the subtitle is empty")
    if speech is None and _STAGE_DIRECTION.match(words):
        return ScriptLine(DIRECTION, words, scene, number)
    if speech is None and (match := _BRACKETED.match(words)):
        speech = (normalize_speaker(match.group(1)), match.group(2))
    if speech is None:
        return ScriptLine(OTHER, words, scene, number, reason="nobody is named as its speaker")
    if is_several_speakers(speech[0]):
        return ScriptLine(OTHER, words, scene, number, reason="several speak at once")
    return ScriptLine(SPEECH, strip_quotes(speech[1]), scene, number, speech[0])
