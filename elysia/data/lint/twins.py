"""Rows that are the same, or nearly so, within a file, across files, and in what is held out.

Exact ones by their mark; near ones by their MinHash signatures, compared where a group of numbers
agrees. Prints are all that is kept of a text, packed: about 130 bytes a row. Knows nothing of
formats, nor how a print is made.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elysia.data.lint.prints import ASKS, SHORTEST, SIZE, Print, mark_of

GROUPED = 4  # numbers of a signature that must agree for rows to be compared
ALIKE = 0.8  # estimated Jaccard index from which on two rows are near-duplicates
# ... and that of their questions: one answer to many ways of asking is no duplicate.
ASKED_ALIKE = 0.7
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


class Marks:
    """The place of each mark that was seen first there: an open table of 24 to 30 bytes a mark."""

    def __init__(self) -> None:
        self.marks = array("Q")
        self.slots = array("I", bytes(4 << 10))  # number of a mark, from 1; 0: free
        self.files, self.lines, self.rows = array("h"), array("I"), array("I")

    def __len__(self) -> int:
        return len(self.marks)

    def place(self, number: int) -> Place:
        """Where mark `number`, from 0, was first seen."""
        return Place(self.files[number], self.lines[number], self.rows[number])

    def find(self, mark: int) -> Place | None:
        """Where a mark was first seen."""
        number = self.slots[self._slot(mark)]
        return self.place(number - 1) if number else None

    def add(self, mark: int, place: Place) -> Place | None:
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


class Twins:
    """All rows so far. Rows that are held out are added first."""

    def __init__(self) -> None:
        self.exact, self.exchanges = Marks(), Marks()
        self.signed = array("I")  # numbers of the marks that have a signature
        self.signatures = bytearray()

    def hold_out(self, exchange: str, place: Place) -> None:
        """Remember a question and its reply of a held-out row."""
        if len(exchange) >= SHORTEST:
            self.exchanges.add(mark_of(exchange), place)

    def held_out(self, exchange: str) -> Place | None:
        """The held-out row in which the same question has the same reply."""
        return self.exchanges.find(mark_of(exchange)) if self.exchanges else None

    def add(self, made: Print | None, place: Place) -> Place | None:
        """Remember a row by its print; the earlier row with the same text, if any."""
        if made is None:
            return None
        earlier = self.exact.add(made.mark, place)
        if earlier is None and made.signature:
            self.signed.append(len(self.exact) - 1)
            self.signatures += made.signature
        return earlier

    def near(self) -> Iterator[Pair]:
        """Every row that is nearly an earlier one, with the most alike of those, once."""
        rows = np.frombuffer(self.signatures, np.uint8).reshape(-1, SIZE + ASKS)
        agreeing, best = np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.uint32)
        for band in range(0, SIZE, GROUPED):
            for group in _groups(rows[:, band : band + GROUPED]):
                _compare(rows, group, agreeing, best)
        for later in np.flatnonzero(agreeing):
            this, that = (self.exact.place(self.signed[at]) for at in (later, best[later]))
            yield Pair(this, that, int(agreeing[later]) / SIZE)


def _compare(rows: Any, group: Any, agreeing: Any, best: Any) -> None:
    """Hold each row of a group against the first ones of it.

    The most alike goes into `best`, and how many numbers agree into `agreeing`, where it is more
    than was there.
    """
    first = rows[group[:COMPARED]]
    for place, later in enumerate(group[1:], start=1):
        same = first[:place] == rows[later]
        alike = np.count_nonzero(same[:, :SIZE], axis=1)
        alike[np.count_nonzero(same[:, SIZE:], axis=1) < ASKED_ALIKE * ASKS] = 0
        most = int(alike.argmax())
        if alike[most] >= ALIKE * SIZE and alike[most] > agreeing[later]:
            agreeing[later], best[later] = alike[most], group[most]


def _groups(band: NDArray[np.uint8]) -> Iterator[NDArray[Any]]:
    """Indices, ascending, of rows whose part of the signature is the same: groups of two or more."""
    keys = np.ascontiguousarray(band).view(np.uint32).ravel()
    order = np.argsort(keys, kind="stable").astype(np.uint32)
    ranked = keys[order]
    starts = np.concatenate([[0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1, [len(ranked)]])
    for first in np.flatnonzero(np.diff(starts) > 1):
        yield order[starts[first] : starts[first + 1]]
