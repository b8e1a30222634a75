"""Rows of a dataset file with the line each begins at, read past faults that training would stop at.

JSON arrays are streamed like lines, so memory does not grow with the file. A row that cannot be
read comes as a fault. Knows the shape of files and nothing of formats.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from elysia.core.errors import DataError
from elysia.data.readers.row_reader import read_rows
from elysia.data.readers.text_encoding import detect_encoding

CHUNK = 1 << 20  # characters of an array that are read at a time
LONGEST_ROW = 1 << 26  # characters; a row beyond it is a fault
_SPACE = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class LocatedRow:
    """A row and its line; or, where `fault` says why, what could not be read."""

    value: Any
    line: int
    number: int
    fault: str = ""


class UnparsedRow(NamedTuple):
    """A row as it stands in the file, its JSON still to be read; no more than the line's is known."""

    text: str
    line: int
    number: int

    def read(self) -> LocatedRow:
        """The row."""
        try:
            return LocatedRow(json.loads(self.text), self.line, self.number)
        except json.JSONDecodeError as error:
            fault = f"not JSON ({error.msg}, column {error.colno})"
        except (RecursionError, ValueError) as error:
            fault = _describe_too_deep(error)
        return LocatedRow(None, self.line, self.number, fault)


@dataclass(frozen=True)
class RowSource:
    """A file, the encoding it is in, and how its rows are laid out: array, lines, csv, txt, other."""

    path: Path
    encoding: str
    layout: str

    @classmethod
    def of(cls, path: Path) -> RowSource:
        """Look at a file. DataError where there is none to read."""
        if not path.is_file():
            raise DataError(f"There is no dataset file {path}.")
        encoding = detect_encoding(path)
        layout = {".csv": "csv", ".txt": "txt", ".json": "lines", ".jsonl": "lines"}.get(
            path.suffix.lower(), "other"
        )
        if layout == "lines" and _first_character(path, encoding) == "[":
            layout = "array"
        return cls(path, encoding, layout)

    def rows(self) -> Iterator[LocatedRow]:
        """Every row, in order."""
        if self.layout == "array":
            with self.open() as stream:
                yield from (row for row, _ in _iter_array(stream))
        else:
            yield from (row if isinstance(row, LocatedRow) else row.read() for row in self.unread())

    def unread(self) -> Iterator[LocatedRow | UnparsedRow]:
        """Every row, in order; those of JSON as they stand, for whoever will read them."""
        if self.layout == "other":
            for found in read_rows(self.path):
                yield LocatedRow(found.value, 0, found.number)
            return
        with self.open() as stream:
            if self.layout == "array":
                for row, text in _iter_array(stream):
                    yield UnparsedRow(text, row.line, row.number) if text else row
            elif self.layout == "lines":
                yield from self._lines(stream)
            else:
                yield from (_iter_csv if self.layout == "csv" else _iter_txt)(stream)

    def _lines(self, stream: TextIO) -> Iterator[LocatedRow | UnparsedRow]:
        lines = ((at, line) for at, line in enumerate(stream, start=1) if not line.isspace())
        for number, (at, line) in enumerate(lines, start=1):
            row = UnparsedRow(line, at, number)
            if number == 1 and self.path.suffix.lower() == ".json" and row.read().fault:
                yield LocatedRow(None, at, 1, "no array of rows: [{...}, ...]")
                return  # one object over many lines, none of which is a row
            yield row

    def open(self) -> TextIO:
        """The file as text; bytes that are no UTF-8 become half surrogates."""
        newline = "" if self.layout == "csv" else "\n"
        errors = "surrogateescape" if self.encoding == "utf-8-sig" else "replace"
        return self.path.open(encoding=self.encoding, errors=errors, newline=newline)


def _first_character(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding, errors="replace") as stream:
        return stream.read(4096).strip()[:1]


def _iter_array(stream: TextIO) -> Iterator[tuple[LocatedRow, str]]:
    """Rows, and the text that each is made of."""
    decoder, window, number = json.JSONDecoder(), _StreamWindow(stream), 0
    window.skip(window.text.index("[") + 1)
    while window.begins_row():
        try:
            value, end = decoder.raw_decode(window.text, window.at)
            if end == len(window.text) and window.more():
                continue  # a number may go on
        except json.JSONDecodeError as error:
            if window.more():
                continue
            line = window.line + window.text.count("\n", window.at, error.pos)
            yield LocatedRow(None, line, number + 1, _describe_broken(window.text, error)), ""
            return
        except (RecursionError, ValueError) as error:
            yield LocatedRow(None, window.line, number + 1, _describe_too_deep(error)), ""
            return
        number += 1
        yield LocatedRow(value, window.line, number), window.text[window.at : end]
        window.skip(end)


class _StreamWindow:
    """The piece of a stream that holds the row being read, and the line it begins at."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.text, self.at, self.line = stream, stream.read(CHUNK), 0, 1

    def skip(self, end: int) -> None:
        """Go on to `end`."""
        self.line += self.text.count("\n", self.at, end)
        self.at = end
        if end > CHUNK:
            self.text, self.at = self.text[end:], 0

    def more(self) -> bool:
        """Read on, at least as much as there is; whether there was anything."""
        left = len(self.text) - self.at
        if left > LONGEST_ROW:
            return False
        read = self.stream.read(max(CHUNK, left))
        if read:
            self.text, self.at = self.text[self.at :] + read, 0
        return bool(read)

    def begins_row(self) -> bool:
        """Go on past spaces and commas; False at the end of the array."""
        while True:
            space = _SPACE.match(self.text, self.at)
            self.skip(space.end() if space else self.at)
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1] != "]"


def _describe_broken(text: str, error: json.JSONDecodeError) -> str:
    # An escape that was cut is told at its beginning.
    if error.pos >= len(text.rstrip()) - 6 or error.msg.startswith("Unterminated string"):
        return "the file ends in the middle of its array; rows after this place are lost"
    return f"not JSON ({error.msg}); rows after this place were not read"


def _describe_too_deep(error: Exception) -> str:
    return f"cannot be read: {error}" if str(error) else "nested too deeply"


def _iter_csv(stream: TextIO) -> Iterator[LocatedRow]:
    csv.field_size_limit(2**31 - 1)  # the standard 128 KiB is less than one long document
    reader = csv.reader(stream, strict=True)
    try:
        header = next(reader, [])
        line = reader.line_num + 1
        for number, cells in enumerate((cells for cells in reader if cells), start=1):
            if len(cells) == len(header):
                yield LocatedRow(dict(zip(header, cells, strict=True)), line, number)
            else:
                fault = f"{len(cells)} cells under {len(header)} column names"
                yield LocatedRow(None, line, number, fault)
            line = reader.line_num + 1
    except csv.Error as error:
        yield LocatedRow(None, reader.line_num, 0, f"not CSV ({error})")


def _iter_txt(stream: TextIO) -> Iterator[LocatedRow]:
    lines = ((number, line.strip()) for number, line in enumerate(stream, start=1))
    for row, (number, text) in enumerate(((n, t) for n, t in lines if t), start=1):
        yield LocatedRow({"text": text}, number, row)
