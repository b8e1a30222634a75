"""A script's file as lines of speech: which layout it has, which encoding, how large it may be.

Knows the layouts and nothing of what is made of the lines.
"""

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

    layout: one of LAYOUTS, else told by the file's ending and its text. gap: seconds of silence that
    end a scene of subtitles or chat (0: 8 and 1,800). known: names that speak in a novel.
    DataError where the file is missing, too large, empty, or not of that layout.
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
        raise DataError(f"{path}: {error}") from None
    return lines, sum(len(line.numbers) for line in lines)


def _text(path: Path, encoding: str) -> str:
    if not path.is_file():
        raise DataError(f"There is no script {path}.")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} is larger than {LARGEST >> 20} MB: give its parts one by one.")
    raw = path.read_bytes()
    encoding = encoding or detect_encoding(path)
    try:
        text = raw.decode(encoding)
    except LookupError:
        raise DataError(f"There is no encoding '{encoding}'.") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not {encoding.removesuffix('-sig')}; name its encoding "
            "with --encoding, or save it as UTF-8."
        ) from None
    if not text.strip():
        raise DataError(f"{path} is empty.")
    return text
