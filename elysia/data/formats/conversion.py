"""Convert the rows of a file into samples, by any format: of conversations, of preference pairs, or of rows
that need no template. Errors name file and row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError, nearest
from elysia.core.i18n import Text
from elysia.data.formats.preference_pairs import (
    PREFERENCES,
    PreferenceFormat,
    detect_pair_format,
)
from elysia.data.formats.pretokenized import PRETOKENIZED
from elysia.data.formats.registry import FORMATS, Format, detect_format, is_same_shape
from elysia.data.readers.row_reader import DatasetRow, read_rows, rename_columns
from elysia.data.schema import Sample, SampleGroup

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowConverter:
    """How a file's rows become samples, or pairs of samples.

    Args:
        format: a name of `registry.FORMATS` or `pretokenized.PRETOKENIZED` (with `pairs`, of
            `preference_pairs.PREFERENCES`), or a function from a row to messages (to two
            conversations).
        columns: renames the keys of every row, old name to new.
        bot_name, min_length: as the formats of `PRETOKENIZED` take them.

    DataError for an unknown format. With a format by name it can be pickled.
    """

    format: str | Format | PreferenceFormat
    pairs: bool = False
    columns: Mapping[str, str] | None = None
    bot_name: str = ""
    min_length: int = 0

    def __post_init__(self) -> None:
        known = PREFERENCES if self.pairs else FORMATS | PRETOKENIZED
        if not callable(self.format) and self.format not in known:
            raise DataError(
                "data.unknown_pair_format" if self.pairs else "data.unknown_format",
                format=self.format,
                hint=nearest(self.format, known),
                formats=sorted(known),
            )

    def rows(self, path: str | Path, *, again: bool = False) -> Iterator[DatasetRow]:
        """The rows of a file as they are read. Warns when they look like another format, unless
        they are read `again`."""
        if self.format in PRETOKENIZED:
            yield from PRETOKENIZED[self.format][0](path, self.columns)
            return
        for row in rename_columns(read_rows(path), self.columns):
            if row.number == 1 and not (again or self.pairs or callable(self.format)):
                _warn_of_another_format(row, self.format)
            yield row

    def convert(self, rows: Iterator[DatasetRow]) -> Iterator[SampleGroup | None]:
        """What each row becomes; None for a row that the format leaves out. DataError with file, row
        and key for a row that is not of this format."""
        convert = self._build_function()
        for row in rows:
            try:
                yield convert(row)
            except DataError as error:
                raise DataError(
                    "data.row_refused",
                    path=row.file,
                    row=row.number,
                    reason=error,
                    hint=self._hint(row),
                ) from None

    def nothing_left(self, path: str | Path) -> DataError:
        """The error for a file of which no row is left."""
        if self.format in PRETOKENIZED:
            return DataError("data.rows_too_short", path=path, tokens=self.min_length)
        if self.pairs:
            return DataError("data.no_preference", path=path)
        return DataError("data.no_reply_to_learn", path=path)

    def log_left_out(self, path: str | Path, count: int) -> None:
        """Warn when rows of a file were left out."""
        if count and self.format not in PRETOKENIZED:  # whoever sets min_length expects it
            why = "have the same reply twice" if self.pairs else "hold no reply to learn"
            log.warning("%s: %d rows %s and were left out.", path, count, why)

    def _build_function(self) -> Callable[[DatasetRow], SampleGroup | None]:
        format: Any = self.format
        if format in PRETOKENIZED:
            read = PRETOKENIZED[format][1]

            def pretokenized(row: DatasetRow) -> SampleGroup | None:
                sample = read(row, self.bot_name)
                enough = sample.encoded is None or len(sample.encoded.ids) >= self.min_length
                return (sample,) if enough else None

            return pretokenized
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

    def _hint(self, row: DatasetRow) -> Text | str:
        """Which other format the row looks like, if any."""
        if callable(self.format) or self.format in PRETOKENIZED:
            return ""
        guess = detect_pair_format(row.value)
        if guess and not self.pairs:
            return Text("data.hint_pairs", {"format": guess})
        guess = guess if self.pairs else detect_format(row.value)
        if not guess or is_same_shape(guess, self.format):
            return ""
        return Text("data.hint_format", {"format": guess})


def iter_sample_groups(path: str | Path, converter: RowConverter) -> Iterator[SampleGroup]:
    """The samples of a file, or pairs, one by one as it is read. A warning counts the rows that the
    format leaves out; DataError when none is left.
    """
    count = left_out = 0
    for group in converter.convert(converter.rows(path)):
        if group is None:
            left_out += 1
        else:
            count += 1
            yield group
    converter.log_left_out(path, left_out)
    if not count:
        raise converter.nothing_left(path)


def load_conversations(
    path: str | Path, format: str | Format, columns: Mapping[str, str] | None = None
) -> list[Sample]:
    """All conversations of a file, in memory; arguments and errors as of `RowConverter`."""
    return [sample for (sample,) in iter_sample_groups(path, RowConverter(format, columns=columns))]


def load_chosen_conversations(path: str | Path, format: str) -> list[Sample]:
    """All conversations of a file; of preference pairs, the chosen ones."""
    converter = RowConverter(format, pairs=format in PREFERENCES)
    return [group[0] for group in iter_sample_groups(path, converter)]


def _warn_of_another_format(row: DatasetRow, format: str) -> None:
    guess = detect_format(row.value)
    if guess and not is_same_shape(guess, format):
        log.warning(
            "%s: its rows look like the format '%s' but are read as '%s', as dataset_format says.",
            row.file,
            guess,
            format,
        )
