"""Read a script's file as script lines: detect its layout and encoding, and parse it."""

from __future__ import annotations

from pathlib import Path

from elysia.core.errors import DataError
from elysia.data.readers.text_encoding import detect_encoding
from elysia.data.script.chat_logs import parse_chat_log
from elysia.data.script.script_line import ScriptLine
from elysia.data.script.text_layouts import is_play, parse_novel, parse_play, parse_subtitles

LARGEST = 256 << 20  # bytes
LAYOUTS = ("play", "subtitles", "novel", "chat")
_BY_ENDING = {"srt": "subtitles", "ass": "subtitles", "ssa": "subtitles", "vtt": "subtitles",
              "json": "chat", "jsonl": "chat", "csv": "chat"}  # fmt: skip


def read_script(
    path: Path, layout: str = "", encoding: str = "", gap: float = 0.0, known: tuple[str, ...] = ()
) -> tuple[list[ScriptLine], int]:
    """The parts of a script, and how many lines (subtitles, messages) it has.

    layout: one of LAYOUTS; "" to detect it from the file's ending and its text. gap: seconds of
    silence that end a scene of subtitles or chat (0: 8 and 1,800). known: names of speakers in a
    novel. DataError where the file is missing, too large, empty, or not of that layout.
    """
    text = _text(path, encoding)
    ending = path.suffix.lower().lstrip(".")
    texts = text.splitlines()
    layout = layout or _BY_ENDING.get(ending, "") or ("play" if is_play(texts) else "novel")
    try:
        if layout == "subtitles":
            lines = list(parse_subtitles(text, ending if ending in _BY_ENDING else "srt", gap))
        elif layout == "chat":
            lines = list(
                parse_chat_log(text, ending if ending in ("csv", "jsonl") else "json", gap)
            )
        else:
            lines = list(parse_play(texts) if layout == "play" else parse_novel(texts, known))
    except DataError as error:
        raise DataError("data.script_fault", path=path, reason=error) from None
    return lines, sum(len(line.numbers) for line in lines)


def _text(path: Path, encoding: str) -> str:
    if not path.is_file():
        raise DataError("data.script_missing", path=path)
    if path.stat().st_size > LARGEST:
        raise DataError("data.script_too_large", path=path, megabytes=LARGEST >> 20)
    raw = path.read_bytes()
    encoding = encoding or detect_encoding(path)
    try:
        text = raw.decode(encoding)
    except LookupError:
        raise DataError("data.unknown_encoding", encoding=encoding) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            "data.script_encoding", path=path, line=line, encoding=encoding.removesuffix("-sig")
        ) from None
    if not text.strip():
        raise DataError("data.script_empty", path=path)
    return text
