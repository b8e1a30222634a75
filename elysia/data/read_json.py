"""Values of JSON files, read a block or a line at a time: an array, or a value a line, whichever the
file holds; what is wrong with it is told by line and column.

Each value comes with the characters it takes in the file. Knows nothing of what rows hold.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError

log = logging.getLogger(__name__)

_SHOWN = 60  # characters of a bad line to quote
_BLOCK = 1 << 18  # characters of an array that are read at a time
_SPACE = re.compile(r"[ \t\n\r]*")


def read_json(path: Path) -> Iterator[tuple[Any, int]]:
    """(value, characters) of each row of a `.json`, which should be an array."""
    if _opens_array(path):
        yield from _array(path)
    elif _opens_lines(path):
        log.warning("%s holds JSON lines, not an array: read so; .jsonl is its right ending.", path)
        yield from _lines(path)
    else:
        yield from _whole(path)


def read_jsonl(path: Path) -> Iterator[tuple[Any, int]]:
    """(value, characters) of each line of a `.jsonl`."""
    if _opens_array(path):
        log.warning("%s holds a JSON array, not lines: read so; .json is its right ending.", path)
        yield from read_json(path)
    else:
        yield from _lines(path)


def _array(path: Path) -> Iterator[tuple[Any, int]]:
    """The values of a JSON array, read a block at a time; what is no JSON is told by `_whole`, which
    sees the whole file."""
    decode = json.JSONDecoder().raw_decode
    count = 0
    with path.open(encoding="utf-8-sig") as file:
        text, at, block, expected = "", 0, _BLOCK, "["
        while True:
            try:
                at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
                if text[at] == "]" and expected in ("first", ","):
                    if text[at + 1 :].strip() or file.read().strip():
                        break  # something stands behind the array
                    return
                if expected in ("[", ","):
                    if text[at] != expected:
                        break
                    expected, at = "first" if expected == "[" else "value", at + 1
                    continue
                value, end = decode(text, at)
                text[end]  # a number may go on in the next block
            except (json.JSONDecodeError, IndexError):
                more = file.read(block)
                if not more:
                    break
                # Twice as much each time that a value is longer still.
                text, at, block = text[at:] + more, 0, 2 * block
                continue
            size, at, block, expected = end - at, end, _BLOCK, ","
            count += 1
            yield value, size
    for number, found in enumerate(_whole(path)):
        if number >= count:
            yield found


def _whole(path: Path) -> Iterator[tuple[Any, int]]:
    """A file that cannot be read in parts: what it holds, or a sentence that says where it fails."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(_not_json(path, error, text)) from None
    if isinstance(value, list):
        yield from ((one, len(text) // len(value)) for one in value)
        return
    raise DataError(
        f"{path}: the file must hold an array of rows, [{{...}}, ...], and holds {kind(value)}."
    )


def _opens_lines(path: Path) -> bool:
    """Whether the first line is an object by itself, and not the last."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        lines = (line for line in file if line.strip())
        try:
            first = json.loads(next(lines, ""))
        except json.JSONDecodeError:
            return False
        return isinstance(first, dict) and next(lines, "") != ""


def _lines(path: Path) -> Iterator[tuple[Any, int]]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for line_number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}, line {line_number}, column {error.colno}: not JSON ({error.msg}). "
                    f"The line begins: {line.strip()[:_SHOWN]}"
                ) from None
            yield value, len(line)


def _opens_array(path: Path) -> bool:
    """Whether the first character is `[`: a line of rows can only begin with `{`."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while block := file.read(4096):
            if block.strip():
                return block.lstrip().startswith("[")
    return False


def _not_json(path: Path, error: json.JSONDecodeError, text: str) -> str:
    if not text.strip():
        return f"{path}: the file is empty."
    where = f"{path}, line {error.lineno}, column {error.colno}"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"{where}: the file ends in the middle of its JSON; was it cut short in a copy?"
    line = text.split("\n")[error.lineno - 1].strip()
    return f"{where}: not JSON ({error.msg}). The line begins: {line[:_SHOWN]}"


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    if isinstance(value, dict):
        inside = [key for key, rows in value.items() if isinstance(rows, list) and rows]
        return "one object" + (f" (are its rows under '{inside[0]}'?)" if inside else "")
    names: dict[type, str] = {list: "an array", str: "a text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")
