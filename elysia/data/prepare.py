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
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from elysia.core.files import sha256_of
from elysia.data.backend import backend_of
from elysia.data.cache import cached
from elysia.data.convert import Conversion
from elysia.data.formats import Format
from elysia.data.pairs import Preference
from elysia.data.read import Row
from elysia.data.sources import conversion_of, files_of
from elysia.data.tokenize import Way
from elysia.data.tokens import Numbers, Tokens, joined
from elysia.data.work import Made, Part, Work, parts_of
from elysia.data.workers import Workers, useful

# What of a source says which rows it has and how they are read.
READ_BY = ("path", "format", "columns", "bot_name", "min_length", "split", "subset", "files", "hub")


def tokens_of(
    source: Mapping[str, Any],
    way: Way,
    tokenizer: Any,
    function: Format | Preference | None = None,
    *,
    seed: int = 0,
    cache: float = 0,
    processes: int = 0,
) -> Tokens:
    """The tokens of a source's rows (its `limit` of them, drawn by `seed`), in the files' order.

    function: stands for the source's format. What it does depends on more than its text, so its
    tokens are not kept, nor are those of a tokenizer written in Python; both are made in this
    process alone. cache: GB of tokens to keep on disk (0: none). processes: how many make tokens
    (0: as many as pay for files of this size; 1: this one alone); the tokens are the same whatever
    it is. DataError names file, row and key.
    """
    conversion = conversion_of(source, way.pairs, function)
    files = files_of(source)
    limit = source.get("limit")
    backend = backend_of(tokenizer)
    words = fingerprint(tokenizer)
    # Where nothing is kept, every process of a training makes its own.
    sharing = 1 if cache else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def parts() -> Iterator[Tokens]:
        work = Work(conversion, way, backend or tokenizer, tuple(map(str, files)))
        size = sum(file.stat().st_size for file in files if file.is_file())
        count = 1 if function or not backend else processes or useful(size, sharing)
        workers: Workers[Part, Made] = Workers(work, count)
        with _old_objects_aside(), workers:
            if limit:
                drawn = _drawn(files, conversion, _chosen(files, conversion, limit, seed))
                yield from (made.tokens for made in workers.map(parts_of(drawn)))
            else:
                rows = (row for file in files for row in conversion.rows(file))
                yield from _noted(workers.map(parts_of(rows)), conversion)

    if not cache or function or not words:
        return joined(list(parts()))
    made_of = {
        "source": {key: source.get(key) for key in READ_BY},
        "files": [[str(file), sha256_of(file)] for file in files if file.is_file()],
        "limit": [limit, seed] if limit else None,
        "way": asdict(way),
        "tokenizer": words,
    }
    return cached(made_of, parts, cache)


def _noted(made: Iterable[Made], conversion: Conversion) -> Iterator[Tokens]:
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


def _chosen(files: Sequence[Path], conversion: Conversion, limit: int, seed: int) -> Numbers:
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


def _drawn(files: Sequence[Path], conversion: Conversion, places: Numbers) -> Iterator[Row]:
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
def _old_objects_aside() -> Iterator[None]:
    """What was there before is not looked through by every collection of the many objects that rows
    become: that took a third of the time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def fingerprint(tokenizer: Any) -> str:
    """A digest of all that makes ids of text; "" for a tokenizer that cannot be written out."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        return ""
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.all_special_tokens]
    text = f"{type(tokenizer).__name__} {special} {inner.to_str()}"
    return hashlib.sha256(text.encode()).hexdigest()
