"""A text in spans that are each worth finding: whole paragraphs under one heading, whole sentences.

Knows nothing of files, shelves or searching.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from elysia.knowledge.readers import ParsedText

TARGET_LENGTH = 400  # characters that several paragraphs may fill together
MAX_LENGTH = 800  # of a paragraph that stays whole; a longer one is cut between sentences

_LINE = re.compile(r"[^\n]+")
_SENTENCE = re.compile(r"(?:[。！？!?…]+|[.](?=\s)|[；;\n])[」』”’\"')）】]*\s*")
_CLAUSE = re.compile(r"[，,、：:]\s*|\s+")


@dataclass(frozen=True)
class Chunk:
    """Characters `start` to `end` of a text, under a path of headings, on a page (from 1)."""

    start: int
    end: int
    heading: str = ""
    page: int | None = None


def split_chunks(source: ParsedText) -> list[Chunk]:
    """The spans, in order; none overlap, and what lies between them is blank.

    >>> [(one.start, one.end) for one in split_chunks(ParsedText("a b.\\n\\nc d.\\n"))]
    [(0, 10)]
    """
    starts = [heading.at for heading in source.headings]
    paths = _heading_paths(source)
    bounds = sorted({0, *starts, *source.pages, len(source.text)})
    pieces: list[Chunk] = []
    for start, end in pairwise(bounds):
        heading = paths[bisect_right(starts, start)]
        page = bisect_right(source.pages, start) or None
        pieces += [Chunk(a, b, heading, page) for a, b in _split_section(source, start, end)]
    return _drop_bare_headings(pieces, source)


def _heading_paths(source: ParsedText) -> list[str]:
    """The path of headings that holds after the first n headings."""
    paths = [""]
    open_now: list[tuple[int, str]] = []
    for heading in source.headings:
        open_now = [one for one in open_now if one[0] < heading.level]
        open_now.append((heading.level, heading.title))
        paths.append(" > ".join(title for _, title in open_now))
    return paths


def _split_section(source: ParsedText, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of one section: paragraphs together until they fill one."""
    if source.rows:
        for row in _LINE.finditer(source.text, start, end):
            yield from _split_paragraph(source.text, row.start(), row.end())
        return
    first = last = -1
    for a, b in _paragraphs(source.text, start, end):
        if first >= 0 and b - first > TARGET_LENGTH:
            yield first, last
            first = -1
        if b - a > MAX_LENGTH:
            yield from _split_paragraph(source.text, a, b)
            continue
        first, last = (a if first < 0 else first), b
    if first >= 0:
        yield first, last


def _paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs of lines that are not blank."""
    first = last = -1
    for line in _LINE.finditer(text, start, end):
        if line[0].isspace() or (first >= 0 and line.start() > last + 1):
            if first >= 0:
                yield first, last
            first = -1
        if not line[0].isspace():
            first, last = (line.start() if first < 0 else first), line.end()
    if first >= 0:
        yield first, last


def _split_paragraph(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A long paragraph in parts of about one length, between sentences where there are any."""
    while end - start > MAX_LENGTH:
        parts = -(-(end - start) // TARGET_LENGTH)
        aim = start + (end - start) // parts
        cut = _nearest_end(_SENTENCE, text, start, aim) or _nearest_end(_CLAUSE, text, start, aim)
        cut = cut or aim
        yield _trim(text, start, cut)
        start = cut
    if text[start:end].strip():
        yield _trim(text, start, end)


def _nearest_end(pattern: re.Pattern[str], text: str, start: int, aim: int) -> int | None:
    reach = TARGET_LENGTH // 2
    ends = [mark.end() for mark in pattern.finditer(text, max(start + 1, aim - reach), aim + reach)]
    return min(ends, key=lambda place: abs(place - aim)) if ends else None


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _drop_bare_headings(pieces: list[Chunk], source: ParsedText) -> list[Chunk]:
    """A heading alone says nothing that the spans below it do not say."""
    whole, more = [], []
    lines = {heading.at for heading in source.headings}
    for piece in pieces:
        start, end = _trim(source.text, piece.start, piece.end)
        if start < end:
            whole.append(Chunk(start, end, piece.heading, piece.page))
            if start not in lines or "\n" in source.text[start:end]:
                more.append(whole[-1])
    return more or whole
