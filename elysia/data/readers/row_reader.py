"""Values of JSON files, read a block or a line at a time: an array, or a value a line, whichever the
file holds; what is wrong with it is told by line and column.

Each value comes with the characters it takes in the file. Knows nothing of what rows hold.
"""

from __future__ import annotations

import csv
import importlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elysia.core.errors import DataError, nearest

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
        f"{path}: the file must hold an array of rows, [{{...}}, ...], and holds {describe_json(value)}."
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


def describe_json(value: object) -> str:
    """What a JSON value is, in words."""
    if isinstance(value, dict):
        inside = [key for key, rows in value.items() if isinstance(rows, list) and rows]
        return "one object" + (f" (are its rows under '{inside[0]}'?)" if inside else "")
    names: dict[type, str] = {list: "an array", str: "a text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")


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
            f"{path}: a dataset file ends in {', '.join(_READERS)}, not in '{path.suffix}'."
        )
    number, name = 0, str(path)
    try:
        for number, (value, size) in enumerate(reader(path), start=1):
            if not isinstance(value, dict):
                raise DataError(
                    f"{path}, row {number}: a row must be an object with keys, "
                    f"and this is {describe_json(value)}."
                )
            yield DatasetRow(value, name, number, size)
    except UnicodeDecodeError:
        raise DataError(_not_utf8(path)) from None
    if number == 0:
        raise DataError(f"{path}: the file holds no rows.")


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
