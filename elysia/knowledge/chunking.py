"""Splits a text into chunks that are worth finding: whole paragraphs under one heading, whole sentences."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from elysia.knowledge.readers import ParsedText

TARGET_LENGTH = 400  # characters that several paragraphs may fill together
MAX_LENGTH = 800  # of a paragraph that stays whole; a longer one is split between sentences

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
    """The chunks, in order. None overlap, none crosses a heading or a page, and what lies between them
    is blank.

    >>> [(chunk.start, chunk.end) for chunk in split_chunks(ParsedText("a b.\\n\\nc d.\\n"))]
    [(0, 10)]
    """
    starts = [heading.at for heading in source.headings]
    paths = _heading_paths(source)
    bounds = sorted({0, *starts, *source.pages, len(source.text)})
    chunks: list[Chunk] = []
    for start, end in pairwise(bounds):
        heading = paths[bisect_right(starts, start)]
        page = bisect_right(source.pages, start) or None
        chunks += [Chunk(a, b, heading, page) for a, b in _split_section(source, start, end)]
    return _drop_bare_headings(chunks, source)


def _heading_paths(source: ParsedText) -> list[str]:
    """The path of headings that applies after the first n headings, for n from 0."""
    paths = [""]
    path: list[tuple[int, str]] = []
    for heading in source.headings:
        path = [(level, title) for level, title in path if level < heading.level]
        path.append((heading.level, heading.title))
        paths.append(" > ".join(title for _, title in path))
    return paths


def _split_section(source: ParsedText, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The spans of one section: paragraphs together until they fill one."""
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
    """A long paragraph in parts of about equal length, between sentences where there are any."""
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
    """The end of the match that is nearest to `aim`, within half a chunk of it."""
    reach = TARGET_LENGTH // 2
    matches = pattern.finditer(text, max(start + 1, aim - reach), aim + reach)
    return min((match.end() for match in matches), key=lambda end: abs(end - aim), default=None)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _drop_bare_headings(chunks: list[Chunk], source: ParsedText) -> list[Chunk]:
    """A heading alone says nothing that the chunks below it do not say; it stays if it is all."""
    trimmed, with_text = [], []
    headings = {heading.at for heading in source.headings}
    for chunk in chunks:
        start, end = _trim(source.text, chunk.start, chunk.end)
        if start < end:
            trimmed.append(Chunk(start, end, chunk.heading, chunk.page))
            if start not in headings or "\n" in source.text[start:end]:
                with_text.append(trimmed[-1])
    return with_text or trimmed
