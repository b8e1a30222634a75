"""Readers, a file for a few kinds each: bytes become a Source. KINDS says which reads what.

A reader raises KnowledgeError with the end of a sentence that began with the file's name. All but
plain text are run in a child process with limits (`knowledge.reading`). Knows nothing of shelves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from elysia.core.errors import KnowledgeError

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
# What is only decoded: no parser that a hostile file could drive.
PLAIN_KINDS = {".txt", ".md", ".markdown"}


MAX_CHARACTERS = 4_000_000
MAX_TITLE = 200  # characters of a heading that are kept

# Everything that shows as nothing, and would move a terminal's cursor or end a C string.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class SectionHeading:
    """A heading that begins at a character; level 1 is the highest."""

    at: int
    level: int
    title: str


@dataclass
class ParsedText:
    """A text that is being read. `pages` are the characters at which pages begin, where a kind has
    pages; `rows` says that each line stands for itself."""

    text: str = ""
    headings: list[SectionHeading] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    rows: bool = False


class TextBuilder:
    """Puts a Source together, line by line."""

    def __init__(self, *, rows: bool = False) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._source = ParsedText(rows=rows)

    def line(self, text: str, level: int = 0) -> None:
        """A line, or a heading of a level. Raises KnowledgeError past MAX_CHARACTERS."""
        text = clean_text(text)
        if level and (title := " ".join(text.strip(" #\t\n").split())[:MAX_TITLE]):
            self._source.headings.append(SectionHeading(self._length, level, title))
        self._put(text + "\n")

    def blank(self) -> None:
        """An empty line, which ends a paragraph; none after another."""
        if self._parts and self._parts[-1] != "\n":
            self._put("\n")

    def page(self) -> None:
        """Whatever follows is on the next page."""
        self.blank()
        self._source.pages.append(self._length)

    def done(self) -> ParsedText:
        """The whole."""
        self._source.text = "".join(self._parts).rstrip() + "\n" if self._parts else ""
        return self._source

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
        if self._length > MAX_CHARACTERS:
            raise KnowledgeError(
                f"it has more than {MAX_CHARACTERS:,} characters of text; split it into several."
            )


def clean_text(text: str) -> str:
    """The text without what cannot be seen, its line ends as `\\n`.

    >>> clean_text("a\\r\\nb\\x00c")
    'a\\nbc'
    """
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n"))
