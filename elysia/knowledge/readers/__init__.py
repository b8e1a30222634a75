"""Readers turn the bytes of a file into a ParsedText; READERS says which reads what.

Each module holds the readers of some kinds of files. A reader raises KnowledgeError when it cannot read
the file. All but plain text run in a child process with limits, see `elysia.knowledge.sandbox`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from elysia.core.errors import KnowledgeError

__all__ = ["PLAIN_KINDS", "READERS", "ParsedText", "SectionHeading", "TextBuilder", "clean_text"]

# By name, so that the parsers are imported in the child process alone.
READERS = {
    ".txt": "elysia.knowledge.readers.plain:read_text",
    ".md": "elysia.knowledge.readers.plain:read_markdown",
    ".markdown": "elysia.knowledge.readers.plain:read_markdown",
    ".csv": "elysia.knowledge.readers.plain:read_csv",
    ".tsv": "elysia.knowledge.readers.plain:read_csv",
    ".html": "elysia.knowledge.readers.markup:read_html",
    ".htm": "elysia.knowledge.readers.markup:read_html",
    ".xhtml": "elysia.knowledge.readers.markup:read_html",
    ".epub": "elysia.knowledge.readers.markup:read_epub",
    ".pdf": "elysia.knowledge.readers.office:read_pdf",
    ".docx": "elysia.knowledge.readers.office:read_docx",
}
# These are only decoded: there is no parser that a hostile file could exploit.
PLAIN_KINDS = {".txt", ".md", ".markdown"}

MAX_CHARACTERS = 4_000_000  # of a document's text
MAX_TITLE = 200  # characters of a heading

# Invisible characters that could move a terminal's cursor or end a C string, and half characters.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class SectionHeading:
    """A heading that begins at a character of the text; level 1 is the highest."""

    at: int
    level: int
    title: str


@dataclass
class ParsedText:
    """The text of a file. `pages` are the characters at which pages begin, where its kind has pages;
    with `rows`, each line is a record of its own.
    """

    text: str = ""
    headings: list[SectionHeading] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    rows: bool = False


class TextBuilder:
    """Builds a ParsedText line by line. KnowledgeError past MAX_CHARACTERS."""

    def __init__(self, *, rows: bool = False) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._source = ParsedText(rows=rows)

    def add_line(self, text: str, level: int = 0) -> None:
        """Add a line; with a level, it is a heading."""
        text = clean_text(text)
        if level and (title := " ".join(text.strip(" #\t\n").split())[:MAX_TITLE]):
            self._source.headings.append(SectionHeading(self._length, level, title))
        self._append(text + "\n")

    def end_paragraph(self) -> None:
        """Add an empty line, unless there is one already."""
        if self._parts and self._parts[-1] != "\n":
            self._append("\n")

    def start_page(self) -> None:
        """What follows is on the next page."""
        self.end_paragraph()
        self._source.pages.append(self._length)

    def build(self) -> ParsedText:
        """The whole text."""
        self._source.text = "".join(self._parts).rstrip() + "\n" if self._parts else ""
        return self._source

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
        if self._length > MAX_CHARACTERS:
            raise KnowledgeError("knowledge.text_too_long", limit=f"{MAX_CHARACTERS:,}")


def clean_text(text: str) -> str:
    """The text without invisible characters, with `\\n` as its line ends.

    >>> clean_text("a\\r\\nb\\x00c")
    'a\\nbc'
    """
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n"))
