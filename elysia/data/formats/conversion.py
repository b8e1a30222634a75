"""From rows to what is learned of them: one place for every format, of conversations, of preference
pairs, and of rows that no template touches; faults name file and row.

Knows nothing of tokens, or of which files a source means.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError, nearest
from elysia.data.formats.preference_pairs import PREFERENCES, PreferenceFormat, detect_pair_format
from elysia.data.formats.pretokenized import PRETOKENIZED
from elysia.data.formats.registry import FORMATS, Format, detect_format, is_same_shape
from elysia.data.readers.row_reader import DatasetRow, read_rows, rename_columns
from elysia.data.schema import Sample, SampleGroup

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowConverter:
    """How a file's rows become samples, or pairs of them.

    Args:
        format: a name of `formats.FORMATS` or `ready.READY`, with `pairs` of `pairs.PREFERENCES`; or
            a function from a row to messages (to two talks).
        columns: renames keys of every row, old name to new.
        bot_name, min_length: as `ready.READY`'s formats take them.

    DataError for a format that there is not. With a format by name it can be pickled.
    """

    format: str | Format | PreferenceFormat
    pairs: bool = False
    columns: Mapping[str, str] | None = None
    bot_name: str = ""
    min_length: int = 0

    def __post_init__(self) -> None:
        known = PREFERENCES if self.pairs else FORMATS | PRETOKENIZED
        if not callable(self.format) and self.format not in known:
            kind = "preference format" if self.pairs else "dataset format"
            raise DataError(
                f"There is no {kind} '{self.format}'.{nearest(self.format, known)} "
                f"The formats{' of pairs' if self.pairs else ''} are: {', '.join(sorted(known))}."
            )

    def rows(self, path: str | Path, *, again: bool = False) -> Iterator[DatasetRow]:
        """The rows of a file as they are read; a warning when they look like another format, unless
        they are read `again`."""
        if self.format in PRETOKENIZED:
            yield from PRETOKENIZED[self.format][0](path, self.columns)
            return
        for row in rename_columns(read_rows(path), self.columns):
            if row.number == 1 and not (again or self.pairs or callable(self.format)):
                _warn_of_another_format(row, self.format)
            yield row

    def units(self, rows: Iterator[DatasetRow]) -> Iterator[SampleGroup | None]:
        """What each row becomes; None for one that the format itself leaves out. DataError with
        file, row and key for a row that is not of this format."""
        convert = self._function()
        for row in rows:
            try:
                yield convert(row)
            except DataError as error:
                raise DataError(f"{row.file}, row {row.number}: {error}{self._hint(row)}") from None

    def left_none(self, path: str | Path) -> DataError:
        """What to say of a file of which nothing is left."""
        if self.format in PRETOKENIZED:
            return DataError(f"{path}: no row has {self.min_length} tokens or more.")
        if self.pairs:
            return DataError(f"{path}: no row prefers one reply to another.")
        return DataError(f"{path}: no row holds a reply to learn.")

    def note(self, path: str | Path, left_out: int) -> None:
        """Say in the log how many rows of a file were left out."""
        if left_out and self.format not in PRETOKENIZED:  # whoever sets min_length expects it
            why = "have the same reply twice" if self.pairs else "hold no reply to learn"
            log.warning("%s: %d rows %s and were left out.", path, left_out, why)

    def _function(self) -> Callable[[DatasetRow], SampleGroup | None]:
        format: Any = self.format
        if format in PRETOKENIZED:
            read = PRETOKENIZED[format][1]

            def ready(row: DatasetRow) -> SampleGroup | None:
                sample = read(row, self.bot_name)
                enough = sample.encoded is None or len(sample.encoded.ids) >= self.min_length
                return (sample,) if enough else None

            return ready
        if self.pairs:
            prefer: PreferenceFormat = format if callable(format) else PREFERENCES[format]

            def pair(row: DatasetRow) -> SampleGroup | None:
                talks = prefer(row.value)
                return talks and tuple(Sample(talk, row.file, row.number) for talk in talks)

            return pair
        convert: Format = format if callable(format) else FORMATS[format]

        def single(row: DatasetRow) -> SampleGroup | None:
            messages = convert(row.value)
            return (Sample(messages, row.file, row.number),) if messages else None

        return single

    def _hint(self, row: DatasetRow) -> str:
        """What the row looks like, where that is another format."""
        if callable(self.format) or self.format in PRETOKENIZED:
            return ""
        guess = detect_pair_format(row.value)
        if guess and not self.pairs:
            return (
                " These are preference pairs (chosen, rejected): set objective='dpo' (or 'orpo', "
                f"'reward') and dataset_format='{guess}'."
            )
        guess = guess if self.pairs else detect_format(row.value)
        if not guess or is_same_shape(guess, self.format):
            return ""
        return f" This looks like {guess}: set dataset_format='{guess}'."


def iter_sample_groups(path: str | Path, conversion: RowConverter) -> Iterator[SampleGroup]:
    """The samples of a file, or pairs, one by one as it is read. Rows that the format itself leaves
    out are counted in a log note; DataError when none is left.
    """
    kept = left_out = 0
    for unit in conversion.units(conversion.rows(path)):
        if unit is None:
            left_out += 1
        else:
            kept += 1
            yield unit
    conversion.note(path, left_out)
    if not kept:
        raise conversion.left_none(path)


def load_conversations(
    path: str | Path, format: str | Format, columns: Mapping[str, str] | None = None
) -> list[Sample]:
    """All conversations of a file, in memory; arguments and errors as of `RowConverter`."""
    return [sample for (sample,) in iter_sample_groups(path, RowConverter(format, columns=columns))]


def load_chosen_conversations(path: str | Path, format: str) -> list[Sample]:
    """All conversations of a file, of preference pairs the chosen ones."""
    conversion = RowConverter(format, pairs=format in PREFERENCES)
    return [unit[0] for unit in iter_sample_groups(path, conversion)]


def _warn_of_another_format(row: DatasetRow, format: str) -> None:
    guess = detect_format(row.value)
    if guess and not is_same_shape(guess, format):
        log.warning(
            "%s: its rows look like the format '%s' and are read as '%s', as dataset_format says.",
            row.file,
            guess,
            format,
        )
