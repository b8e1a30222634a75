"""PNG files as a list of chunks, with the texts among them; chunks that are not touched stay as they are.

Specification: https://www.w3.org/TR/png/ . Sizes are bounded, because the files come from strangers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from elysia.core.errors import PersonaError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_FILE = 64 << 20  # bytes
MAX_CHUNKS = 100_000
MAX_TEXT = 16 << 20  # bytes of one text, decompressed


@dataclass(frozen=True)
class PngChunk:
    """One chunk. `crc` is the checksum in the file, right or wrong."""

    kind: bytes
    data: bytes
    crc: int

    @classmethod
    def build(cls, kind: bytes, data: bytes) -> PngChunk:
        """A new chunk with the right checksum."""
        return cls(kind, data, zlib.crc32(kind + data))


@dataclass(frozen=True)
class PngImage:
    """The chunks of a file up to IEND, and any bytes after it."""

    chunks: tuple[PngChunk, ...]
    tail: bytes = b""

    def to_bytes(self) -> bytes:
        """The file's bytes. Chunks that were not touched come out exactly as they were read."""
        parts = [SIGNATURE]
        for chunk in self.chunks:
            parts += [
                struct.pack(">I", len(chunk.data)),
                chunk.kind,
                chunk.data,
                struct.pack(">I", chunk.crc),
            ]
        return b"".join([*parts, self.tail])

    def with_texts(self, texts: Sequence[tuple[str, bytes]], without: Sequence[str]) -> PngImage:
        """A copy with new tEXt chunks before IEND, and without those whose keyword is in `without` (in any
        case).
        """
        removed = {keyword.lower() for keyword in without}
        others = [c for c in self.chunks[:-1] if (get_keyword(c) or "").lower() not in removed]
        added = [
            PngChunk.build(b"tEXt", key.encode("latin-1") + b"\0" + text) for key, text in texts
        ]
        return PngImage((*others, *added, self.chunks[-1]), self.tail)


def read_png(raw: bytes, where: str) -> PngImage:
    """The chunks of a PNG file. Raises PersonaError when it is cut short, too large or no PNG."""
    if len(raw) > MAX_FILE:
        raise PersonaError("core.picture_too_large", where=where, limit=MAX_FILE >> 20)
    if not raw.startswith(SIGNATURE):
        raise PersonaError("core.not_a_png", where=where)
    chunks: list[PngChunk] = []
    place = len(SIGNATURE)
    while not chunks or chunks[-1].kind != b"IEND":
        if len(chunks) >= MAX_CHUNKS:
            raise PersonaError("core.picture_too_many_chunks", where=where, limit=MAX_CHUNKS)
        header = raw[place : place + 8]
        length = struct.unpack(">I", header[:4])[0] if len(header) == 8 else 0
        end = place + 12 + length
        if len(header) < 8 or end > len(raw):
            raise PersonaError("core.png_cut_short", where=where, position=place, size=len(raw))
        crc = struct.unpack(">I", raw[end - 4 : end])[0]
        chunks.append(PngChunk(header[4:], raw[place + 8 : end - 4], crc))
        place = end
    return PngImage(tuple(chunks), raw[place:])


def get_keyword(chunk: PngChunk) -> str | None:
    """The keyword of a text chunk; None for any other chunk."""
    if chunk.kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return None
    return chunk.data.partition(b"\0")[0].decode("latin-1")


def decode_text(chunk: PngChunk, where: str) -> bytes:
    """The text of a text chunk, decompressed. Raises PersonaError when it is damaged or too long."""
    _, _, rest = chunk.data.partition(b"\0")
    packed = chunk.kind == b"zTXt"
    if chunk.kind == b"zTXt":
        rest = rest[1:]  # the compression method, of which there is only one
    elif chunk.kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # after the language and the translated keyword
    if packed:
        return _decompress(rest, where)
    if len(rest) > MAX_TEXT:
        raise PersonaError("core.picture_text_too_large", where=where, limit=MAX_TEXT >> 20)
    return rest


def _decompress(packed: bytes, where: str) -> bytes:
    try:
        text = zlib.decompressobj().decompress(packed, MAX_TEXT + 1)
    except zlib.error as error:
        raise PersonaError("core.picture_text_damaged", where=where, reason=str(error)) from None
    if len(text) > MAX_TEXT:
        raise PersonaError("core.picture_text_grows", where=where, limit=MAX_TEXT >> 20)
    return text
