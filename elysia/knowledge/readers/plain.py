"""Readers of plain text, Markdown and tables of separated values, in whatever encoding."""

from __future__ import annotations

import csv
import io
import re

from elysia.core.errors import KnowledgeError
from elysia.data.readers.text_encoding import detect_encoding_of_bytes
from elysia.knowledge.readers import ParsedText, TextBuilder

MAX_COLUMNS = 500
_UNPRINTABLE = re.compile("[\ufffd\ue000-\uf8ff\x00-\x08\x0e-\x1f]")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:\s+(.*?))?\s*#*\s*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)\s*$")


def decode_text(content: bytes) -> str:
    """The text of bytes. KnowledgeError when they are not text in any known encoding."""
    text = content.decode(detect_encoding_of_bytes(content), "replace")
    if len(_UNPRINTABLE.findall(text[:100_000])) * 20 > len(text[:100_000]):
        raise KnowledgeError("knowledge.unknown_encoding")
    return text


def read_text(content: bytes) -> ParsedText:
    """A text, unchanged."""
    builder = TextBuilder()
    for line in decode_text(content).splitlines():
        builder.add_line(line)
    return builder.build()


def read_markdown(content: bytes) -> ParsedText:
    """Markdown source; its `#` and underlined headings outside of code blocks are headings."""
    builder = TextBuilder()
    lines = decode_text(content).splitlines()
    fence = ""
    for number, line in enumerate(lines):
        if mark := _FENCE.match(line):
            if not fence:
                fence = mark[1]
            elif mark[1].startswith(fence):
                fence = ""
            builder.add_line(line)
            continue
        below = lines[number + 1] if number + 1 < len(lines) else ""
        builder.add_line(line, 0 if fence else _heading_level(line, below))
    return builder.build()


def read_csv(content: bytes) -> ParsedText:
    """A table as a line per row, each value after its column's name."""
    text = decode_text(content).replace("\x00", "")
    sample = text[:20_000]
    delimiter = max(",;\t|", key=lambda mark: (sample.count(mark), mark == ","))
    csv.field_size_limit(len(text) + 1)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(rows, [])]
        if len(names) > MAX_COLUMNS:
            raise KnowledgeError("knowledge.too_many_columns", limit=MAX_COLUMNS)
        builder = TextBuilder(rows=True)
        for row in rows:
            cells = [
                f"{names[n]}: {value}" if n < len(names) and names[n] else value
                for n, cell in enumerate(row[:MAX_COLUMNS])
                if (value := " ".join(cell.split()))
            ]
            if cells:
                builder.add_line("; ".join(cells))
    except csv.Error as error:
        raise KnowledgeError("knowledge.bad_row", line=rows.line_num, fault=error) from error
    return builder.build()


def _heading_level(line: str, below: str) -> int:
    """The level of a heading, `#` or underlined by the line below; 0 for text."""
    if mark := _HEADING.match(line):
        return len(mark[1]) if mark[2] else 0
    if line.strip() and (under := _UNDERLINE.match(below)) and len(under[1]) > 2:
        # A list, a quote or a table above dashes is not a heading.
        if line.lstrip()[0] in "-*+>|" or (under[1][0] == "-" and len(line) > 80):
            return 0
        return 1 if under[1][0] == "=" else 2
    return 0
