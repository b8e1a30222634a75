"""Rows of a dataset file (.json, .jsonl, .csv, .parquet, .txt); faults name file and row.

Files are streamed, so memory does not grow with them. A line of a `.txt` is a row of `text`. A JSON
array under `.jsonl` and JSON lines under `.json` are read as what they are, with a warning that
names the file: neither can be mistaken for the other. Knows the shape of files and not of rows
(formats.py).
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elysia.core.errors import DataError, nearest
from elysia.data.read_json import kind, read_json, read_jsonl


class Row(NamedTuple):
    """One object of a dataset file; `number` counts rows from 1, `size` is about how many characters
    of the file it takes."""

    value: dict[str, Any]
    file: str
    number: int
    size: int = 0


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
    number, name = 0, str(path)
    try:
        for number, (value, size) in enumerate(reader(path), start=1):
            if not isinstance(value, dict):
                raise DataError(
                    f"{path}, row {number}: a row must be an object with keys, "
                    f"and this is {kind(value)}."
                )
            yield Row(value, name, number, size)
    except UnicodeDecodeError:
        raise DataError(_not_utf8(path)) from None
    if number == 0:
        raise DataError(f"{path}: the file holds no rows.")


def renamed(rows: Iterator[Row], columns: Mapping[str, str] | None) -> Iterator[Row]:
    """`rows` with keys renamed, old name to new."""
    if not columns:
        yield from rows
        return
    for row in rows:
        value = {columns.get(key, key): content for key, content in row.value.items()}
        yield row._replace(value=value)


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


def _read_csv(path: Path) -> Iterator[tuple[Any, int]]:
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
                yield dict(zip(header, cells, strict=True)), sum(map(len, cells))
        except csv.Error as error:
            raise DataError(f"{path}, line {rows.line_num}: not CSV ({error}).") from None


def _read_parquet(path: Path) -> Iterator[tuple[Any, int]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet needs the package pyarrow: pip install pyarrow, or convert "
            "the file to .jsonl."
        ) from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            each = batch.nbytes // max(batch.num_rows, 1)
            yield from ((value, each) for value in batch.to_pylist())
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
        raise DataError(f"{path}: this is not Parquet ({error}).") from None


def _read_txt(path: Path) -> Iterator[tuple[Any, int]]:
    with path.open(encoding="utf-8-sig") as file:
        yield from (({"text": line.strip()}, len(line)) for line in file if line.strip())


_READERS: dict[str, Callable[[Path], Iterator[tuple[Any, int]]]] = {
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}


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
