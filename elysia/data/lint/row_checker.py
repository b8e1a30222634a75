"""What is wrong with rows by themselves, whatever the rows before them say, and what they add to
what is known of the file: sizes, prints, answers about the character.

A piece of a file goes in and one result comes out, so that pieces can be judged in any process.
Knows nothing of files, of other rows, or of the order in which pieces come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from elysia.data.lint import dialogue_rules
from elysia.data.lint.consistency import StatedFact, extract_facts
from elysia.data.lint.dedup import Fingerprint, RowLocation, build_fingerprint
from elysia.data.lint.located_rows import LocatedRow, UnparsedRow
from elysia.data.lint.text_fields import TextField, detect_row_format, get_text_fields
from elysia.data.lint.text_rules import CHECKS, find_cut_off, get_possible_rules

PLAIN_FORMATS = ("pretrain", "oasst1")  # formats without a reply of their own
BROKEN_RULES = ("lost-character",)  # what the format's own reader refuses, too
CHARACTERS_PER_BATCH = 1 << 18  # characters that are judged at once
ROWS_PER_BATCH = 1024  # ... or rows of them


@dataclass
class SizeStatistics:
    """Sizes of what a file holds. Lengths are in powers of two: bin n holds 2**n and more."""

    rows: int = 0
    replies: int = 0
    learned: int = 0
    total: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    reply_lengths: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)

    def add(self, parts: Sequence[TextField], count: Callable[[str], int]) -> None:
        """Count one row."""
        sizes = [(part.role, count(part.text)) for part in parts if isinstance(part.text, str)]
        whole = sum(size for _, size in sizes)
        learned = [size for role, size in sizes if role == "assistant"]
        self.rows += 1
        self.replies += len(learned)
        self.learned += sum(learned)
        self.total += whole
        self.lengths[whole.bit_length()] += 1
        for size in learned:
            self.reply_lengths[size.bit_length()] += 1
        self.turns[len(learned)] += 1

    def join(self, more: SizeStatistics) -> None:
        """Add the counts of another piece."""
        for name, value in vars(more).items():
            mine = getattr(self, name)
            if isinstance(value, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)


@dataclass
class RowResult:
    """What one row by itself comes to; `keys` are those of a row of no format."""

    line: int
    number: int
    readable: bool = False
    format: str | None = None
    keys: str = ""
    faults: list[dialogue_rules.Fault] = field(default_factory=list)
    said: list[StatedFact] = field(default_factory=list)
    print: Fingerprint | None = None
    held: RowLocation | None = None


class BatchResult(NamedTuple):
    """A piece of a file: its rows' verdicts, in order, and their sizes."""

    verdicts: list[RowResult]
    shape: SizeStatistics


@dataclass(frozen=True)
class RowChecker:
    """How rows are judged: the names that the character may bear, what a text's length is, and
    which exchanges are held out."""

    ours: frozenset[str]
    count: Callable[[str], int]
    held_out: Callable[[str], RowLocation | None] | None = None

    def __call__(self, rows: Sequence[LocatedRow | UnparsedRow]) -> BatchResult:
        """Judge a piece of a file."""
        judged = BatchResult([], SizeStatistics())
        for row in rows:
            verdict = RowResult(row.line, row.number)
            judged.verdicts.append(verdict)
            try:
                self._row(
                    row.read() if isinstance(row, UnparsedRow) else row, verdict, judged.shape
                )
            except RecursionError:
                verdict.faults = [("not-readable", "", "nested too deeply")]
        return judged

    def _row(self, row: LocatedRow, verdict: RowResult, shape: SizeStatistics) -> None:
        """Fill in the verdict on a row, and count it."""
        value = row.value
        if row.fault or not isinstance(value, dict):
            why = row.fault or f"a row is an object, not {_type_name(value)}"
            verdict.faults.append(("not-readable", "", why))
            return
        format = verdict.format = detect_row_format(value)
        if format is None:
            verdict.keys = ", ".join(map(str, value))[:100]
        parts = get_text_fields(value, format)
        shape.add(parts, self.count)
        faults = verdict.faults
        faults += _check_texts(parts)
        if format:
            damaged = any(rule in BROKEN_RULES for rule, *_ in faults)
            faults += dialogue_rules.find_faults(value, format, parts, self.ours, damaged)
        if format not in PLAIN_FORMATS:
            faults += _check_replies(parts)
            verdict.said += _extract_facts(parts)
        if self.held_out:
            verdict.held = next(filter(None, map(self.held_out, iter_exchanges(parts))), None)
        verdict.print = build_fingerprint(*get_compared_texts(parts))
        verdict.readable = True


def split_batches(
    rows: Iterable[LocatedRow | UnparsedRow],
) -> Iterator[list[LocatedRow | UnparsedRow]]:
    """Rows by the piece: as many as have PIECE characters, at most ROWS."""
    piece: list[LocatedRow | UnparsedRow] = []
    size = 0
    for row in rows:
        piece.append(row)
        size += len(row.text) if isinstance(row, UnparsedRow) else _estimate_size(row.value)
        if size >= CHARACTERS_PER_BATCH or len(piece) >= ROWS_PER_BATCH:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def get_compared_texts(parts: Sequence[TextField]) -> tuple[str, str]:
    """What is compared: everything but the system text, and the questions alone."""
    said = [(p.role, p.text) for p in parts if p.role != "system" and isinstance(p.text, str)]
    asks = "\n".join(text for role, text in said if role == "user")
    return "\n".join(text for _, text in said), asks


def iter_exchanges(parts: Sequence[TextField]) -> Iterator[str]:
    """Every question with its reply."""
    ask = ""
    for part in parts:
        if part.role == "user" and isinstance(part.text, str):
            ask = part.text.strip()
        elif part.role == "assistant" and isinstance(part.text, str):
            yield f"{ask}\n{part.text.strip()}"


def _estimate_size(value: Any) -> int:
    """About how many characters a row holds that was read already."""
    texts = value.values() if isinstance(value, dict) else ()
    return sum(len(text) if isinstance(text, str) else 1000 for text in texts)


def _type_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _check_texts(parts: Sequence[TextField]) -> Iterator[dialogue_rules.Fault]:
    texts = [part for part in parts if isinstance(part.text, str)]
    rules = get_possible_rules("\n".join(part.text for part in texts))
    checks = [(rule, check) for rule, check in CHECKS if rule in rules]
    if checks:
        for part in texts:
            for rule, check in checks:
                for what in check(part.text):
                    yield rule, part.where, what


def _check_replies(parts: Sequence[TextField]) -> Iterator[dialogue_rules.Fault]:
    for part in parts:
        if part.role == "assistant" and isinstance(part.text, str):
            for what in find_cut_off(part.text):
                yield "cut-off", part.where, what


def _extract_facts(parts: Sequence[TextField]) -> Iterator[StatedFact]:
    ask = ""
    for part in parts:
        if part.role == "user" and isinstance(part.text, str):
            ask = part.text
        elif part.role == "assistant" and isinstance(part.text, str):
            yield from extract_facts(ask, part.text, part.where)
