"""Rows that are the same, or nearly so, within a file, across files, and in what is held out.

Exact ones by a hash of the text; near ones by MinHash (rensa) over runs of four characters, whose
signatures (384 bytes a row) are all that is kept of a text. Knows nothing of formats.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

SIZE, BANDS = 64, 16  # numbers of a signature; groups of four of them must agree to be compared
ASKS = 32  # numbers of the signature of the questions alone
RUN = 4  # characters of a shingle
ALIKE = 0.8  # estimated Jaccard index from which on two rows are near-duplicates
# ... and that of their questions: one answer to many ways of asking is no duplicate.
ASKED_ALIKE = 0.7
SHORTEST = 12  # characters; shorter texts are compared exactly only
LONGEST = 20_000  # characters of a text that are looked at
COMPARED = 8  # rows of a group that each further one is compared with


class Place(NamedTuple):
    """A row: which file of the run (-1: a held-out one), line, row."""

    file: int
    line: int
    row: int


class Pair(NamedTuple):
    """A row and the earlier one it is like (1.0: it is the same)."""

    later: Place
    earlier: Place
    alike: float


class Twins:
    """All rows so far. Rows that are held out are added first."""

    def __init__(self) -> None:
        self.exact: dict[bytes, Place] = {}
        self.exchanges: dict[bytes, Place] = {}
        self.places: list[Place] = []
        self.signatures = array("I")

    def hold_out(self, exchange: str, place: Place) -> None:
        """Remember a question and its reply of a held-out row."""
        if len(exchange) >= SHORTEST:
            self.exchanges.setdefault(_hash(exchange), place)

    def held_out(self, exchange: str) -> Place | None:
        """The held-out row in which the same question has the same reply."""
        return self.exchanges.get(_hash(exchange)) if self.exchanges else None

    def add(self, text: str, asks: str, place: Place) -> Place | None:
        """Remember a row's text and its questions; the earlier row with the same text, if any."""
        text = text.strip()
        if not text:
            return None
        earlier = self.exact.setdefault(_hash(text), place)
        if earlier is not place:
            return earlier
        if len(text) >= SHORTEST:
            self.places.append(place)
            self.signatures.extend(_signature(text, SIZE))
            self.signatures.extend(_signature(asks, ASKS))
        return None

    def near(self) -> Iterator[Pair]:
        """Every row that is nearly an earlier one, with the most alike of those, once."""
        rows = np.frombuffer(self.signatures, dtype=np.uint32).reshape(-1, SIZE + ASKS)
        found: dict[int, tuple[int, float]] = {}
        for band in range(0, SIZE, SIZE // BANDS):
            for group in _groups(rows[:, band : band + SIZE // BANDS]):
                _compare(rows, group, found)
        for later in sorted(found):
            earlier, alike = found[later]
            yield Pair(self.places[later], self.places[earlier], alike)


def _compare(rows: Any, group: NDArray[Any], found: dict[int, tuple[int, float]]) -> None:
    """Hold each row of a group against the first ones of it; the best match goes into `found`."""
    first = rows[group[:COMPARED]]
    for place, later in enumerate(group[1:], start=1):
        same = first[:place] == rows[later]
        alike = same[:, :SIZE].mean(axis=1)
        alike[same[:, SIZE:].mean(axis=1) < ASKED_ALIKE] = 0
        best = int(alike.argmax())
        if alike[best] >= ALIKE and alike[best] > found.get(int(later), (0, 0.0))[1]:
            found[int(later)] = (int(group[best]), float(alike[best]))


def _signature(text: str, size: int) -> list[int]:
    signature = RMinHash(num_perm=size, seed=1)
    # Half surrogates are no UTF-8, which the library wants.
    text = text[:LONGEST].encode("utf-8", "replace").decode()
    signature.update([text[at : at + RUN] for at in range(max(1, len(text) - RUN + 1))])
    made: list[int] = signature.digest()
    return made


def _groups(band: NDArray[np.uint32]) -> Iterator[NDArray[Any]]:
    """Indices, ascending, of rows whose part of the signature is the same: groups of two or more."""
    mixed = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64)
    order = np.argsort(mixed, kind="stable")
    ranked = mixed[order]
    starts = np.concatenate([[0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1, [len(ranked)]])
    for first in np.flatnonzero(np.diff(starts) > 1):
        yield order[starts[first] : starts[first + 1]]


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
