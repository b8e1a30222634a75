"""A zip of a stranger, read within bounds and never unpacked to a disk.

Knows nothing of what its members mean.
"""

from __future__ import annotations

import io
import zipfile
import zlib

from elysia.core.errors import KnowledgeError

MAX_MEMBERS = 10_000
MAX_UNPACKED = 256 << 20  # bytes of all members together
BLOCK_SIZE = 1 << 20


class ZipArchive:
    """Members by name. KnowledgeError for what is no zip, is encrypted, or unpacks past the bounds."""

    def __init__(self, content: bytes, kind: str) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise KnowledgeError(f"it is no {kind}, or damaged ({error}).") from error
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS or sum(one.file_size for one in members) > MAX_UNPACKED:
            raise KnowledgeError(
                f"it unpacks to more than {MAX_MEMBERS:,} members or {MAX_UNPACKED >> 20} MB; it is "
                "refused."
            )
        if any(one.flag_bits & 1 for one in members):
            raise KnowledgeError("it is encrypted; save it without a password.")

    def read(self, name: str, default: bytes | None = None) -> bytes:
        """A member's bytes, no more than it said; `default` where there is none."""
        try:
            # In blocks: asked for the whole, zipfile unpacks it all before it looks at the size.
            with self._zip.open(name) as member:
                return b"".join(iter(lambda: member.read(BLOCK_SIZE), b""))
        except KeyError:
            if default is not None:
                return default
            raise KnowledgeError(f"its part {name[:80]!r} is missing.") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
            raise KnowledgeError(f"its part {name[:80]!r} is damaged ({error}).") from error

    def check(self) -> None:
        """Read every member once, for those who will read them on their own."""
        for name in self._zip.namelist():
            self.read(name)
