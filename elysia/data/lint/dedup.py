"""Find rows that are the same or nearly the same, within a file, across files and in held-out files.

Exact duplicates are found by a hash of the text, near ones by MinHash signatures (rensa), which are
compared only where some of their numbers agree (locality-sensitive hashing). Fingerprints are all
that is kept of a text, packed: about 130 bytes per row. rensa's own index needs ten times as much
and does not weigh the questions of a row apart.
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

TEXT_BYTES = 64  # numbers of the signature of a row
ASK_BYTES = 32  # numbers of the signature of its questions alone
SHINGLE = 4  # characters of a shingle
SHORTEST_SIGNED = 12  # characters; shorter texts are compared exactly only
LONGEST_SIGNED = 20_000  # characters of a text that are looked at
# Of each number the lowest 8 bits are kept: two that differ agree in those once in 256 times, far
# below what 64 of them can resolve.
_LOWEST = slice(0 if sys.byteorder == "little" else 3, None, 4)  # this byte of each number

BAND_SIZE = 4  # numbers of a signature that must agree for rows to be compared
MIN_SIMILARITY = 0.8  # estimated Jaccard index from which on two rows are near-duplicates
# ... and that of their questions: the same answer to many phrasings of a question is no duplicate.
MIN_ASK_SIMILARITY = 0.7
MAX_COMPARED = 8  # rows of a group that each further row is compared with


class RowFingerprint(NamedTuple):
    """A 64-bit hash of a text, and TEXT_BYTES + ASK_BYTES of signature (b"" for a short text)."""

    hash: int
    signature: bytes


class RowLocation(NamedTuple):
    """A row: which file of the run (-1: a held-out one), line, row."""

    file: int
    line: int
    row: int


class DuplicatePair(NamedTuple):
    """A row, the earlier row that it resembles, and how much (0 to 1)."""

    later: RowLocation
    earlier: RowLocation
    similarity: float


def build_fingerprint(text: str, asks: str) -> RowFingerprint | None:
    """The fingerprint of a row's text and its questions; None where there is no text."""
    text = text.strip()
    if not text:
        return None
    if len(text) < SHORTEST_SIGNED:
        return RowFingerprint(hash_text(text), b"")
    return RowFingerprint(hash_text(text), _sign(text, TEXT_BYTES) + _sign(asks, ASK_BYTES))


def hash_text(text: str) -> int:
    """A 64-bit hash of a text."""
    raw = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little")


def _sign(text: str, size: int) -> bytes:
    signature = RMinHash(num_perm=size, seed=1)
    # The library needs valid UTF-8, which half surrogates are not.
    text = text[:LONGEST_SIGNED].encode("utf-8", "replace").decode()
    signature.update([text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1))])
    return array("I", signature.digest()).tobytes()[_LOWEST]


class FirstSeenTable:
    """Where each hash was seen first: an open hash table over arrays, of 24 to 30 bytes per hash. A
    dict takes twice the memory of the process."""

    def __init__(self) -> None:
        self.hashes = array("Q")
        self.slots = array("I", bytes(4 << 10))  # number of a hash, from 1; 0: free
        self.files, self.lines, self.rows = array("h"), array("I"), array("I")

    def __len__(self) -> int:
        return len(self.hashes)

    def get_location(self, number: int) -> RowLocation:
        """Where hash `number`, from 0, was first seen."""
        return RowLocation(self.files[number], self.lines[number], self.rows[number])

    def find(self, hash: int) -> RowLocation | None:
        """Where a hash was first seen, if it was."""
        number = self.slots[self._find_slot(hash)]
        return self.get_location(number - 1) if number else None

    def add(self, hash: int, location: RowLocation) -> RowLocation | None:
        """Remember a hash; where it was first seen, if it is not new."""
        slot = self._find_slot(hash)
        if number := self.slots[slot]:
            return self.get_location(number - 1)
        self.hashes.append(hash)
        self.slots[slot] = len(self.hashes)
        self.files.append(location.file)
        self.lines.append(location.line)
        self.rows.append(location.row)
        if 3 * len(self.hashes) > 2 * len(self.slots):
            self.slots = array("I", bytes(8 * len(self.slots)))
            for number, old in enumerate(self.hashes, start=1):
                self.slots[self._find_slot(old)] = number
        return None

    def _find_slot(self, hash: int) -> int:
        """The slot that holds a hash, or the free one where it belongs."""
        slots, hashes, mask = self.slots, self.hashes, len(self.slots) - 1
        slot = hash & mask
        while (number := slots[slot]) and hashes[number - 1] != hash:
            slot = (slot + 1) & mask
        return slot


class NearDuplicateIndex:
    """The fingerprints of all rows so far. Held-out rows are added first."""

    def __init__(self) -> None:
        self.exact = FirstSeenTable()
        self.signed = array("I")  # numbers of the hashes that have a signature
        self.signatures = bytearray()

    def add(self, fingerprint: RowFingerprint | None, location: RowLocation) -> RowLocation | None:
        """Remember a row; the earlier row with the same text, if any."""
        if fingerprint is None:
            return None
        earlier = self.exact.add(fingerprint.hash, location)
        if earlier is None and fingerprint.signature:
            self.signed.append(len(self.exact) - 1)
            self.signatures += fingerprint.signature
        return earlier

    def find_near(self) -> Iterator[DuplicatePair]:
        """Every row that is nearly an earlier one, once, with the most similar of those."""
        rows = np.frombuffer(self.signatures, np.uint8).reshape(-1, TEXT_BYTES + ASK_BYTES)
        agreeing, best = np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.uint32)
        for band in range(0, TEXT_BYTES, BAND_SIZE):
            for group in _iter_groups(rows[:, band : band + BAND_SIZE]):
                _compare_group(rows, group, agreeing, best)
        for later in np.flatnonzero(agreeing):
            row, earlier = (self.exact.get_location(self.signed[at]) for at in (later, best[later]))
            yield DuplicatePair(row, earlier, int(agreeing[later]) / TEXT_BYTES)


def _compare_group(rows: Any, group: Any, agreeing: Any, best: Any) -> None:
    """Compare each row of a group with the first ones of it.

    The most similar earlier row is written to `best`, and how many numbers agree to `agreeing`, where
    that is more than is there already.
    """
    first = rows[group[:MAX_COMPARED]]
    for place, later in enumerate(group[1:], start=1):
        same = first[:place] == rows[later]
        alike = np.count_nonzero(same[:, :TEXT_BYTES], axis=1)
        asks_alike = np.count_nonzero(same[:, TEXT_BYTES:], axis=1)
        alike[asks_alike < MIN_ASK_SIMILARITY * ASK_BYTES] = 0
        most = int(alike.argmax())
        if alike[most] >= MIN_SIMILARITY * TEXT_BYTES and alike[most] > agreeing[later]:
            agreeing[later], best[later] = alike[most], group[most]


def _iter_groups(band: NDArray[np.uint8]) -> Iterator[NDArray[Any]]:
    """Groups of two or more rows (indices, ascending) whose part of the signature is the same."""
    keys = np.ascontiguousarray(band).view(np.uint32).ravel()
    order = np.argsort(keys, kind="stable").astype(np.uint32)
    ranked = keys[order]
    starts = np.concatenate([[0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1, [len(ranked)]])
    for first in np.flatnonzero(np.diff(starts) > 1):
        yield order[starts[first] : starts[first + 1]]
