"""Rows of a dataset file (.json, .jsonl, .csv, .parquet, .txt); errors name file and row.

Files are streamed, so memory does not grow with them. A line of a `.txt` is a row of `text`. A JSON
array in a `.jsonl` and JSON lines in a `.json` are read as what they are, with a warning: neither can
be mistaken for the other.
"""

from __future__ import annotations

import csv
import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elysia.core.errors import DataError, nearest
from elysia.core.i18n import Text
from elysia.data.readers.json_array import JsonArrayError, iter_json_array

log = logging.getLogger(__name__)

_QUOTED = 60  # characters of a bad line that an error quotes


class DatasetRow(NamedTuple):
    """One object of a dataset file; `number` counts rows from 1, `size` is about how many characters
    of the file it takes."""

    value: dict[str, Any]
    file: str
    number: int
    size: int = 0


def read_rows(path: str | Path) -> Iterator[DatasetRow]:
    """The rows of a file, in order. DataError where the file is missing, empty, damaged or of
    another kind.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    _check_file(path)
    if reader is None:
        raise DataError(
            "data.unknown_ending", path=path, endings=list(_READERS), ending=path.suffix
        )
    number, name = 0, str(path)
    try:
        for number, (value, size) in enumerate(reader(path), start=1):
            if not isinstance(value, dict):
                raise DataError(
                    "data.row_not_object", path=path, row=number, kind=describe_json(value)
                )
            yield DatasetRow(value, name, number, size)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    if number == 0:
        raise DataError("data.no_rows", path=path)


def rename_columns(
    rows: Iterator[DatasetRow], columns: Mapping[str, str] | None
) -> Iterator[DatasetRow]:
    """`rows` with keys renamed, old name to new."""
    if not columns:
        yield from rows
        return
    for row in rows:
        value = {columns.get(key, key): content for key, content in row.value.items()}
        yield row._replace(value=value)


def describe_json(value: object) -> Text:
    """What a JSON value is, in words."""
    if isinstance(value, dict):
        lists = [key for key, rows in value.items() if isinstance(rows, list) and rows]
        return Text("data.json_object_of_rows", {"key": lists[0]}) if lists else _NAMES[dict]
    return _NAMES.get(type(value), Text("data.json_number"))


_NAMES = {
    dict: Text("data.json_object"),
    list: Text("data.json_array"),
    str: Text("data.json_text"),
    bool: Text("data.json_boolean"),
    type(None): Text("data.json_null"),
}


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataError("data.path_is_folder", path=path)
    if not path.exists():
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("data.file_missing", path=path, hint=nearest(path.name, names))
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DataError("data.file_empty", path=path)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("data.file_utf16", path=path)


# Each reader yields (value, characters that it takes in the file).


def _read_json(path: Path) -> Iterator[tuple[Any, int]]:
    if _opens_array(path):
        yield from _read_array(path)
    elif _opens_lines(path):
        log.warning("%s holds JSON lines, not an array; it is read as such. Name it .jsonl.", path)
        yield from _read_lines(path)
    else:
        yield from _read_whole(path)


def _read_jsonl(path: Path) -> Iterator[tuple[Any, int]]:
    if _opens_array(path):
        log.warning("%s holds a JSON array, not lines; it is read as such. Name it .json.", path)
        yield from _read_array(path)
    else:
        yield from _read_lines(path)


def _read_array(path: Path) -> Iterator[tuple[Any, int]]:
    count = 0
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for item in iter_json_array(stream):
                count += 1
                yield item.value, len(item.text)
            return
    except JsonArrayError:
        pass
    # Only a decoder that sees the whole file can say precisely what is wrong with it.
    for number, row in enumerate(_read_whole(path)):
        if number >= count:
            yield row


def _read_whole(path: Path) -> Iterator[tuple[Any, int]]:
    """The rows of a file that cannot be read in parts, or an error that says where it fails."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_json(path, error, text) from None
    if not isinstance(value, list):
        raise DataError("data.file_not_array", path=path, kind=describe_json(value))
    yield from ((row, len(text) // len(value)) for row in value)


def _read_lines(path: Path) -> Iterator[tuple[Any, int]]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise _bad_json(path, number, error, line) from None
            yield value, len(line)


def _opens_array(path: Path) -> bool:
    """Whether the first character is `[`: a line of rows can only begin with `{`."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while block := file.read(4096):
            if block.strip():
                return block.lstrip().startswith("[")
    return False


def _opens_lines(path: Path) -> bool:
    """Whether the first line is an object by itself, and not the last line."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        lines = (line for line in file if line.strip())
        try:
            first = json.loads(next(lines, ""))
        except json.JSONDecodeError:
            return False
        return isinstance(first, dict) and next(lines, "") != ""


def _not_json(path: Path, error: json.JSONDecodeError, text: str) -> DataError:
    if not text.strip():
        return DataError("data.file_empty", path=path)
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return DataError("data.json_cut_short", path=path, line=error.lineno, column=error.colno)
    return _bad_json(path, error.lineno, error, text.split("\n")[error.lineno - 1])


def _bad_json(path: Path, number: int, error: json.JSONDecodeError, line: str) -> DataError:
    return DataError(
        "data.line_not_json",
        path=path,
        line=number,
        column=error.colno,
        detail=error.msg,
        start=line.strip()[:_QUOTED],
    )


def _read_csv(path: Path) -> Iterator[tuple[Any, int]]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than one long document
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            if not any(header) or len(set(header)) != len(header):
                raise DataError("data.csv_header", path=path)
            for number, cells in enumerate((cells for cells in rows if cells), start=1):
                if len(cells) != len(header):
                    raise DataError(
                        "data.csv_cells",
                        path=path,
                        row=number,
                        line=rows.line_num,
                        cells=len(cells),
                        columns=len(header),
                    )
                yield dict(zip(header, cells, strict=True)), sum(map(len, cells))
        except csv.Error as error:
            raise DataError(
                "data.line_not_csv", path=path, line=rows.line_num, detail=str(error)
            ) from None


def _read_parquet(path: Path) -> Iterator[tuple[Any, int]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError("data.parquet_needs_pyarrow", path=path) from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            each = batch.nbytes // max(batch.num_rows, 1)
            yield from ((value, each) for value in batch.to_pylist())
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
        raise DataError("data.not_parquet", path=path, detail=str(error)) from None


def _read_txt(path: Path) -> Iterator[tuple[Any, int]]:
    with path.open(encoding="utf-8-sig") as file:
        yield from (({"text": line.strip()}, len(line)) for line in file if line.strip())


_READERS: dict[str, Callable[[Path], Iterator[tuple[Any, int]]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}


def _not_utf8(path: Path) -> DataError:
    raw = path.read_bytes()
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte, line = error.start + 1, raw.count(b"\n", 0, error.start) + 1
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        return DataError("data.not_utf8", path=path, line=line, byte=byte)
    return DataError("data.not_utf8_but_gbk", path=path, line=line, byte=byte)
