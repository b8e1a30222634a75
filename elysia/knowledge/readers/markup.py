"""HTML pages and EPUB books: the text that a reader would see, with its headings.

Nothing of them is run or fetched. Knows nothing of other kinds.
"""

from __future__ import annotations

import re
from posixpath import dirname, join, normpath
from typing import Any
from urllib.parse import unquote

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PreformattedString
from lxml import etree

from elysia.core.errors import KnowledgeError
from elysia.knowledge.readers import ParsedText, TextBuilder
from elysia.knowledge.readers.archive import ZipArchive
from elysia.knowledge.readers.plain import decode_text

# fmt: off
HIDDEN_TAGS = [
    "script", "style", "template", "noscript", "svg", "math", "head", "iframe", "object", "select",
    "button",
]
_PARAGRAPHS = frozenset([
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "pre", "blockquote", "section",
    "article",
])
_BLOCKS = _PARAGRAPHS | frozenset([
    "address", "aside", "body", "caption", "center", "dd", "details", "dialog", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "legend", "li",
    "main", "nav", "summary", "tbody", "td", "tfoot", "th", "thead", "tr", "[document]",
])
# fmt: on
_CHARSET = re.compile(rb"""<(?:meta|\?xml)[^>]{0,300}?(?:charset|encoding)\s*=\s*["']?([\w-]+)""")


def read_html(content: bytes) -> ParsedText:
    """A page."""
    writer = TextBuilder()
    _write_page(content, writer)
    return writer.done()


def read_epub(content: bytes) -> ParsedText:
    """A book's chapters in its own order."""
    archive = ZipArchive(content, "EPUB")
    if b"EncryptedData" in archive.read("META-INF/encryption.xml", b"") and _is_text_encrypted(
        archive
    ):
        raise KnowledgeError("the book is locked by its seller (DRM) and cannot be read.")
    writer = TextBuilder()
    for chapter in _list_chapters(archive):
        writer.blank()
        _write_page(archive.read(chapter, b""), writer)
    return writer.done()


def _write_page(content: bytes, writer: TextBuilder) -> None:
    soup = BeautifulSoup(_decode_page(content), "lxml")
    for unseen in soup.find_all(HIDDEN_TAGS):
        unseen.decompose()
    line = _BlockText(writer)
    for node in soup.descendants:
        if isinstance(node, PreformattedString):
            continue  # comments, declarations
        if isinstance(node, NavigableString):
            line.add(node, next(one for one in node.parents if one.name in _BLOCKS))
        elif getattr(node, "name", None) == "br":
            line.end()
    line.end()


class _BlockText:
    """Collects the text of one block; a block's end is seen when the next text is in another."""

    def __init__(self, writer: TextBuilder) -> None:
        self._writer = writer
        self._words: list[str] = []
        self._block: Any = None

    def add(self, text: str, block: Any) -> None:
        if not text.strip():
            if self._words:
                self._words.append(" ")
            return
        if block is not self._block:
            self._turn(block)
        self._words.append(text)

    def end(self) -> None:
        text = "".join(self._words)
        self._words = []
        if self._block is None or not text.strip():
            return
        name = self._block.name
        if name == "pre":
            self._writer.line(text.strip("\n"))
            return
        text = " ".join(text.split())
        level = int(name[1]) if re.fullmatch("h[1-6]", name) else 0
        self._writer.line(f"- {text}" if name == "li" else text, level)

    def _turn(self, block: Any) -> None:
        row = block.parent if block.name in ("td", "th") else None
        if row is not None and self._block is not None and self._block.parent is row:
            self._words.append(" | ")  # the next cell of the same row
        else:
            self.end()
            if block.name in _PARAGRAPHS:
                self._writer.blank()
        self._block = block


def _decode_page(content: bytes) -> str:
    said = _CHARSET.search(content[:4096])
    if said and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        name = said[1].decode().lower()
        try:
            return content.decode({"gb2312": "gb18030", "gbk": "gb18030"}.get(name, name))
        except (LookupError, ValueError):
            pass  # a page may say one and be the other
    return decode_text(content)


def _list_chapters(archive: ZipArchive) -> list[str]:
    """The members that are its chapters, in order."""
    container = _parse_xml(archive.read("META-INF/container.xml"))
    paths = container.xpath("//*[local-name()='rootfile']/@full-path")
    if not paths:
        raise KnowledgeError("its container names no book; it is no EPUB, or damaged.")
    package = str(paths[0])
    book = _parse_xml(archive.read(package))
    items = {
        item.get("id"): item.get("href")
        for item in book.xpath("//*[local-name()='manifest']/*[local-name()='item']")
        if "html" in (item.get("media-type") or "")
    }
    wanted = book.xpath("//*[local-name()='spine']/*[local-name()='itemref']/@idref")
    found = [items[one] for one in dict.fromkeys(wanted) if items.get(one)]
    # Paths are names of members and nothing else: none of them leads to the disk.
    return [normpath(join(dirname(package), unquote(str(href).split("#")[0]))) for href in found]


def _is_text_encrypted(archive: ZipArchive) -> bool:
    """Whether more than fonts are encrypted."""
    locked = re.findall(rb'URI\s*=\s*"([^"]+)"', archive.read("META-INF/encryption.xml", b""))
    return any(re.search(rb"\.x?html?$", name) for name in locked)


def _parse_xml(content: bytes) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        return etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise KnowledgeError(f"it is damaged ({error}).") from error
