"""What is done to a part of a file's rows, in this process or another: rows become samples, samples
become token arrays.

Knows nothing of where rows come from or where tokens go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from elysia.data.convert import Conversion
from elysia.data.encode import Encoder
from elysia.data.read import Row
from elysia.data.tokenize import AT_ONCE, Way, encode_units
from elysia.data.tokens import Tokens

LONG = 1 << 20  # characters of rows after which a part ends, however few rows they are


class Part(NamedTuple):
    """Rows of one file: their numbers, and what each holds."""

    file: str
    numbers: list[int]
    values: list[dict[str, Any]]


class Made(NamedTuple):
    """What a part of `file` became, and how many of its rows the format left out."""

    tokens: Tokens
    file: str
    left_out: int


@dataclass
class Work:
    """Makes tokens of parts; can be pickled where `conversion` and `tokenizer` can.

    tokenizer: transformers' or a `backend.Backend`. names: the files of the source.
    """

    conversion: Conversion
    way: Way
    tokenizer: Any
    names: tuple[str, ...]

    @cached_property
    def encoder(self) -> Encoder:
        """Made on first use, where the work is done."""
        return Encoder(self.tokenizer)

    def __call__(self, part: Part) -> Made:
        """DataError with file and row for the first row that is refused."""
        rows = map(Row, part.values, [part.file] * len(part.values), part.numbers)
        units = [unit for unit in self.conversion.units(rows) if unit is not None]
        tokens = encode_units(units, self.way, self.encoder, self.names)
        return Made(tokens, part.file, len(part.values) - len(units))


def parts_of(rows: Iterable[Row]) -> Iterator[Part]:
    """Rows, as they are read, in parts that memory can hold: of one file, some thousand rows or a
    million characters. Where reading fails, what was read before comes first: it may fail earlier.
    """
    part, size = Part("", [], []), 0
    try:
        for row in rows:
            if part.values and (
                row.file != part.file or len(part.values) == AT_ONCE or size >= LONG
            ):
                yield part
                part, size = Part(row.file, [], []), 0
            if not part.values:
                part = Part(row.file, [], [])
            part.numbers.append(row.number)
            part.values.append(row.value)
            size += row.size
    except Exception:
        if part.values:
            yield part
        raise
    if part.values:
        yield part
