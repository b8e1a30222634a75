"""Real files of every kind, well-formed and hostile, made on the spot."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

ROSE = "粉色的玫瑰开在风铃坡的花房里。"


def pdf(*pages: str, password: str | None = None) -> bytes:
    """A PDF whose pages say these Latin texts; a page without text is a picture of nothing."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(400, 400)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in text.split("\n") if line)
        stream.set_data(f"BT /F1 12 Tf 20 380 Td {shown}ET".encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx() -> bytes:
    """A Word document with headings, a paragraph and a table with a merged cell."""
    from docx import Document

    document = Document()
    document.add_heading("花房", 1)
    document.add_heading("玫瑰", 2)
    document.add_paragraph(ROSE)
    table = document.add_table(rows=2, cols=2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "茶会"
    table.cell(1, 0).text, table.cell(1, 1).text = "星期五", "下午四点"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def zipped(members: dict[str, bytes | str]) -> bytes:
    """A zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)
PACKAGE = (
    '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
    '<item id="two" href="two.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="one" href="text/one%20a.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="css" href="s.css" media-type="text/css"/></manifest>'
    '<spine><itemref idref="one"/><itemref idref="two"/></spine></package>'
)


def epub(**more: bytes | str) -> bytes:
    """A book of two chapters; `more` are members that are added or replaced."""
    members: dict[str, bytes | str] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": PACKAGE,
        "OEBPS/two.xhtml": "<html><body><h1>第二章</h1><p>后来下雨了。</p></body></html>",
        "OEBPS/text/one a.xhtml": f"<html><body><h1>第一章</h1><p>{ROSE}</p></body></html>",
    }
    return zipped({**members, **more})


def bomb(name: str, megabytes: int = 1_000) -> bytes:
    """A small zip with one member of zeros that unpacks to `megabytes`, and says so."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # The same block again and again, each standing for itself.
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return _one_member(name, block * megabytes + packer.flush(), megabytes << 20)


def liar(name: str, megabytes: int = 1_000) -> bytes:
    """The same, but it says that its member has ten bytes."""
    raw = bytearray(bomb(name, megabytes))
    size = struct.pack("<I", megabytes << 20)
    at = raw.find(size)
    while at >= 0:
        raw[at : at + 4] = struct.pack("<I", 10)
        at = raw.find(size, at + 4)
    return bytes(raw)


def _one_member(name: str, packed: bytes, size: int) -> bytes:
    path = name.encode()
    sizes = struct.pack("<III", 0, len(packed), size)
    local = b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes
    local += struct.pack("<HH", len(path), 0) + path
    central = b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sizes
    central += struct.pack("<HHHHHII", len(path), 0, 0, 0, 0, 0, 0) + path
    body = local + packed
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(body), 0)
    return body + central + b"PK\x05\x06" + end
