"""Fingerprints of rows: a mark of the whole text, and a MinHash signature of it and its questions.

The signature (rensa) is over runs of four characters. Of each of its numbers the lowest 8 bits are
kept: two that differ agree in those once in 256 times, which is far below what 64 of them can tell.
Knows nothing of files or rows.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

TEXT_BYTES = 64  # numbers of a signature
ASK_BYTES = 32  # numbers of the signature of the questions alone
SHINGLE = 4  # characters of a shingle
SHORTEST_SIGNED = 12  # characters; shorter texts are compared exactly only
LONGEST_SIGNED = 20_000  # characters of a text that are looked at
_LOWEST = slice(0 if sys.byteorder == "little" else 3, None, 4)  # byte of each number


class Fingerprint(NamedTuple):
    """64 bits that stand for a text, and SIZE + ASKS bytes of signature (none of a short text)."""

    mark: int
    signature: bytes


def build_fingerprint(text: str, asks: str) -> Fingerprint | None:
    """The print of a row's text and its questions; None where there is no text."""
    text = text.strip()
    if not text:
        return None
    signed = len(text) >= SHORTEST_SIGNED
    made = _signature(text, TEXT_BYTES) + _signature(asks, ASK_BYTES) if signed else b""
    return Fingerprint(hash_text(text), made)


def hash_text(text: str) -> int:
    """64 bits that stand for a text."""
    raw = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little")


def _signature(text: str, size: int) -> bytes:
    signature = RMinHash(num_perm=size, seed=1)
    # Half surrogates are no UTF-8, which the library wants.
    text = text[:LONGEST_SIGNED].encode("utf-8", "replace").decode()
    # One text at a time: the library's calls for many start threads, which no fork survives.
    signature.update([text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1))])
    return array("I", signature.digest()).tobytes()[_LOWEST]


BAND_SIZE = 4  # numbers of a signature that must agree for rows to be compared
MIN_SIMILARITY = 0.8  # estimated Jaccard index from which on two rows are near-duplicates
# ... and that of their questions: one answer to many ways of asking is no duplicate.
MIN_ASK_SIMILARITY = 0.7
MAX_COMPARED = 8  # rows of a group that each further one is compared with


class RowLocation(NamedTuple):
    """A row: which file of the run (-1: a held-out one), line, row."""

    file: int
    line: int
    row: int


class DuplicatePair(NamedTuple):
    """A row and the earlier one it is like (1.0: it is the same)."""

    later: RowLocation
    earlier: RowLocation
    alike: float


class FirstSeenTable:
    """The place of each mark that was seen first there: an open table of 24 to 30 bytes a mark."""

    def __init__(self) -> None:
        self.marks = array("Q")
        self.slots = array("I", bytes(4 << 10))  # number of a mark, from 1; 0: free
        self.files, self.lines, self.rows = array("h"), array("I"), array("I")

    def __len__(self) -> int:
        return len(self.marks)

    def place(self, number: int) -> RowLocation:
        """Where mark `number`, from 0, was first seen."""
        return RowLocation(self.files[number], self.lines[number], self.rows[number])

    def find(self, mark: int) -> RowLocation | None:
        """Where a mark was first seen."""
        number = self.slots[self._slot(mark)]
        return self.place(number - 1) if number else None

    def add(self, mark: int, place: RowLocation) -> RowLocation | None:
        """Remember a mark; where it was first seen, if it is not new."""
        slot = self._slot(mark)
        if number := self.slots[slot]:
            return self.place(number - 1)
        self.marks.append(mark)
        self.slots[slot] = len(self.marks)
        self.files.append(place.file)
        self.lines.append(place.line)
        self.rows.append(place.row)
        if 3 * len(self.marks) > 2 * len(self.slots):
            self.slots = array("I", bytes(8 * len(self.slots)))
            for number, old in enumerate(self.marks, start=1):
                self.slots[self._slot(old)] = number
        return None

    def _slot(self, mark: int) -> int:
        """The slot that holds a mark, or the free one where it belongs."""
        slots, marks, last = self.slots, self.marks, len(self.slots) - 1
        slot = mark & last
        while (number := slots[slot]) and marks[number - 1] != mark:
            slot = (slot + 1) & last
        return slot


class NearDuplicateIndex:
    """All rows so far. Rows that are held out are added first."""

    def __init__(self) -> None:
        self.exact, self.exchanges = FirstSeenTable(), FirstSeenTable()
        self.signed = array("I")  # numbers of the marks that have a signature
        self.signatures = bytearray()

    def hold_out(self, exchange: str, place: RowLocation) -> None:
        """Remember a question and its reply of a held-out row."""
        if len(exchange) >= SHORTEST_SIGNED:
            self.exchanges.add(hash_text(exchange), place)

    def held_out(self, exchange: str) -> RowLocation | None:
        """The held-out row in which the same question has the same reply."""
        return self.exchanges.find(hash_text(exchange)) if self.exchanges else None

    def add(self, made: Fingerprint | None, place: RowLocation) -> RowLocation | None:
        """Remember a row by its print; the earlier row with the same text, if any."""
        if made is None:
            return None
        earlier = self.exact.add(made.mark, place)
        if earlier is None and made.signature:
            self.signed.append(len(self.exact) - 1)
            self.signatures += made.signature
        return earlier

    def near(self) -> Iterator[DuplicatePair]:
        """Every row that is nearly an earlier one, with the most alike of those, once."""
        rows = np.frombuffer(self.signatures, np.uint8).reshape(-1, TEXT_BYTES + ASK_BYTES)
        agreeing, best = np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.uint32)
        for band in range(0, TEXT_BYTES, BAND_SIZE):
            for group in _iter_groups(rows[:, band : band + BAND_SIZE]):
                _compare_group(rows, group, agreeing, best)
        for later in np.flatnonzero(agreeing):
            this, that = (self.exact.place(self.signed[at]) for at in (later, best[later]))
            yield DuplicatePair(this, that, int(agreeing[later]) / TEXT_BYTES)


def _compare_group(rows: Any, group: Any, agreeing: Any, best: Any) -> None:
    """Hold each row of a group against the first ones of it.

    The most alike goes into `best`, and how many numbers agree into `agreeing`, where it is more
    than was there.
    """
    first = rows[group[:MAX_COMPARED]]
    for place, later in enumerate(group[1:], start=1):
        same = first[:place] == rows[later]
        alike = np.count_nonzero(same[:, :TEXT_BYTES], axis=1)
        alike[np.count_nonzero(same[:, TEXT_BYTES:], axis=1) < MIN_ASK_SIMILARITY * ASK_BYTES] = 0
        most = int(alike.argmax())
        if alike[most] >= MIN_SIMILARITY * TEXT_BYTES and alike[most] > agreeing[later]:
            agreeing[later], best[later] = alike[most], group[most]


def _iter_groups(band: NDArray[np.uint8]) -> Iterator[NDArray[Any]]:
    """Indices, ascending, of rows whose part of the signature is the same: groups of two or more."""
    keys = np.ascontiguousarray(band).view(np.uint32).ravel()
    order = np.argsort(keys, kind="stable").astype(np.uint32)
    ranked = keys[order]
    starts = np.concatenate([[0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1, [len(ranked)]])
    for first in np.flatnonzero(np.diff(starts) > 1):
        yield order[starts[first] : starts[first + 1]]
