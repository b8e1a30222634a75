"""Readers of HTML pages and EPUB books: the visible text, with its headings.

Nothing in them is executed or fetched.
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
    builder = TextBuilder()
    _write_page(content, builder)
    return builder.build()


def read_epub(content: bytes) -> ParsedText:
    """A book's chapters in reading order."""
    archive = ZipArchive(content, "EPUB")
    if b"EncryptedData" in archive.read("META-INF/encryption.xml", b"") and _is_text_encrypted(
        archive
    ):
        raise KnowledgeError("knowledge.drm")
    builder = TextBuilder()
    for chapter in _list_chapters(archive):
        builder.end_paragraph()
        _write_page(archive.read(chapter, b""), builder)
    return builder.build()


def _write_page(content: bytes, builder: TextBuilder) -> None:
    soup = BeautifulSoup(_decode_page(content), "lxml")
    for unseen in soup.find_all(HIDDEN_TAGS):
        unseen.decompose()
    line = _BlockText(builder)
    for node in soup.descendants:
        if isinstance(node, PreformattedString):
            continue  # comments, declarations
        if isinstance(node, NavigableString):
            line.add(node, next(tag for tag in node.parents if tag.name in _BLOCKS))
        elif getattr(node, "name", None) == "br":
            line.end()
    line.end()


class _BlockText:
    """Collects the text of one block; the block has ended when the next text is in another."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._words: list[str] = []
        self._block: Any = None

    def add(self, text: str, block: Any) -> None:
        if not text.strip():
            if self._words:
                self._words.append(" ")
            return
        if block is not self._block:
            self._start_block(block)
        self._words.append(text)

    def end(self) -> None:
        text = "".join(self._words)
        self._words = []
        if self._block is None or not text.strip():
            return
        name = self._block.name
        if name == "pre":
            self._builder.add_line(text.strip("\n"))
            return
        text = " ".join(text.split())
        level = int(name[1]) if re.fullmatch("h[1-6]", name) else 0
        self._builder.add_line(f"- {text}" if name == "li" else text, level)

    def _start_block(self, block: Any) -> None:
        row = block.parent if block.name in ("td", "th") else None
        if row is not None and self._block is not None and self._block.parent is row:
            self._words.append(" | ")  # the next cell of the same row
        else:
            self.end()
            if block.name in _PARAGRAPHS:
                self._builder.end_paragraph()
        self._block = block


def _decode_page(content: bytes) -> str:
    declared = _CHARSET.search(content[:4096])
    if declared and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        name = declared[1].decode().lower()
        try:
            return content.decode({"gb2312": "gb18030", "gbk": "gb18030"}.get(name, name))
        except (LookupError, ValueError):
            pass  # pages often declare an encoding that they do not use
    return decode_text(content)


def _list_chapters(archive: ZipArchive) -> list[str]:
    """The members that are chapters, in reading order."""
    container = _parse_xml(archive.read("META-INF/container.xml"))
    paths = container.xpath("//*[local-name()='rootfile']/@full-path")
    if not paths:
        raise KnowledgeError("knowledge.no_book")
    package = str(paths[0])
    book = _parse_xml(archive.read(package))
    items = {
        item.get("id"): item.get("href")
        for item in book.xpath("//*[local-name()='manifest']/*[local-name()='item']")
        if "html" in (item.get("media-type") or "")
    }
    spine = book.xpath("//*[local-name()='spine']/*[local-name()='itemref']/@idref")
    hrefs = [items[id] for id in dict.fromkeys(spine) if items.get(id)]
    # Paths are only ever names of members: none of them leads to the disk.
    return [normpath(join(dirname(package), unquote(str(href).split("#")[0]))) for href in hrefs]


def _is_text_encrypted(archive: ZipArchive) -> bool:
    """Whether chapters are encrypted, and not only fonts."""
    uris = re.findall(rb'URI\s*=\s*"([^"]+)"', archive.read("META-INF/encryption.xml", b""))
    return any(re.search(rb"\.x?html?$", name) for name in uris)


def _parse_xml(content: bytes) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        return etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise KnowledgeError("knowledge.damaged", fault=error) from error
