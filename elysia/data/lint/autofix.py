"""Fix what is safe to fix in a dataset file, and describe each change.

That is: the encoding, the layout that the file's ending promises, invisible characters, text decoded
wrongly that decodes to Chinese, HTML entities and line breaks, spaces at the ends, repeated rows. What
needs a decision (lost characters, empty replies, blanks, another assistant's identity) stays.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError
from elysia.core.files import write_atomic
from elysia.data.lint.located_rows import LocatedRow, RowSource
from elysia.data.lint.text_rules import CODE, CONTROL, HAN, MOJIBAKE

BREAK = re.compile(r"<br\s*/?>|</p>\s*<p>", re.I)
ENTITY = re.compile(r"&(?:nbsp|amp|quot|#39|hellip|mdash|ldquo|rdquo);")


@dataclass
class FixedRows:
    """The rows of a file as they should be, and a description of each change."""

    rows: list[Any] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


def fix_file(path: Path) -> list[str]:
    """Fix a file in place and keep the old one as FILE.orig; returns the changes, if any.

    DataError where a row cannot be read (nothing is written), or where FILE.orig exists.
    """
    source = RowSource.of(path)
    fixed = fix_rows(source)
    if not fixed.changes:
        return []
    backup = path.with_name(path.name + ".orig")
    if backup.exists():
        raise DataError("data.backup_exists", path=backup)
    text = render_rows(fixed.rows, source)
    write_atomic(backup, path.read_bytes())
    write_atomic(path, text)
    return [*fixed.changes, f"the original file is now {backup}"]


def fix_rows(source: RowSource) -> FixedRows:
    """Read a file and fix its rows."""
    if source.layout == "other":
        raise DataError("data.layout_not_fixable", path=source.path)
    fixed = FixedRows()
    numbers: dict[str, int] = {}  # of the first row with a content
    if source.encoding != "utf-8-sig":
        fixed.changes.append(f"{source.path}: saved as UTF-8, not {source.encoding}")
    elif source.path.read_bytes()[:3] == b"\xef\xbb\xbf":
        fixed.changes.append(f"{source.path}: its byte order mark is gone")
    if source.layout == "array" and source.path.suffix.lower() == ".jsonl":
        fixed.changes.append(f"{source.path}: an array under .jsonl is now a row a line")
    for row in source.rows():
        place = f"{source.path}:{row.line}: row {row.number}"
        value = _require_readable(row, source)
        new = value if source.layout == "txt" else _fix_value(value, "", place, fixed.changes)
        key = json.dumps(new, sort_keys=True)
        if key in numbers and source.layout != "txt":
            fixed.changes.append(f"{place}: left out, the same as row {numbers[key]}")
            continue
        numbers[key] = row.number
        fixed.rows.append(new)
    return fixed


def _require_readable(row: LocatedRow, source: RowSource) -> Any:
    if row.fault:
        raise DataError(
            "data.row_unreadable_for_fix", path=source.path, line=row.line, fault=row.fault
        )
    return row.value


def _fix_value(value: Any, where: str, place: str, changes: list[str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _fix_value(inner, f"{where}.{key}" if where else key, place, changes)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [
            _fix_value(v, f"{where}[{n}]", place, changes) for n, v in enumerate(value, start=1)
        ]
    if not isinstance(value, str):
        return value
    for what, text in fix_text(value):
        changes.append(f"{place}: {where}: {what}")
        value = text
    return value


def fix_text(text: str) -> Iterator[tuple[str, str]]:
    """(description, the text after it) of every change to a text, in order.

    >>> list(fix_text("好的<br>再见 "))
    [('1 HTML breaks are line ends', '好的\\n再见 '), ('spaces at its ends are gone', '好的\\n再见')]
    """
    if MOJIBAKE.search(text) and (right := decode_again(text)):
        text = right
        yield "decoded again, as UTF-8", text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        yield "line ends are \\n", text
    if matches := CONTROL.findall(text):
        text = CONTROL.sub("", text)
        yield f"{len(matches)} control or invisible characters are gone", text
    if not CODE.search(text) and (matches := BREAK.findall(text)):
        text = BREAK.sub("\n", text)
        yield f"{len(matches)} HTML breaks are line ends", text
    if not CODE.search(text) and (matches := ENTITY.findall(text)):
        text = ENTITY.sub(lambda m: html.unescape(m.group()).replace("\xa0", " "), text)
        yield f"{len(matches)} HTML entities are characters", text
    if text != text.strip() and text.strip():
        yield "spaces at its ends are gone", text.strip()


def decode_again(text: str) -> str:
    """The Chinese text that was decoded as Latin-1 or cp1252; "" where there is none.

    >>> decode_again("ä½\\xa0å¥½")
    '你好'
    """
    for encoding in ("latin-1", "cp1252"):
        try:
            right = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        if HAN.search(right):
            return right
    return ""


def render_rows(rows: list[Any], source: RowSource) -> str:
    """The text of a file of `rows`, in the layout that the file's name promises."""
    if source.layout == "txt":
        return "".join(f"{row['text']}\n" for row in rows)
    if source.layout == "csv":
        out = io.StringIO(newline="")
        table = csv.DictWriter(out, list(rows[0]) if rows else [])
        table.writeheader()
        table.writerows(rows)
        return out.getvalue()
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    # Half of a surrogate pair cannot be encoded as UTF-8, and stays the escape that it was.
    lines = [line.encode("utf-8", "backslashreplace").decode() for line in lines]
    if source.path.suffix.lower() == ".jsonl":
        return "".join(f"{line}\n" for line in lines)
    return "[\n" + ",\n".join(lines) + "\n]\n"
