"""Readers of PDF and Word documents: their text, with pages or headings.

Nothing in them is executed or fetched; pictures are ignored.
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
        # Many PDFs have an empty password, only to forbid printing.
        if reader.is_encrypted and not _decrypt(reader):
            raise KnowledgeError("knowledge.encrypted")
        if len(reader.pages) > MAX_PAGES:
            raise KnowledgeError("knowledge.too_many_pages", limit=f"{MAX_PAGES:,}")
        builder = TextBuilder()
        for page in reader.pages:
            builder.start_page()
            for line in unwrap_lines(page.extract_text() or ""):
                builder.add_line(line)
    except PyPdfError as error:
        raise KnowledgeError("knowledge.not_of_kind_or_damaged", kind="PDF", fault=error) from error
    source = builder.build()
    if source.pages and not source.text.strip():
        raise KnowledgeError("knowledge.scanned", pages=len(source.pages))
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
        kind = "Word document"
        raise KnowledgeError("knowledge.not_of_kind_or_damaged", kind=kind, fault=error) from error
    builder = TextBuilder()
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            builder.end_paragraph()
            for row in block.rows:
                cells = [" ".join(cell.text.split()) for cell in _distinct_cells(row.cells)]
                builder.add_line(" | ".join(cell for cell in cells if cell))
            builder.end_paragraph()
        elif block.text.strip():
            builder.end_paragraph()
            builder.add_line(block.text.strip(), _heading_level(block))
    return builder.build()


def unwrap_lines(text: str) -> list[str]:
    """The lines, joined where one was broken only because the page was full.

    >>> unwrap_lines("The sea was calm and the\\nboats came home.\\nEnd")
    ['The sea was calm and the boats came home.', 'End']
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    full = 0.7 * max((_display_width(line) for line in lines), default=0)
    joined: list[str] = []
    continues = False
    for line in lines:
        if not line:
            continues = False
            if joined and joined[-1]:
                joined.append("")
            continue
        if continues:
            joined[-1] = _join_lines(joined[-1], line)
        else:
            joined.append(line)
        continues = _display_width(line) >= full and not _ENDS.search(line)
    return joined


def _join_lines(first: str, second: str) -> str:
    if first.endswith("-") and first[-2:-1].isalpha() and second[:1].islower():
        return first[:-1] + second
    is_unspaced = _UNSPACED.match(first[-1]) or _UNSPACED.match(second[0])
    return first + ("" if is_unspaced else " ") + second


def _display_width(line: str) -> int:
    return len(line) + len(_UNSPACED.findall(line))


def _decrypt(reader: Any) -> bool:
    from pypdf.errors import DependencyError

    try:
        return bool(reader.decrypt(""))
    except (DependencyError, NotImplementedError):
        return False


def _heading_level(paragraph: Any) -> int:
    """From the style's name, English or Chinese, or the outline level; 0 for text."""
    name = str(paragraph.style.name if paragraph.style is not None else "").lower()
    if name == "title":
        return 1
    if match := re.fullmatch(r"(?:heading|标题|標題)\s*([1-9])", name):
        return int(match[1])
    levels = paragraph._p.xpath("./w:pPr/w:outlineLvl/@w:val")
    return int(levels[0]) + 1 if levels and levels[0].isdigit() and int(levels[0]) < 9 else 0


def _distinct_cells(cells: Any) -> list[Any]:
    """A merged cell appears in several columns; here it appears once."""
    cells_by_id: dict[int, Any] = {}
    for cell in cells:
        cells_by_id.setdefault(id(cell._tc), cell)
    return list(cells_by_id.values())
