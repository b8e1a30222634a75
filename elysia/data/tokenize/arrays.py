"""Token arrays: those of one source (in memory, or mapped from a file), and a choice of samples from
several of them.

Knows nothing of tokenizers, or of how the arrays came to be.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elysia.core.errors import DataError

IdArray = npt.NDArray[np.int32]
IndexArray = npt.NDArray[np.int64]
IGNORE = -100  # the label that a loss leaves out (torch's own default)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenizedSource:
    """Units (rows, or pairs of them) of one source, in the order of the files.

    ids, labels: int32 of shape (tokens,), samples end to end. lengths, labelled: int32 of (samples,),
    tokens of each sample and learned ones. samples, files, rows, states: int32 of (units,): how many
    samples a unit became, its file (index into `names`) and row, and whether it is whole (0), was
    left out (1) or shortened (2).
    """

    ids: IdArray
    labels: IdArray
    lengths: IdArray
    labelled: IdArray
    samples: IdArray
    files: IdArray
    rows: IdArray
    states: IdArray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.labels) == self.lengths.sum(), "arrays of one length"
        assert len(self.lengths) == len(self.labelled) == self.samples.sum(), "samples of units"

    def __len__(self) -> int:
        """Units."""
        return len(self.samples)


PER_TOKEN, PER_SAMPLE = ("ids", "labels"), ("lengths", "labelled")
PER_UNIT = ("samples", "files", "rows", "states")
ARRAYS = (*PER_TOKEN, *PER_SAMPLE, *PER_UNIT)


def concatenate(parts: Sequence[TokenizedSource]) -> TokenizedSource:
    """Parts of one source as one; they share `names`."""
    arrays: dict[str, Any] = {
        name: np.concatenate([np.zeros(0, np.int32), *(getattr(part, name) for part in parts)])
        for name in ARRAYS
    }
    return TokenizedSource(**arrays, names=parts[0].names if parts else ())


@dataclass(frozen=True)
class TokenizedSet:
    """Samples of one or several sources. `dropped` and `cut` count overlong units.

    parts: the sources. part, starts, lengths, learned, unit: int64 of (samples,): a sample's source,
    its place there, its tokens, those learned, and the unit it came from. With `whole`, every token
    counts as learned.
    """

    parts: tuple[TokenizedSource, ...]
    part: IndexArray
    starts: IndexArray
    lengths: IndexArray
    learned: IndexArray
    unit: IndexArray
    dropped: int = 0
    cut: int = 0
    whole: bool = False

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[IdArray, IdArray]:
        """(ids, labels) of one sample, views of the source's arrays."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        source = self.parts[self.part[index]]
        start = self.starts[index]
        end = start + self.lengths[index]
        ids = source.ids[start:end]
        return ids, ids if self.whole else source.labels[start:end]

    def __iter__(self) -> Iterator[tuple[IdArray, IdArray]]:
        return (self[index] for index in range(len(self)))

    @property
    def labelled(self) -> IndexArray:
        """Learned tokens of each sample."""
        return self.lengths if self.whole else self.learned

    @property
    def ids(self) -> IdArray:
        """All ids, copied end to end."""
        return np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in self)])

    @property
    def labels(self) -> IdArray:
        """All labels, copied end to end."""
        return np.concatenate([np.zeros(0, np.int32), *(labels for _, labels in self)])

    @property
    def origin(self) -> tuple[tuple[str, int], ...]:
        """The (file, row) of each sample."""
        return tuple(self.get_origin(index) for index in range(len(self)))

    def get_origin(self, index: int) -> tuple[str, int]:
        """The (file, row) that a sample came from."""
        source, unit = self.parts[self.part[index]], self.unit[index]
        return source.names[source.files[unit]], int(source.rows[unit])

    def subset(self, indices: Iterable[int]) -> TokenizedSet:
        """The samples at `indices`, in that order; an index may come twice."""
        chosen = np.array(list(indices), dtype=np.int64)
        names = ("part", "starts", "lengths", "learned", "unit")
        arrays = {name: getattr(self, name)[chosen] for name in names}
        return dataclasses.replace(self, **arrays, dropped=0, cut=0)

    def with_all_labels(self) -> TokenizedSet:
        """The same samples with every token learned."""
        return dataclasses.replace(self, whole=True)

    def sha256(self) -> str:
        """Hex digest of what is trained on: ids, labels and where samples begin (not of file
        names).
        """
        digest = hashlib.sha256()
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        digest.update(np.ascontiguousarray(offsets, dtype="<i8").tobytes())
        for which in (0, 1):
            for sample in self:
                digest.update(np.ascontiguousarray(sample[which], dtype="<i4").tobytes())
        return digest.hexdigest()


def select_samples(
    parts: Sequence[TokenizedSource], units: Sequence[IndexArray], max_length: int, overlong: str
) -> TokenizedSet:
    """The samples of `units` of each part, in that order; a unit may come several times.

    What was left out or shortened among them is counted in a log note. DataError when there is no
    unit, or none is left.
    """
    columns: list[list[IndexArray]] = [[], [], [], [], []]
    total = dropped = cut = 0
    for number, (source, some) in enumerate(zip(parts, units, strict=True)):
        some = np.asarray(some, dtype=np.int64)
        counts = source.samples[some].astype(np.int64)
        first = np.cumsum(source.samples, dtype=np.int64) - source.samples
        # Samples of unit u are first[u] and the next ones.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        samples = np.repeat(first[some], counts) + within
        begins = np.cumsum(source.lengths, dtype=np.int64) - source.lengths
        found = (
            np.full(len(samples), number), begins[samples], source.lengths[samples],
            source.labelled[samples], np.repeat(some, counts),
        )  # fmt: skip
        for column, values in zip(columns, found, strict=True):
            column.append(values.astype(np.int64))
        total += len(some)
        dropped += int((source.states[some] == 1).sum())
        cut += int((source.states[some] == 2).sum())
    if not total:
        raise DataError("There is no row to train on.")
    _note_overlong(total, dropped, cut, max_length, overlong)
    part, starts, lengths, learned, unit = (np.concatenate(column) for column in columns)
    return TokenizedSet(tuple(parts), part, starts, lengths, learned, unit, dropped, cut)


def _note_overlong(total: int, dropped: int, cut: int, max_length: int, overlong: str) -> None:
    if dropped or cut:
        log.warning(
            "Of %d rows, %d were left out and %d lost their last %s: longer than "
            "max_length=%d tokens.",
            total,
            dropped,
            cut,
            "turns" if overlong == "cut" else "tokens",
            max_length,
        )
    if dropped == total:
        raise DataError(
            f"No row is left: all {total} are longer than max_length={max_length} tokens. "
            "Raise max_length."
        )
