"""Reading a GGUF's weights with transformers, without the minutes that a large vocabulary takes it.

The `gguf` package reads an array one numpy view at a time, and transformers reads each file thrice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType
from transformers import modeling_gguf_pytorch_utils

# Any, since their types forbid to set what `skip_long_arrays` sets.
package: Any = gguf
loader: Any = modeling_gguf_pytorch_utils

LONG = 4096  # entries from which an array is part of a vocabulary


class ArraySkippingReader(gguf.GGUFReader):
    """A reader that goes past long arrays: their number of entries is right, and all are empty.

    262,144 tokens with scores and types take the package 38 s, and this class half a second.
    """

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if GGUFValueType(raw_type) != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        size = int(count[0])
        if size < LONG:
            return super()._get_field_parts(orig_offs, raw_type)
        start = orig_offs + 12
        if GGUFValueType(kind[0]) == GGUFValueType.STRING:
            end = self._find_end_of_strings(start, size)
            empty, entries = np.empty(0, np.uint8), [2] * size
        else:
            dtype = self.gguf_scalar_to_np[GGUFValueType(kind[0])]
            end = start + size * np.dtype(dtype).itemsize
            empty, entries = np.empty(0, dtype), []
        types = [GGUFValueType.ARRAY, GGUFValueType(kind[0])]
        return end - orig_offs, [kind, count, empty], entries, types

    def _find_end_of_strings(self, start: int, count: int) -> int:
        data, offset = memoryview(self.data), start  # type: ignore[arg-type]  # a memmap is a buffer
        for _ in range(count):
            offset += 8 + int.from_bytes(data[offset : offset + 8], "little")
        return offset


@contextmanager
def skip_long_arrays() -> Iterator[None]:
    """Let transformers read GGUFs with `ArraySkippingReader`, and without a progress bar, inside."""
    reader, bar = package.GGUFReader, loader.tqdm
    package.GGUFReader, loader.tqdm = ArraySkippingReader, _skip_bar
    try:
        yield
    finally:
        package.GGUFReader, loader.tqdm = reader, bar


def _skip_bar(items: Any, **_: Any) -> Any:
    return items
