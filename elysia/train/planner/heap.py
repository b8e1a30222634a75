"""What a process on Linux really takes for tensors that come and go: glibc's heap, replayed.

A CPU's tensors lie in the C library's heap, where a hole that a tensor left is a little too small for
the next of its size: an aligned block is asked for with room to align it in. The heap of a training step so
grows to up to twice what is ever in use. Holes that are there before, a tokenizer's for one, are filled
first. Knows nothing of torch.
"""

from __future__ import annotations

import ctypes
import tempfile
from bisect import bisect_left, insort
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

SLACK = 64 + 32  # asked for beyond a block's size, to align it; what is left over is free again
HEADER = 16
SMALL = 1024  # smaller blocks have places of their own
MAPPED = 32 * 2**20  # blocks from here on always come from the system and go back to it


def grown(
    events: Iterable[tuple[int, int]], times: int = 3, holes: Iterable[int] = (), top: int = 0
) -> int:
    """The most bytes that heap and mapped blocks take while `events` happen `times` times over.

    events: (block, bytes) where a block is taken, (block, 0) where it is given back. holes, top: as
    `free_here` gives them; what they hold is counted.
    """
    heap, sequence = _Heap(holes, top), list(events)
    for number in range(times):
        for block, size in sequence:
            heap.take((number, block), size) if size else heap.give((number, block))
    return heap.most


def free_here() -> tuple[list[int], int]:
    """Bytes of each hole in this process's heap, and those free at its top; nothing where the C
    library is not glibc, which alone tells."""
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
        libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    except (OSError, AttributeError, TypeError):
        return [], 0
    with tempfile.NamedTemporaryFile() as file:
        stream = libc.fopen(file.name.encode(), b"w")
        if not stream:
            return [], 0
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        return _free_of(Path(file.name).read_text())


def _free_of(told: str) -> tuple[list[int], int]:
    """From malloc_info's XML, of the main thread's heap: it names holes by classes of size."""
    heap = ElementTree.fromstring(told).find("heap")
    if heap is None:
        return [], 0
    holes: list[int] = []
    for size in heap.iterfind("sizes/*"):
        count, total = int(size.attrib["count"]), int(size.attrib["total"])
        if count and total // count >= SMALL:
            holes += [total // count] * count
    rest = sum(int(t.attrib["size"]) for t in heap.iterfind("total[@type='rest']"))
    named = sum(int(s.attrib["total"]) for s in heap.iterfind("sizes/*"))
    return holes, max(rest - named, 0)


class _Heap:
    def __init__(self, holes: Iterable[int] = (), top: int = 0) -> None:
        self.holes: list[tuple[int, int]] = []  # (size, start), sorted: the best fit is found first
        self.begins: dict[int, int] = {}  # start of a hole -> its size
        self.ends: dict[int, int] = {}
        self.top = self.mapped = self.most = 0
        self.threshold = 128 * 1024  # from here on blocks are mapped; grows as such are given back
        self.held: dict[tuple[int, int], tuple[int, int]] = {}  # block -> (start or -1, size)
        for size in holes:
            self._open(self.top, size)
            self.top += size + HEADER  # something else lies between them
        if top:
            self._open(self.top, top)
            self.top += top

    def take(self, block: tuple[int, int], size: int) -> None:
        if size < SMALL:
            return
        if size >= self.threshold:
            self.held[block] = (-1, size)
            self.mapped += size
        else:
            self.held[block] = (self._carve(size + SLACK), size + HEADER)
            start = self.held[block][0]
            self._open(start + size + HEADER, SLACK - HEADER)
        self.most = max(self.most, self.top + self.mapped)

    def give(self, block: tuple[int, int]) -> None:
        start, size = self.held.pop(block, (0, 0))
        if start < 0:
            self.mapped -= size
            self.threshold = max(self.threshold, min(size + 4096, MAPPED))
        elif size:
            self._open(start, size)

    def _carve(self, size: int) -> int:
        at = bisect_left(self.holes, (size, 0))
        if at < len(self.holes):
            room, start = self.holes[at]
            self._close(start)
            if room > size:
                self._open(start + size, room - size)
            return start
        start = self.top
        if start in self.ends:  # the hole below the top is part of it
            start = self.ends[start]
            self._close(start)
        self.top = start + size
        return start

    def _open(self, start: int, size: int) -> None:
        if start in self.ends:
            before = self.ends[start]
            size += self._close(before)
            start = before
        if start + size in self.begins:
            size += self._close(start + size)
        insort(self.holes, (size, start))
        self.begins[start], self.ends[start + size] = size, start

    def _close(self, start: int) -> int:
        size = self.begins.pop(start)
        del self.ends[start + size]
        del self.holes[bisect_left(self.holes, (size, start))]
        return size
