"""Check rows by themselves, whatever the rows before them say, and collect what they add to the
knowledge of the file: sizes, fingerprints, statements about the character.

A batch of rows goes in and one result comes out, so that any process can check any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from elysia.data.lint.consistency import StatedFact, extract_facts
from elysia.data.lint.dedup import (
    SHORTEST_SIGNED,
    FirstSeenTable,
    RowFingerprint,
    RowLocation,
    build_fingerprint,
    hash_text,
)
from elysia.data.lint.dialogue_rules import RuleHit, find_faults
from elysia.data.lint.lint_report import SizeStatistics
from elysia.data.lint.located_rows import LocatedRow, UnparsedRow
from elysia.data.lint.text_fields import TextField, detect_row_format, get_text_fields
from elysia.data.lint.text_rules import CHECKS, find_cut_off, get_possible_rules

PLAIN_FORMATS = ("pretrain", "oasst1")  # formats without a reply of their own
BROKEN_RULES = ("lost-character",)  # what the format's own function refuses, too
CHARACTERS_PER_BATCH = 1 << 18
ROWS_PER_BATCH = 1024


@dataclass
class RowResult:
    """What the checks say of one row by itself; `keys` are those of a row of no format, `heldout` the
    held-out row that holds one of its exchanges."""

    line: int
    number: int
    readable: bool = False
    format: str | None = None
    keys: str = ""
    hits: list[RuleHit] = field(default_factory=list)
    facts: list[StatedFact] = field(default_factory=list)
    fingerprint: RowFingerprint | None = None
    heldout: RowLocation | None = None


class BatchResult(NamedTuple):
    """The results of a batch of rows, in order, and their sizes."""

    results: list[RowResult]
    sizes: SizeStatistics


@dataclass(frozen=True)
class RowChecker:
    """How rows are checked: the names that the character may use for itself, how the length of a text
    is measured, and the hashes of exchanges that are held out."""

    ours: frozenset[str]
    measure: Callable[[str], int]
    heldout: FirstSeenTable | None = None

    def __call__(self, rows: Sequence[LocatedRow | UnparsedRow]) -> BatchResult:
        """Check a batch of rows."""
        batch = BatchResult([], SizeStatistics())
        for row in rows:
            result = RowResult(row.line, row.number)
            batch.results.append(result)
            try:
                located = row.parse() if isinstance(row, UnparsedRow) else row
                self._check(located, result, batch.sizes)
            except RecursionError:
                result.hits = [("not-readable", "", "nested too deeply")]
        return batch

    def _check(self, row: LocatedRow, result: RowResult, sizes: SizeStatistics) -> None:
        """Fill in the result of a row, and add it to the sizes."""
        value = row.value
        if row.fault or not isinstance(value, dict):
            why = row.fault or f"a row is an object, not {_type_name(value)}"
            result.hits.append(("not-readable", "", why))
            return
        format = result.format = detect_row_format(value)
        if format is None:
            result.keys = ", ".join(map(str, value))[:100]
        fields = get_text_fields(value, format)
        sizes.add(fields, self.measure)
        result.hits += _check_texts(fields)
        if format:
            is_broken = any(rule in BROKEN_RULES for rule, *_ in result.hits)
            result.hits += find_faults(value, format, fields, self.ours, is_broken)
        if format not in PLAIN_FORMATS:
            result.hits += _check_replies(fields)
            result.facts += _extract_facts(fields)
        if self.heldout:
            locations = map(self._find_heldout, iter_exchanges(fields))
            result.heldout = next(filter(None, locations), None)
        result.fingerprint = build_fingerprint(*get_compared_texts(fields))
        result.readable = True

    def _find_heldout(self, exchange: str) -> RowLocation | None:
        if self.heldout is None or len(exchange) < SHORTEST_SIGNED:
            return None  # "hello" and its answer are in every set
        return self.heldout.find(hash_text(exchange))


def split_batches(
    rows: Iterable[LocatedRow | UnparsedRow],
) -> Iterator[list[LocatedRow | UnparsedRow]]:
    """Rows in batches of about CHARACTERS_PER_BATCH characters, at most ROWS_PER_BATCH rows."""
    batch: list[LocatedRow | UnparsedRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.text) if isinstance(row, UnparsedRow) else _estimate_size(row.value)
        if size >= CHARACTERS_PER_BATCH or len(batch) >= ROWS_PER_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def get_compared_texts(fields: Sequence[TextField]) -> tuple[str, str]:
    """What duplicates are found by: all texts but the system text, and the questions alone."""
    texts = [(f.role, f.text) for f in fields if f.role != "system" and isinstance(f.text, str)]
    asks = "\n".join(text for role, text in texts if role == "user")
    return "\n".join(text for _, text in texts), asks


def iter_exchanges(fields: Sequence[TextField]) -> Iterator[str]:
    """Every question with its reply, as one text."""
    ask = ""
    for item in fields:
        if item.role == "user" and isinstance(item.text, str):
            ask = item.text.strip()
        elif item.role == "assistant" and isinstance(item.text, str):
            yield f"{ask}\n{item.text.strip()}"


def _estimate_size(value: Any) -> int:
    """About how many characters a parsed row has."""
    texts = value.values() if isinstance(value, dict) else ()
    return sum(len(text) if isinstance(text, str) else 1000 for text in texts)


def _type_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _check_texts(fields: Sequence[TextField]) -> Iterator[RuleHit]:
    texts = [item for item in fields if isinstance(item.text, str)]
    # One search through the whole row decides which checks can find anything at all.
    rules = get_possible_rules("\n".join(item.text for item in texts))
    checks = [(rule, check) for rule, check in CHECKS if rule in rules]
    if checks:
        for item in texts:
            for rule, check in checks:
                for what in check(item.text):
                    yield rule, item.where, what


def _check_replies(fields: Sequence[TextField]) -> Iterator[RuleHit]:
    for item in fields:
        if item.role == "assistant" and isinstance(item.text, str):
            for what in find_cut_off(item.text):
                yield "cut-off", item.where, what


def _extract_facts(fields: Sequence[TextField]) -> Iterator[StatedFact]:
    ask = ""
    for item in fields:
        if item.role == "user" and isinstance(item.text, str):
            ask = item.text
        elif item.role == "assistant" and isinstance(item.text, str):
            yield from extract_facts(ask, item.text, item.where)
