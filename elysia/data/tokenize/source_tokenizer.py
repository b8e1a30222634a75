"""Tokenize a source of rows batch by batch, in this process or several, or take its tokens from the cache.

Rows are read, converted, encoded and written batch by batch, so memory does not grow with the file.
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
from elysia.data.tokenize.sample_tokenizer import (
    SAMPLES_PER_BATCH,
    TokenizeOptions,
    encode_groups,
)
from elysia.data.tokenize.token_cache import load_or_build

# The settings of a source that decide which rows it has and how they are read.
READ_BY = ("path", "format", "columns", "bot_name", "min_length", "split", "subset", "files", "hub")
CHARACTERS_PER_BATCH = 1 << 20  # a batch of rows ends there, however few rows it has


def tokenize_source(
    source: Mapping[str, Any],
    options: TokenizeOptions,
    tokenizer: Any,
    function: Format | PreferenceFormat | None = None,
    *,
    seed: int = 0,
    cache: float = 0,
    processes: int = 0,
) -> TokenizedSource:
    """The tokens of a source's rows (of `limit` of them, drawn by `seed`), in the order of the files.

    Args:
        function: replaces the source's format. Its results depend on more than its code, so they
            are not cached, nor are those of a tokenizer written in Python; both are made in this
            process alone.
        cache: GB of tokens to keep on disk (0: none).
        processes: how many tokenize (0: as many as pay off for files of this size; 1: this process
            alone). The tokens do not depend on it.

    DataError names file, row and key.
    """
    converter = build_converter(source, options.pairs, function)
    files = find_files(source)
    limit = source.get("limit")
    picklable = get_picklable_tokenizer(tokenizer)
    tokenizer_digest = fingerprint_tokenizer(tokenizer)
    # Without a cache, every process of a training run tokenizes for itself at the same time.
    sharing = 1 if cache else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    job = TokenizeJob(converter, options, picklable or tokenizer, tuple(map(str, files)))
    size = sum(file.stat().st_size for file in files if file.is_file())
    count = processes or count_useful_processes(size, sharing)
    pool = ProcessPool(job, 1 if function or not picklable else count)

    def build() -> Iterator[TokenizedSource]:
        return _tokenize_files(files, converter, pool, limit, seed)

    if not cache or function or not tokenizer_digest:
        return concatenate(list(build()))
    key = {
        "source": {key: source.get(key) for key in READ_BY},
        "files": [[str(file), compute_sha256(file)] for file in files if file.is_file()],
        "limit": [limit, seed] if limit else None,
        "options": asdict(options),
        "tokenizer": tokenizer_digest,
    }
    return load_or_build(key, build, cache)


def _tokenize_files(
    files: Sequence[Path],
    converter: RowConverter,
    pool: ProcessPool[RowBatch, TokenizedBatch],
    limit: int | None,
    seed: int,
) -> Iterator[TokenizedSource]:
    with _frozen_gc(), pool:
        if limit:
            drawn = _read_places(files, converter, _draw_places(files, converter, limit, seed))
            yield from (batch.tokens for batch in pool.map(split_rows(drawn)))
        else:
            rows = (row for file in files for row in converter.rows(file))
            yield from _log_left_out(pool.map(split_rows(rows)), converter)


class RowBatch(NamedTuple):
    """Rows of one file: their numbers, and what each holds."""

    file: str
    numbers: list[int]
    values: list[dict[str, Any]]


class TokenizedBatch(NamedTuple):
    """What a batch of rows of `file` became, and how many of them the format left out."""

    tokens: TokenizedSource
    file: str
    left_out: int


@dataclass
class TokenizeJob:
    """Turns batches of rows into tokens; picklable where `converter` and `tokenizer` are.

    tokenizer: a transformers tokenizer or a `PicklableTokenizer`. names: the files of the source.
    """

    converter: RowConverter
    options: TokenizeOptions
    tokenizer: Any
    names: tuple[str, ...]

    @cached_property
    def encoder(self) -> ConversationEncoder:
        """Built on first use, in the process that works."""
        return ConversationEncoder(self.tokenizer)

    def __call__(self, batch: RowBatch) -> TokenizedBatch:
        """DataError with file and row for the first row that is refused."""
        rows = map(DatasetRow, batch.values, [batch.file] * len(batch.values), batch.numbers)
        groups = [group for group in self.converter.convert(rows) if group is not None]
        tokens = encode_groups(groups, self.options, self.encoder, self.names)
        return TokenizedBatch(tokens, batch.file, len(batch.values) - len(groups))


def split_rows(rows: Iterable[DatasetRow]) -> Iterator[RowBatch]:
    """Rows, as they are read, in batches that fit into memory: of one file, some thousand rows or a
    million characters. Where reading fails, the rows before come first: one of them may be refused.
    """
    batch, size = RowBatch("", [], []), 0
    try:
        for row in rows:
            is_full = len(batch.values) == SAMPLES_PER_BATCH or size >= CHARACTERS_PER_BATCH
            if batch.values and (row.file != batch.file or is_full):
                yield batch
                batch, size = RowBatch(row.file, [], []), 0
            if not batch.values:
                batch = RowBatch(row.file, [], [])
            batch.numbers.append(row.number)
            batch.values.append(row.value)
            size += row.size
    except Exception:
        if batch.values:
            yield batch
        raise
    if batch.values:
        yield batch


def _log_left_out(
    batches: Iterable[TokenizedBatch], converter: RowConverter
) -> Iterator[TokenizedSource]:
    """The tokens of batches; logs for each file how many rows were left out. DataError where none of
    a file's rows remains."""
    for file, group in groupby(batches, key=lambda batch: batch.file):
        count = left_out = 0
        for batch in group:
            count += len(batch.tokens)
            left_out += batch.left_out
            yield batch.tokens
        converter.log_left_out(file, left_out)
        if not count:
            raise converter.nothing_left(file)


def _draw_places(
    files: Sequence[Path], converter: RowConverter, limit: int, seed: int
) -> IndexArray:
    """The places of `limit` rows among all that the format keeps, drawn by `seed`, ascending. All
    rows are read for it, but none is held in memory."""
    places = array("q")
    place = 0  # of a row, from 1, over all files
    for file in files:
        rows_before, count_before = place, len(places)
        for group in converter.convert(converter.rows(file)):
            place += 1
            if group is not None:
                places.append(place)
        count = len(places) - count_before
        converter.log_left_out(file, place - rows_before - count)
        if not count:
            raise converter.nothing_left(file)
    order = np.random.default_rng(seed).permutation(len(places))[:limit]
    return np.frombuffer(places, np.int64)[np.sort(order)]


def _read_places(
    files: Sequence[Path], converter: RowConverter, places: IndexArray
) -> Iterator[DatasetRow]:
    """The rows at `places` (from 1, over all files), read once more."""
    remaining = iter(places.tolist())
    next_place = next(remaining, 0)
    rows = (row for file in files for row in converter.rows(file, again=True))
    for place, row in enumerate(rows, start=1):
        if place == next_place:
            yield row
            next_place = next(remaining, 0)
            if not next_place:
                return


@contextmanager
def _frozen_gc() -> Iterator[None]:
    """Exempt the objects that exist already from garbage collection. Rows become very many objects,
    and every collection they cause would look through the old ones: a third of the time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """A digest of everything that decides the ids of a text; "" for a tokenizer that cannot be
    serialized."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        return ""
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.all_special_tokens]
    text = f"{type(tokenizer).__name__} {special} {inner.to_str()}"
    return hashlib.sha256(text.encode()).hexdigest()
