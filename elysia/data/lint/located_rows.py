"""Rows of a dataset file with the line each begins on, read past faults at which training would stop.

JSON arrays are streamed like lines, so memory does not grow with the file. A row that cannot be read
is returned as a fault.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from elysia.core.errors import DataError
from elysia.data.readers.json_array import JsonArrayError, iter_json_array
from elysia.data.readers.row_reader import read_rows
from elysia.data.readers.text_encoding import detect_encoding


@dataclass(frozen=True)
class LocatedRow:
    """A row and its line; where it could not be read, `fault` says why."""

    value: Any
    line: int
    number: int
    fault: str = ""


class UnparsedRow(NamedTuple):
    """A row as it stands in the file, its JSON not parsed yet: only its line is known."""

    text: str
    line: int
    number: int

    def parse(self) -> LocatedRow:
        """The row."""
        try:
            return LocatedRow(json.loads(self.text), self.line, self.number)
        except json.JSONDecodeError as error:
            fault = f"not JSON ({error.msg}, column {error.colno})"
        except (RecursionError, ValueError) as error:
            fault = _describe_unreadable(error)
        return LocatedRow(None, self.line, self.number, fault)


@dataclass(frozen=True)
class RowSource:
    """A file, its encoding, and the layout of its rows: array, lines, csv, txt or other."""

    path: Path
    encoding: str
    layout: str

    @classmethod
    def of(cls, path: Path) -> RowSource:
        """Look at a file. DataError where there is none to read."""
        if not path.is_file():
            raise DataError("data.file_missing", path=path, hint="")
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
            for row in self.unparsed_rows():
                yield row if isinstance(row, LocatedRow) else row.parse()

    def unparsed_rows(self) -> Iterator[LocatedRow | UnparsedRow]:
        """Every row, in order; those of JSON as they stand, for another process to parse."""
        if self.layout == "other":
            for row in read_rows(self.path):
                yield LocatedRow(row.value, 0, row.number)
            return
        with self.open() as stream:
            if self.layout == "array":
                for located, text in _iter_array(stream):
                    yield UnparsedRow(text, located.line, located.number) if text else located
            elif self.layout == "lines":
                yield from self._lines(stream)
            else:
                yield from (_iter_csv if self.layout == "csv" else _iter_txt)(stream)

    def _lines(self, stream: TextIO) -> Iterator[LocatedRow | UnparsedRow]:
        lines = ((at, line) for at, line in enumerate(stream, start=1) if not line.isspace())
        for number, (at, line) in enumerate(lines, start=1):
            row = UnparsedRow(line, at, number)
            if number == 1 and self.path.suffix.lower() == ".json" and row.parse().fault:
                yield LocatedRow(None, at, 1, "no array of rows: [{...}, ...]")
                return  # one object over many lines, none of which is a row
            yield row

    def open(self) -> TextIO:
        """The file as text; bytes that are not UTF-8 become half surrogates."""
        newline = "" if self.layout == "csv" else "\n"
        errors = "surrogateescape" if self.encoding == "utf-8-sig" else "replace"
        return self.path.open(encoding=self.encoding, errors=errors, newline=newline)


def _first_character(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding, errors="replace") as stream:
        return stream.read(4096).strip()[:1]


def _iter_array(stream: TextIO) -> Iterator[tuple[LocatedRow, str]]:
    """Rows, and the text of each; a fault in place of the first row that cannot be read."""
    number = 0
    try:
        for item in iter_json_array(stream, strict=False):
            number += 1
            yield LocatedRow(item.value, item.line, number), item.text
    except JsonArrayError as error:
        if error.truncated:
            fault = "the file ends in the middle of its array; rows after this place are lost"
        elif isinstance(error.cause, json.JSONDecodeError):
            fault = f"not JSON ({error.cause.msg}); rows after this place were not read"
        else:
            fault = _describe_unreadable(error.cause)
        yield LocatedRow(None, error.line, number + 1, fault), ""


def _describe_unreadable(error: Exception) -> str:
    return f"cannot be read: {error}" if str(error) else "nested too deeply"


def _iter_csv(stream: TextIO) -> Iterator[LocatedRow]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than one long document
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
