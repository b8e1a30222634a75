"""From a source of rows to its tokens: read, encoded and laid down part by part, in this process or
in several, so that memory does not grow with the file; taken from the cache where they are there
already.

Knows nothing of which rows are trained on, or of torch.
"""

from __future__ import annotations

import gc
import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elysia.core.files import compute_sha256
from elysia.data.formats.conversion import RowConverter
from elysia.data.formats.preference_pairs import PreferenceFormat
from elysia.data.formats.registry import Format
from elysia.data.process_pool import ProcessPool, count_useful_processes
from elysia.data.readers.row_reader import DatasetRow
from elysia.data.sources import build_converter, find_files
from elysia.data.tokenize.arrays import IndexArray, TokenizedSource, concatenate
from elysia.data.tokenize.encoder import ConversationEncoder, get_picklable_tokenizer
from elysia.data.tokenize.token_cache import load_or_build
from elysia.data.tokenize.tokenize_samples import SAMPLES_PER_BATCH, TokenizeOptions, encode_groups

# What of a source says which rows it has and how they are read.
READ_BY = ("path", "format", "columns", "bot_name", "min_length", "split", "subset", "files", "hub")


def tokenize_source(
    source: Mapping[str, Any],
    way: TokenizeOptions,
    tokenizer: Any,
    function: Format | PreferenceFormat | None = None,
    *,
    seed: int = 0,
    cache: float = 0,
    processes: int = 0,
) -> TokenizedSource:
    """The tokens of a source's rows (its `limit` of them, drawn by `seed`), in the files' order.

    function: stands for the source's format. What it does depends on more than its text, so its
    tokens are not kept, nor are those of a tokenizer written in Python; both are made in this
    process alone. cache: GB of tokens to keep on disk (0: none). processes: how many make tokens
    (0: as many as pay for files of this size; 1: this one alone); the tokens are the same whatever
    it is. DataError names file, row and key.
    """
    conversion = build_converter(source, way.pairs, function)
    files = find_files(source)
    limit = source.get("limit")
    backend = get_picklable_tokenizer(tokenizer)
    words = fingerprint_tokenizer(tokenizer)
    # Where nothing is kept, every process of a training makes its own.
    sharing = 1 if cache else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def parts() -> Iterator[TokenizedSource]:
        work = TokenizeJob(conversion, way, backend or tokenizer, tuple(map(str, files)))
        size = sum(file.stat().st_size for file in files if file.is_file())
        count = 1 if function or not backend else processes or count_useful_processes(size, sharing)
        workers: ProcessPool[RowBatch, TokenizedBatch] = ProcessPool(work, count)
        with _frozen_gc(), workers:
            if limit:
                drawn = _read_places(
                    files, conversion, _draw_places(files, conversion, limit, seed)
                )
                yield from (made.tokens for made in workers.map(split_rows(drawn)))
            else:
                rows = (row for file in files for row in conversion.rows(file))
                yield from _log_left_out(workers.map(split_rows(rows)), conversion)

    if not cache or function or not words:
        return concatenate(list(parts()))
    made_of = {
        "source": {key: source.get(key) for key in READ_BY},
        "files": [[str(file), compute_sha256(file)] for file in files if file.is_file()],
        "limit": [limit, seed] if limit else None,
        "way": asdict(way),
        "tokenizer": words,
    }
    return load_or_build(made_of, parts, cache)


def _log_left_out(
    made: Iterable[TokenizedBatch], conversion: RowConverter
) -> Iterator[TokenizedSource]:
    """The tokens of parts; of each file it is said how many rows were left out. DataError where that
    is all."""
    for file, parts in groupby(made, key=lambda part: part.file):
        kept = left_out = 0
        for part in parts:
            kept += len(part.tokens)
            left_out += part.left_out
            yield part.tokens
        conversion.note(file, left_out)
        if not kept:
            raise conversion.left_none(file)


def _draw_places(
    files: Sequence[Path], conversion: RowConverter, limit: int, seed: int
) -> IndexArray:
    """Places of `limit` rows among all that are kept, drawn by `seed`, in order. All are read for it,
    and none is held."""
    kept = array("q")
    place = 0  # of a row, from 1
    for file in files:
        rows, before = place, len(kept)
        for unit in conversion.units(conversion.rows(file)):
            place += 1
            if unit is not None:
                kept.append(place)
        conversion.note(file, place - rows - (len(kept) - before))
        if len(kept) == before:
            raise conversion.left_none(file)
    order = np.random.default_rng(seed).permutation(len(kept))[:limit]
    return np.frombuffer(kept, np.int64)[np.sort(order)]


def _read_places(
    files: Sequence[Path], conversion: RowConverter, places: IndexArray
) -> Iterator[DatasetRow]:
    """The rows at `places` (from 1, over all files), read once more."""
    wanted = iter(places.tolist())
    next_one = next(wanted, 0)
    rows = (row for file in files for row in conversion.rows(file, again=True))
    for place, row in enumerate(rows, start=1):
        if place == next_one:
            yield row
            next_one = next(wanted, 0)
            if not next_one:
                return


@contextmanager
def _frozen_gc() -> Iterator[None]:
    """What was there before is not looked through by every collection of the many objects that rows
    become: that took a third of the time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """A digest of all that makes ids of text; "" for a tokenizer that cannot be written out."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        return ""
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.all_special_tokens]
    text = f"{type(tokenizer).__name__} {special} {inner.to_str()}"
    return hashlib.sha256(text.encode()).hexdigest()


CHARACTERS_PER_BATCH = (
    1 << 20
)  # characters of rows after which a part ends, however few rows they are


class RowBatch(NamedTuple):
    """Rows of one file: their numbers, and what each holds."""

    file: str
    numbers: list[int]
    values: list[dict[str, Any]]


class TokenizedBatch(NamedTuple):
    """What a part of `file` became, and how many of its rows the format left out."""

    tokens: TokenizedSource
    file: str
    left_out: int


@dataclass
class TokenizeJob:
    """Makes tokens of parts; can be pickled where `conversion` and `tokenizer` can.

    tokenizer: transformers' or a `backend.Backend`. names: the files of the source.
    """

    conversion: RowConverter
    way: TokenizeOptions
    tokenizer: Any
    names: tuple[str, ...]

    @cached_property
    def encoder(self) -> ConversationEncoder:
        """Made on first use, where the work is done."""
        return ConversationEncoder(self.tokenizer)

    def __call__(self, part: RowBatch) -> TokenizedBatch:
        """DataError with file and row for the first row that is refused."""
        rows = map(DatasetRow, part.values, [part.file] * len(part.values), part.numbers)
        units = [unit for unit in self.conversion.units(rows) if unit is not None]
        tokens = encode_groups(units, self.way, self.encoder, self.names)
        return TokenizedBatch(tokens, part.file, len(part.values) - len(units))


def split_rows(rows: Iterable[DatasetRow]) -> Iterator[RowBatch]:
    """Rows, as they are read, in parts that memory can hold: of one file, some thousand rows or a
    million characters. Where reading fails, what was read before comes first: it may fail earlier.
    """
    part, size = RowBatch("", [], []), 0
    try:
        for row in rows:
            if part.values and (
                row.file != part.file
                or len(part.values) == SAMPLES_PER_BATCH
                or size >= CHARACTERS_PER_BATCH
            ):
                yield part
                part, size = RowBatch(row.file, [], []), 0
            if not part.values:
                part = RowBatch(row.file, [], [])
            part.numbers.append(row.number)
            part.values.append(row.value)
            size += row.size
    except Exception:
        if part.values:
            yield part
        raise
    if part.values:
        yield part
