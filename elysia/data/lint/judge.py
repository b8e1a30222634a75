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

from elysia.data.lint import talk
from elysia.data.lint.facts import Said, heard
from elysia.data.lint.parts import Part, format_of, parts_of
from elysia.data.lint.prints import Print, print_of
from elysia.data.lint.rows import Located, Unread
from elysia.data.lint.text import CHECKS, cut_off, hints
from elysia.data.lint.twins import Place

PLAIN = ("pretrain", "oasst1")  # formats without a reply of their own
BROKEN = ("lost-character",)  # what the format's own reader refuses, too
PIECE = 1 << 18  # characters that are judged at once
ROWS = 1024  # ... or rows of them


@dataclass
class Shape:
    """Sizes of what a file holds. Lengths are in powers of two: bin n holds 2**n and more."""

    rows: int = 0
    replies: int = 0
    learned: int = 0
    total: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    reply_lengths: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)

    def add(self, parts: Sequence[Part], count: Callable[[str], int]) -> None:
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

    def join(self, more: Shape) -> None:
        """Add the counts of another piece."""
        for name, value in vars(more).items():
            mine = getattr(self, name)
            if isinstance(value, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)


@dataclass
class Verdict:
    """What one row by itself comes to; `keys` are those of a row of no format."""

    line: int
    number: int
    readable: bool = False
    format: str | None = None
    keys: str = ""
    faults: list[talk.Fault] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    print: Print | None = None
    held: Place | None = None


class Judged(NamedTuple):
    """A piece of a file: its rows' verdicts, in order, and their sizes."""

    verdicts: list[Verdict]
    shape: Shape


@dataclass(frozen=True)
class Judge:
    """How rows are judged: the names that the character may bear, what a text's length is, and
    which exchanges are held out."""

    ours: frozenset[str]
    count: Callable[[str], int]
    held_out: Callable[[str], Place | None] | None = None

    def __call__(self, rows: Sequence[Located | Unread]) -> Judged:
        """Judge a piece of a file."""
        judged = Judged([], Shape())
        for row in rows:
            verdict = Verdict(row.line, row.number)
            judged.verdicts.append(verdict)
            try:
                self._row(row.read() if isinstance(row, Unread) else row, verdict, judged.shape)
            except RecursionError:
                verdict.faults = [("not-readable", "", "nested too deeply")]
        return judged

    def _row(self, row: Located, verdict: Verdict, shape: Shape) -> None:
        """Fill in the verdict on a row, and count it."""
        value = row.value
        if row.fault or not isinstance(value, dict):
            why = row.fault or f"a row is an object, not {_kind(value)}"
            verdict.faults.append(("not-readable", "", why))
            return
        format = verdict.format = format_of(value)
        if format is None:
            verdict.keys = ", ".join(map(str, value))[:100]
        parts = parts_of(value, format)
        shape.add(parts, self.count)
        faults = verdict.faults
        faults += _of_texts(parts)
        if format:
            damaged = any(rule in BROKEN for rule, *_ in faults)
            faults += talk.faults(value, format, parts, self.ours, damaged)
        if format not in PLAIN:
            faults += _of_replies(parts)
            verdict.said += _said(parts)
        if self.held_out:
            verdict.held = next(filter(None, map(self.held_out, exchanges(parts))), None)
        verdict.print = print_of(*compared(parts))
        verdict.readable = True


def pieces(rows: Iterable[Located | Unread]) -> Iterator[list[Located | Unread]]:
    """Rows by the piece: as many as have PIECE characters, at most ROWS."""
    piece: list[Located | Unread] = []
    size = 0
    for row in rows:
        piece.append(row)
        size += len(row.text) if isinstance(row, Unread) else _size(row.value)
        if size >= PIECE or len(piece) >= ROWS:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def compared(parts: Sequence[Part]) -> tuple[str, str]:
    """What is compared: everything but the system text, and the questions alone."""
    said = [(p.role, p.text) for p in parts if p.role != "system" and isinstance(p.text, str)]
    asks = "\n".join(text for role, text in said if role == "user")
    return "\n".join(text for _, text in said), asks


def exchanges(parts: Sequence[Part]) -> Iterator[str]:
    """Every question with its reply."""
    ask = ""
    for part in parts:
        if part.role == "user" and isinstance(part.text, str):
            ask = part.text.strip()
        elif part.role == "assistant" and isinstance(part.text, str):
            yield f"{ask}\n{part.text.strip()}"


def _size(value: Any) -> int:
    """About how many characters a row holds that was read already."""
    texts = value.values() if isinstance(value, dict) else ()
    return sum(len(text) if isinstance(text, str) else 1000 for text in texts)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _of_texts(parts: Sequence[Part]) -> Iterator[talk.Fault]:
    texts = [part for part in parts if isinstance(part.text, str)]
    rules = hints("\n".join(part.text for part in texts))
    checks = [(rule, check) for rule, check in CHECKS if rule in rules]
    if checks:
        for part in texts:
            for rule, check in checks:
                for what in check(part.text):
                    yield rule, part.where, what


def _of_replies(parts: Sequence[Part]) -> Iterator[talk.Fault]:
    for part in parts:
        if part.role == "assistant" and isinstance(part.text, str):
            for what in cut_off(part.text):
                yield "cut-off", part.where, what


def _said(parts: Sequence[Part]) -> Iterator[Said]:
    ask = ""
    for part in parts:
        if part.role == "user" and isinstance(part.text, str):
            ask = part.text
        elif part.role == "assistant" and isinstance(part.text, str):
            yield from heard(ask, part.text, part.where)
