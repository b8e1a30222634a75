"""From a source of rows to its tokens: read, encoded and laid down part by part, so that memory does
not grow with the file; taken from the cache where they are there already.

Knows nothing of which rows are trained on, or of torch.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from elysia.core.files import sha256_of
from elysia.data.cache import cached
from elysia.data.encode import Encoder
from elysia.data.formats import Format
from elysia.data.pairs import Preference
from elysia.data.sources import files_of, pairs_of_source, samples_of
from elysia.data.tokenize import AT_ONCE, Unit, Way, encode_units
from elysia.data.tokens import Tokens, joined

# What of a source says which rows it has and how they are read.
READ_BY = ("path", "format", "columns", "bot_name", "min_length", "split", "subset", "files", "hub")


def tokens_of(
    source: Mapping[str, Any],
    way: Way,
    tokenizer: Any,
    function: Format | Preference | None = None,
    *,
    seed: int = 0,
    cache: bool = False,
) -> Tokens:
    """The tokens of a source's rows (its `limit` of them, drawn by `seed`), in the files' order.

    function: stands for the source's format. What it does depends on more than its text, so its
    tokens are not kept, nor are those of a tokenizer written in Python. DataError names file, row
    and key.
    """

    def parts() -> Iterator[Tokens]:
        names = tuple(str(file) for file in files_of(source))
        encoder = Encoder(tokenizer)
        units = iter(_units(source, way, function, seed))
        while some := list(itertools.islice(units, AT_ONCE)):
            yield encode_units(some, way, encoder, names)

    words = fingerprint(tokenizer)
    if not cache or function or not words:
        return joined(list(parts()))
    limit = source.get("limit")
    made_of = {
        "source": {key: source.get(key) for key in READ_BY},
        "files": [[str(file), sha256_of(file)] for file in files_of(source) if file.is_file()],
        "limit": [limit, seed] if limit else None,
        "way": asdict(way),
        "tokenizer": words,
    }
    return cached(made_of, parts)


def _units(source: Mapping[str, Any], way: Way, function: Any, seed: int) -> Iterator[Unit]:
    """A source's rows, or pairs, as they are read. A `limit` is drawn from all of them, which are
    held in memory for it."""
    single: Iterator[Unit] = ((sample,) for sample in samples_of(source, function))
    units: Iterator[Unit] = pairs_of_source(source, function) if way.pairs else single
    limit = source.get("limit")
    if not limit:
        return units
    rows = list(units)
    order = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return (rows[i] for i in np.sort(order))


def fingerprint(tokenizer: Any) -> str:
    """A digest of all that makes ids of text; "" for a tokenizer that cannot be written out."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        return ""
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.all_special_tokens]
    text = f"{type(tokenizer).__name__} {special} {inner.to_str()}"
    return hashlib.sha256(text.encode()).hexdigest()
