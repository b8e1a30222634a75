"""What a GGUF says of itself: its metadata, read without its weights and without running anything.

The file may be a stranger's: every length is held against the file's own size before it is believed.
Knows nothing of what the keys mean.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from elysia.core.errors import ModelError

MAGIC = b"GGUF"
STRING, ARRAY = 8, 9
# Number of a type of value -> its form in struct's language.
FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_header(path: Path) -> dict[str, Any]:
    """Key to value of a GGUF's metadata; arrays as lists.

    Raises ModelError for a file that cannot be read, is no GGUF, or ends before its metadata does.
    """
    try:
        with open(path, "rb") as stream:
            if stream.read(4) != MAGIC:
                raise ModelError(f"{path} is no GGUF file. Fetch it again, or name another.")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read: {reason}. Check the path.") from error
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is damaged or cut short. Fetch it again.") from error


class _Reader:
    """A place in the bytes, moving forward."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 4

    def header(self) -> dict[str, Any]:
        version, _, count = self.plain("<IQQ")
        if version not in (2, 3):
            raise KeyError(version)
        return {self.text(): self.value(self.plain("<I")[0]) for _ in range(count)}

    def plain(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def text(self) -> str:
        (length,) = self.plain("<Q")
        if length > len(self.data) - self.at:
            raise IndexError(length)
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.plain("<" + FORMS[kind])[0]
        inner, count = self.plain("<IQ")
        # The shortest item is a byte, so an honest count is never above the bytes that are left.
        if inner == ARRAY or count > len(self.data) - self.at:
            raise IndexError(count)
        if inner == STRING:
            return [self.text() for _ in range(count)]
        return list(self.plain(f"<{count}{FORMS[inner]}"))
