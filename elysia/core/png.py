"""A PNG as its chunks, every one kept as it was, and the texts among them.

https://www.w3.org/TR/png/ . Knows nothing of pixels or of character cards. Sizes are bounded: a
stranger made the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from elysia.core.errors import PersonaError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_FILE = 64 << 20
MAX_CHUNKS = 100_000
MAX_TEXT = 16 << 20  # of one text, decompressed


@dataclass(frozen=True)
class PngChunk:
    """One chunk. `crc` is the file's own, right or wrong."""

    kind: bytes
    data: bytes
    crc: int

    @classmethod
    def build(cls, kind: bytes, data: bytes) -> PngChunk:
        """A chunk with the right checksum."""
        return cls(kind, data, zlib.crc32(kind + data))


@dataclass(frozen=True)
class PngImage:
    """The chunks of a file up to IEND, and any bytes behind it."""

    chunks: tuple[PngChunk, ...]
    tail: bytes = b""

    def to_bytes(self) -> bytes:
        """The file. Of chunks that were not touched, the very bytes that were read."""
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
        """New tEXt chunks before IEND; those whose keyword is in `without`, in any case, go."""
        gone = {keyword.lower() for keyword in without}
        kept = [c for c in self.chunks[:-1] if (get_keyword(c) or "").lower() not in gone]
        made = [
            PngChunk.build(b"tEXt", key.encode("latin-1") + b"\0" + text) for key, text in texts
        ]
        return PngImage((*kept, *made, self.chunks[-1]), self.tail)


def read_png(raw: bytes, where: str) -> PngImage:
    """The chunks of a PNG file. PersonaError when it is cut short, too large or none."""
    if len(raw) > MAX_FILE:
        raise PersonaError(f"{where}: the picture has more than {MAX_FILE >> 20} MB.")
    if not raw.startswith(SIGNATURE):
        raise PersonaError(f"{where} is not a PNG picture.")
    chunks: list[PngChunk] = []
    place = len(SIGNATURE)
    while not chunks or chunks[-1].kind != b"IEND":
        if len(chunks) >= MAX_CHUNKS:
            raise PersonaError(f"{where}: the picture has more than {MAX_CHUNKS} chunks.")
        header = raw[place : place + 8]
        length = struct.unpack(">I", header[:4])[0] if len(header) == 8 else 0
        end = place + 12 + length
        if len(header) < 8 or end > len(raw):
            raise PersonaError(
                f"{where}: the PNG is cut short at byte {place} of {len(raw)}; fetch it again."
            )
        crc = struct.unpack(">I", raw[end - 4 : end])[0]
        chunks.append(PngChunk(header[4:], raw[place + 8 : end - 4], crc))
        place = end
    return PngImage(tuple(chunks), raw[place:])


def get_keyword(chunk: PngChunk) -> str | None:
    """The keyword of a text chunk; None of any other chunk."""
    if chunk.kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return None
    return chunk.data.partition(b"\0")[0].decode("latin-1")


def decode_text(chunk: PngChunk, where: str) -> bytes:
    """What a text chunk says, decompressed. PersonaError when it cannot be, or is too long."""
    _, _, rest = chunk.data.partition(b"\0")
    packed = chunk.kind == b"zTXt"
    if chunk.kind == b"zTXt":
        rest = rest[1:]  # the method, of which there is only one
    elif chunk.kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # behind the language and the translated keyword
    if packed:
        return _decompress(rest, where)
    if len(rest) > MAX_TEXT:
        raise PersonaError(f"{where}: a text in the picture has more than {MAX_TEXT >> 20} MB.")
    return rest


def _decompress(packed: bytes, where: str) -> bytes:
    try:
        text = zlib.decompressobj().decompress(packed, MAX_TEXT + 1)
    except zlib.error as error:
        raise PersonaError(f"{where}: a compressed text is damaged ({error}).") from None
    if len(text) > MAX_TEXT:
        raise PersonaError(f"{where}: a compressed text grows beyond {MAX_TEXT >> 20} MB.")
    return text
