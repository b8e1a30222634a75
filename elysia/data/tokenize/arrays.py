"""Token arrays: those of one source (in memory, or mapped from a file), and the samples selected from several
sources to train on.
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
from elysia.data.schema import IGNORE as IGNORE

IdArray = npt.NDArray[np.int32]
IndexArray = npt.NDArray[np.int64]

log = logging.getLogger(__name__)


WHOLE, DROPPED, SHORTENED = 0, 1, 2  # states of a unit


@dataclass(frozen=True)
class TokenizedSource:
    """Units (rows, or pairs of samples) of one source, in the order of the files.

    ids, labels: int32 of shape (tokens,), samples end to end. lengths, labelled: int32 of (samples,),
    the tokens of each sample, and how many of them are learned. samples, files, rows, states: int32 of
    (units,): how many samples a unit became, its file (index into `names`) and row, and whether it is
    WHOLE, DROPPED or SHORTENED.
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
    """Join the parts of a source, which share `names`."""
    arrays: dict[str, Any] = {
        name: np.concatenate([np.zeros(0, np.int32), *(getattr(part, name) for part in parts)])
        for name in ARRAYS
    }
    return TokenizedSource(**arrays, names=parts[0].names if parts else ())


@dataclass(frozen=True)
class TokenizedSet:
    """Samples of one or several sources. `dropped` and `cut` count overlong units.

    parts: the sources. part, starts, lengths, learned, unit: int64 of (samples,): a sample's source,
    where it starts there, how many tokens it has, how many are learned, and the unit it came from.
    With `whole`, every token counts as learned.
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
        """The samples at `indices`, in that order; an index may occur twice."""
        places = np.array(list(indices), dtype=np.int64)
        names = ("part", "starts", "lengths", "learned", "unit")
        arrays = {name: getattr(self, name)[places] for name in names}
        return dataclasses.replace(self, **arrays, dropped=0, cut=0)

    def with_all_labels(self) -> TokenizedSet:
        """The same samples with every token learned."""
        return dataclasses.replace(self, whole=True)

    def sha256(self) -> str:
        """Hex digest of what is trained on: ids, labels and where samples begin (file names do not
        matter)."""
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
    """The samples of `units` of each part, in that order; a unit may occur several times.

    A warning counts how many of them are dropped or shortened. DataError when there is no unit, or
    none is left.
    """
    columns: list[list[IndexArray]] = [[], [], [], [], []]
    total = dropped = cut = 0
    for number, (source, indices) in enumerate(zip(parts, units, strict=True)):
        indices = np.asarray(indices, dtype=np.int64)
        counts = source.samples[indices].astype(np.int64)
        first = np.cumsum(source.samples, dtype=np.int64) - source.samples
        # Samples of unit u are first[u] and the next ones.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        samples = np.repeat(first[indices], counts) + within
        begins = np.cumsum(source.lengths, dtype=np.int64) - source.lengths
        selected = (
            np.full(len(samples), number), begins[samples], source.lengths[samples],
            source.labelled[samples], np.repeat(indices, counts),
        )  # fmt: skip
        for column, values in zip(columns, selected, strict=True):
            column.append(values.astype(np.int64))
        total += len(indices)
        dropped += int((source.states[indices] == DROPPED).sum())
        cut += int((source.states[indices] == SHORTENED).sum())
    if not total:
        raise DataError("data.no_row_to_train_on")
    _log_overlong(total, dropped, cut, max_length, overlong)
    part, starts, lengths, learned, unit = (np.concatenate(column) for column in columns)
    return TokenizedSet(tuple(parts), part, starts, lengths, learned, unit, dropped, cut)


def _log_overlong(total: int, dropped: int, cut: int, max_length: int, overlong: str) -> None:
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
        raise DataError("data.all_rows_too_long", rows=total, max_length=max_length)
