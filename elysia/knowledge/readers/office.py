"""PDF and Word documents: their text, with pages or headings.

Nothing of them is run or fetched, pictures are passed over. Knows nothing of other kinds.
"""

from __future__ import annotations

import io
import logging
import re
from typing import Any

from elysia.core.errors import KnowledgeError
from elysia.knowledge.readers import ParsedText, TextBuilder
from elysia.knowledge.readers.archive import ZipArchive

MAX_PAGES = 5_000
_ENDS = re.compile(r"[.!?。！？…：:；;」』”’\")）】]$")
_UNSPACED = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")


def read_pdf(content: bytes) -> ParsedText:
    """A PDF's pages; lines that a page broke become one again."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(content))
        # Many are encrypted with an empty password, only to forbid printing.
        if reader.is_encrypted and not _decrypt(reader):
            raise KnowledgeError("it is encrypted; save it without a password.")
        if len(reader.pages) > MAX_PAGES:
            raise KnowledgeError(f"it has more than {MAX_PAGES:,} pages; split it.")
        writer = TextBuilder()
        for page in reader.pages:
            writer.page()
            for line in unwrap_lines(page.extract_text() or ""):
                writer.line(line)
    except PyPdfError as error:
        raise KnowledgeError(f"it is no PDF, or damaged ({error}).") from error
    source = writer.done()
    if source.pages and not source.text.strip():
        raise KnowledgeError(
            f"its {len(source.pages)} pages hold pictures and no text; let a text recognition (OCR) "
            "read it first."
        )
    return source


def read_docx(content: bytes) -> ParsedText:
    """A Word document's paragraphs, headings and tables, in order."""
    from docx import Document
    from docx.table import Table

    archive = ZipArchive(content, "Word document")
    archive.read("[Content_Types].xml")
    archive.check()
    try:
        document = Document(io.BytesIO(content))
    except (KeyError, ValueError, AttributeError, SyntaxError) as error:
        raise KnowledgeError(f"it is no Word document, or damaged ({error}).") from error
    writer = TextBuilder()
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            writer.blank()
            for row in block.rows:
                cells = [" ".join(cell.text.split()) for cell in _distinct_cells(row.cells)]
                writer.line(" | ".join(cell for cell in cells if cell))
            writer.blank()
        elif block.text.strip():
            writer.blank()
            writer.line(block.text.strip(), _heading_level(block))
    return writer.done()


def unwrap_lines(text: str) -> list[str]:
    """Lines, those joined that were broken only because the page was full.

    >>> unwrap_lines("The sea was calm and the\\nboats came home.\\nEnd")
    ['The sea was calm and the boats came home.', 'End']
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    full = 0.7 * max((_display_width(line) for line in lines), default=0)
    joined: list[str] = []
    goes_on = False
    for line in lines:
        if not line:
            goes_on = False
            if joined and joined[-1]:
                joined.append("")
            continue
        if goes_on:
            joined[-1] = _join_lines(joined[-1], line)
        else:
            joined.append(line)
        goes_on = _display_width(line) >= full and not _ENDS.search(line)
    return joined


def _join_lines(first: str, second: str) -> str:
    if first.endswith("-") and first[-2:-1].isalpha() and second[:1].islower():
        return first[:-1] + second
    close = _UNSPACED.match(first[-1]) or _UNSPACED.match(second[0])
    return first + ("" if close else " ") + second


def _display_width(line: str) -> int:
    return len(line) + len(_UNSPACED.findall(line))


def _decrypt(reader: Any) -> bool:
    from pypdf.errors import DependencyError

    try:
        return bool(reader.decrypt(""))
    except (DependencyError, NotImplementedError):
        return False


def _heading_level(paragraph: Any) -> int:
    """By the style's name, in whatever language, or its outline level; 0 for text."""
    name = str(paragraph.style.name if paragraph.style is not None else "").lower()
    if name == "title":
        return 1
    if found := re.fullmatch(r"(?:heading|标题|標題)\s*([1-9])", name):
        return int(found[1])
    levels = paragraph._p.xpath("./w:pPr/w:outlineLvl/@w:val")
    return int(levels[0]) + 1 if levels and levels[0].isdigit() and int(levels[0]) < 9 else 0


def _distinct_cells(cells: Any) -> list[Any]:
    """A merged cell stands in several columns and is said once."""
    seen: dict[int, Any] = {}
    for cell in cells:
        seen.setdefault(id(cell._tc), cell)
    return list(seen.values())
