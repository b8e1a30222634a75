"""Rows of a dataset file (.json, .jsonl, .csv, .parquet, .txt) and conversations of them; faults
name file and row.

A line of a `.txt` is a row of `text`. `.jsonl`, `.csv` and `.txt` are streamed, so memory does not
grow with the file. A JSON array under `.jsonl` and JSON lines under `.json` are read as what they
are, with a warning that names the file: neither can be mistaken for the other. Knows the shape of
files and not of rows (formats.py).
"""

from __future__ import annotations

import csv
import importlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError, nearest
from elysia.core.messages import Message
from elysia.core.templates import Piece
from elysia.data.encode import Encoded
from elysia.data.formats import FORMATS, Format, looks_like, same_shape
from elysia.data.pairs import PREFERENCES, Preference, looks_like_pairs

log = logging.getLogger(__name__)

_SHOWN = 60  # characters of a bad line to quote
_BLOCK = 1 << 18  # characters of an array that are read at a time
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Row:
    """One object of a dataset file; `number` counts rows from 1."""

    value: dict[str, Any]
    file: str
    number: int


@dataclass(frozen=True)
class Sample:
    """One conversation, and the file and row (from 1) it came from.

    A row that no template is to touch has no messages: it brings `turns`, its own marked-up text
    (the first group is what stands before the first turn), or `encoded`, its tokens.
    """

    messages: list[Message]
    file: str
    row: int
    turns: tuple[tuple[Piece, ...], ...] = ()
    encoded: Encoded | None = None


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file, in order. DataError where the file is missing, empty, damaged or of
    another kind.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    _check_file(path)
    if reader is None:
        raise DataError(
            f"{path}: a dataset file ends in {', '.join(_READERS)}, not in '{path.suffix}'."
        )
    number = 0
    try:
        for number, value in enumerate(reader(path), start=1):
            if not isinstance(value, dict):
                raise DataError(
                    f"{path}, row {number}: a row must be an object with keys, "
                    f"and this is {_kind(value)}."
                )
            yield Row(value, str(path), number)
    except UnicodeDecodeError:
        raise DataError(_not_utf8(path)) from None
    if number == 0:
        raise DataError(f"{path}: the file holds no rows.")


def load_conversations(
    path: str | Path, format: str | Format, columns: Mapping[str, str] | None = None
) -> list[Sample]:
    """All conversations of a file, read as `format` (a name of `formats.FORMATS`, or a function
    from a row to messages). `columns` renames keys of every row, old name to new.

    Rows that the format itself leaves out (alpaca's `<nooutput>`) are counted in a log note.
    DataError with file, row and key for the first row that is not of this format.
    """
    return list(conversations(path, format, columns))


def conversations(
    path: str | Path, format: str | Format, columns: Mapping[str, str] | None = None
) -> Iterator[Sample]:
    """As `load_conversations`, one by one as the file is read."""
    if not callable(format) and format not in FORMATS:
        raise DataError(
            f"There is no dataset format '{format}'.{nearest(format, FORMATS)} "
            f"The formats are: {', '.join(sorted(FORMATS))}."
        )
    convert = format if callable(format) else FORMATS[format]
    name = "" if callable(format) else format  # a function of the user's has no shape we know
    kept = left_out = 0
    for row in renamed(read_rows(path), columns):
        if row.number == 1 and name:
            _warn_of_another_format(row, name)
        try:
            messages = convert(row.value)
        except DataError as error:
            hint = _hint(row, name) if name else ""
            raise DataError(f"{row.file}, row {row.number}: {error}{hint}") from None
        if messages:
            kept += 1
            yield Sample(messages, row.file, row.number)
        else:
            left_out += 1
    if left_out:
        log.warning("%s: %d rows hold no reply to learn and were left out.", path, left_out)
    if not kept:
        raise DataError(f"{path}: no row holds a reply to learn.")


def renamed(rows: Iterator[Row], columns: Mapping[str, str] | None) -> Iterator[Row]:
    """`rows` with keys renamed, old name to new."""
    if not columns:
        yield from rows
        return
    for row in rows:
        value = {columns.get(key, key): content for key, content in row.value.items()}
        yield Row(value, row.file, row.number)


def load_pairs(
    path: str | Path, format: str | Preference, columns: Mapping[str, str] | None = None
) -> list[tuple[Sample, Sample]]:
    """All preference pairs of a file, (chosen, rejected), read as `format` (a name of
    `pairs.PREFERENCES`, or a function from a row to two talks). `columns` renames keys of every row,
    old name to new.

    Rows that the format leaves out are counted in a log note. DataError with file, row and key for
    the first row that is not of this format.
    """
    return list(pairs_of(path, format, columns))


def pairs_of(
    path: str | Path, format: str | Preference, columns: Mapping[str, str] | None = None
) -> Iterator[tuple[Sample, Sample]]:
    """As `load_pairs`, one by one as the file is read."""
    if not callable(format) and format not in PREFERENCES:
        raise DataError(
            f"There is no preference format '{format}'.{nearest(format, PREFERENCES)} "
            f"The formats of pairs are: {', '.join(PREFERENCES)}."
        )
    convert = format if callable(format) else PREFERENCES[format]
    kept = left_out = 0
    for row in renamed(read_rows(path), columns):
        try:
            pair = convert(row.value)
        except DataError as error:
            guess = None if callable(format) else looks_like_pairs(row.value)
            other = guess is not None and guess != format
            hint = f" This looks like {guess}: set dataset_format='{guess}'." if other else ""
            raise DataError(f"{row.file}, row {row.number}: {error}{hint}") from None
        if pair is None:
            left_out += 1
            continue
        kept += 1
        chosen, rejected = pair
        yield Sample(chosen, row.file, row.number), Sample(rejected, row.file, row.number)
    if left_out:
        log.warning("%s: %d rows have the same reply twice and were left out.", path, left_out)
    if not kept:
        raise DataError(f"{path}: no row prefers one reply to another.")


def _warn_of_another_format(row: Row, format: str) -> None:
    guess = looks_like(row.value)
    if guess and not same_shape(guess, format):
        log.warning(
            "%s: its rows look like the format '%s' and are read as '%s', as dataset_format says.",
            row.file,
            guess,
            format,
        )


def _hint(row: Row, format: str) -> str:
    if pairs := looks_like_pairs(row.value):
        return (
            " These are preference pairs (chosen, rejected): set objective='dpo' (or 'orpo', "
            f"'reward') and dataset_format='{pairs}'."
        )
    guess = looks_like(row.value)
    if not guess or same_shape(guess, format):
        return ""
    return f" This looks like {guess}: set dataset_format='{guess}'."


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a dataset file in it.")
    if not path.exists():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"There is no dataset file {path}.{nearest(path.name, near)}")
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DataError(f"{path}: the file is empty.")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the file is in UTF-16; save it as UTF-8.")


def _read_json(path: Path) -> Iterator[Any]:
    if _opens_array(path):
        yield from _read_array(path)
    else:
        yield from _read_other(path)


def _read_array(path: Path) -> Iterator[Any]:
    """The values of a JSON array, read a block at a time; what is no JSON is told by `_read_other`,
    which sees the whole file."""
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
            at, block, expected = end, _BLOCK, ","
            count += 1
            yield value
    for number, value in enumerate(_read_other(path)):
        if number >= count:
            yield value


def _read_other(path: Path) -> Iterator[Any]:
    """A file that is no array, or no JSON: lines, or a sentence that says where it fails."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if not _is_json_lines(text):
            raise DataError(_not_json(path, error, text)) from None
        log.warning("%s holds JSON lines, not an array: read so; .jsonl is its right ending.", path)
        yield from (json.loads(line) for line in text.split("\n") if line.strip())
        return
    if isinstance(value, list):
        yield from value
        return
    raise DataError(
        f"{path}: the file must hold an array of rows, [{{...}}, ...], and holds {_kind(value)}."
    )


def _is_json_lines(text: str) -> bool:
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        return len(lines) > 1 and all(isinstance(json.loads(line), dict) for line in lines)
    except json.JSONDecodeError:
        return False


def _read_jsonl(path: Path) -> Iterator[Any]:
    if _opens_array(path):
        log.warning("%s holds a JSON array, not lines: read so; .json is its right ending.", path)
        yield from _read_json(path)
        return
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
            yield value


def _opens_array(path: Path) -> bool:
    """Whether the first character is `[`: a line of rows can only begin with `{`."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while block := file.read(4096):
            if block.strip():
                return block.lstrip().startswith("[")
    return False


def _read_csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(2**31 - 1)  # the standard 128 KiB is less than one long document
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            if not any(header) or len(set(header)) != len(header):
                raise DataError(f"{path}, line 1: the first line must name each column once.")
            for number, cells in enumerate((cells for cells in rows if cells), start=1):
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, row {number} (ends at line {rows.line_num}): "
                        f"{len(cells)} cells under {len(header)} column names. "
                        "Is a quote or comma missing?"
                    )
                yield dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}, line {rows.line_num}: not CSV ({error}).") from None


def _read_parquet(path: Path) -> Iterator[Any]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet needs the package pyarrow: pip install pyarrow, or convert "
            "the file to .jsonl."
        ) from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
        raise DataError(f"{path}: this is not Parquet ({error}).") from None


def _read_txt(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as file:
        yield from ({"text": line.strip()} for line in file if line.strip())


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}


def _not_json(path: Path, error: json.JSONDecodeError, text: str) -> str:
    if not text.strip():
        return f"{path}: the file is empty."
    where = f"{path}, line {error.lineno}, column {error.colno}"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"{where}: the file ends in the middle of its JSON; was it cut short in a copy?"
    line = text.split("\n")[error.lineno - 1].strip()
    return f"{where}: not JSON ({error.msg}). The line begins: {line[:_SHOWN]}"


def _not_utf8(path: Path) -> str:
    raw = path.read_bytes()
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        where = f"{path}, line {line}: byte {error.start + 1} of the file is not UTF-8"
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        return f"{where}. Save the file as UTF-8."
    return f"{where}. It reads as GBK: save it as UTF-8 (iconv -f GB18030 -t UTF-8)."


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    if isinstance(value, dict):
        inside = [key for key, rows in value.items() if isinstance(rows, list) and rows]
        return "one object" + (f" (are its rows under '{inside[0]}'?)" if inside else "")
    names: dict[type, str] = {list: "an array", str: "a text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")
