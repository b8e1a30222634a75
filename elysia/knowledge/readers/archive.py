"""A zip file from a stranger, read within limits and never unpacked to disk."""

from __future__ import annotations

import io
import zipfile
import zlib

from elysia.core.errors import KnowledgeError

MAX_MEMBERS = 10_000
MAX_UNPACKED = 256 << 20  # bytes of all members together
BLOCK_SIZE = 1 << 20  # bytes


class ZipArchive:
    """Members by name. KnowledgeError for what is no zip, is encrypted, or unpacks past the limits."""

    def __init__(self, content: bytes, kind: str) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise KnowledgeError(
                "knowledge.not_of_kind_or_damaged", kind=kind, fault=error
            ) from error
        members = self._zip.infolist()
        size = sum(member.file_size for member in members)
        if len(members) > MAX_MEMBERS or size > MAX_UNPACKED:
            raise KnowledgeError(
                "knowledge.archive_too_large", members=f"{MAX_MEMBERS:,}", size=MAX_UNPACKED >> 20
            )
        if any(member.flag_bits & 1 for member in members):
            raise KnowledgeError("knowledge.encrypted")

    def read(self, name: str, default: bytes | None = None) -> bytes:
        """A member's bytes, no more than the archive declares; `default` where there is none."""
        try:
            # In blocks: read at once, zipfile unpacks the whole before it checks the declared size.
            with self._zip.open(name) as member:
                return b"".join(iter(lambda: member.read(BLOCK_SIZE), b""))
        except KeyError:
            if default is not None:
                return default
            raise KnowledgeError("knowledge.part_missing", part=repr(name[:80])) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
            part = repr(name[:80])
            raise KnowledgeError("knowledge.part_damaged", part=part, fault=error) from error

    def check(self) -> None:
        """Read every member once, for a parser that opens the archive itself."""
        for name in self._zip.namelist():
            self.read(name)
