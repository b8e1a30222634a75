"""Lint of files: reads each once, row by row, and gathers what every check says.

Knows how the parts go together; nothing of how findings are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.data.formats import same_shape
from elysia.data.lint import talk
from elysia.data.lint.facts import Facts
from elysia.data.lint.findings import Finding, Findings
from elysia.data.lint.parts import Part, format_of, parts_of
from elysia.data.lint.rows import Located, Source
from elysia.data.lint.text import CHECKS, cut_off
from elysia.data.lint.twins import Place, Twins

PLAIN = ("pretrain", "oasst1")  # formats without a reply of their own
BROKEN = ("lost-character",)  # what the format's own reader refuses, too


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
        self.reply_lengths.update(size.bit_length() for size in learned)
        self.turns[len(learned)] += 1


@dataclass
class FileReport:
    """What lint says of one file; `unit` is what lengths are counted in."""

    file: str
    layout: str
    encoding: str
    format: str | None = None
    unit: str = "characters"
    findings: Findings = field(default_factory=Findings)
    shape: Shape = field(default_factory=Shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        shape = self.shape
        return {
            "file": self.file,
            "format": self.format,
            "encoding": self.encoding,
            "rows": shape.rows,
            "learned_share": shape.learned / shape.total if shape.total else 0.0,
            "unit": self.unit,
            "counts": dict(self.findings.counts),
            "errors": self.findings.errors,
            "findings": [finding.to_dict() for finding in self.findings.in_order()],
        }


def lint(
    paths: Sequence[Path],
    heldout: Sequence[Path] = (),
    *,
    ours: Iterable[str] = (),
    count: Callable[[str], int] = len,
    unit: str = "characters",
) -> list[FileReport]:
    """The report of each file. Rows that are also in `heldout` are leaks.

    `ours` are names that the character may bear; `count` measures a text in `unit`.
    DataError where a file is missing.
    """
    run = _Run([str(path) for path in paths], frozenset(name.lower() for name in ours), count)
    for path in heldout:
        run.hold_out(path)
    reports = [run.read(index, path, unit) for index, path in enumerate(paths)]
    run.tell_near(reports)
    return reports


class _Run:
    """One run over several files: the rows seen so far, and how a row is judged."""

    def __init__(
        self, files: Sequence[str], ours: frozenset[str], count: Callable[[str], int]
    ) -> None:
        self.files, self.ours, self.count = files, ours, count
        self.twins = Twins()

    def read(self, index: int, path: Path, unit: str) -> FileReport:
        """The report of file `index`, without near-duplicates."""
        source, facts, row = Source.of(path), Facts(), None
        report = FileReport(str(path), source.layout, source.encoding, unit=unit)
        report.findings.add(_of_file(source))
        for row in source.rows():
            try:
                faults = list(self._faults(row, index, report, facts))
            except RecursionError:
                faults = [("not-readable", "", "nested too deeply")]
            report.findings.add(
                Finding(rule, report.file, row.line, row.number, where, what)
                for rule, where, what in faults
            )
        report.findings.add(facts.findings(report.file))
        if row is None:
            report.findings.add(
                [Finding("not-readable", report.file, 0, 0, "", "the file holds no rows")]
            )
        return report

    def _faults(
        self, row: Located, index: int, report: FileReport, facts: Facts
    ) -> Iterator[talk.Fault]:
        value = row.value
        if row.fault or not isinstance(value, dict):
            yield "not-readable", "", row.fault or f"a row is an object, not {_kind(value)}"
            return
        format = format_of(value)
        if row.number == 1:
            report.format = format
        yield from _of_format(row, format, report.format)
        parts = parts_of(value, format)
        report.shape.add(parts, self.count)
        texts = list(_of_texts(parts))
        yield from texts
        if format:
            damaged = any(rule in BROKEN for rule, *_ in texts)
            yield from talk.faults(value, format, parts, self.ours, damaged)
        if format not in PLAIN:
            yield from _of_replies(parts)
            _hear(parts, facts, row)
        yield from self._seen(parts, Place(index, row.line, row.number))

    def _seen(self, parts: Sequence[Part], place: Place) -> Iterator[talk.Fault]:
        """Whether a row, or a question of it with its reply, was there before."""
        if (earlier := self.twins.add(*_texts(parts), place)) is not None:
            rule = "leak" if earlier.file < 0 else "duplicate"
            yield rule, "", f"the same as {self._named(earlier, place.file)}"
        elif held := next(filter(None, map(self.twins.held_out, _exchanges(parts))), None):
            yield "leak", "", f"holds a question and reply of {self._named(held, place.file)}"

    def hold_out(self, path: Path) -> None:
        """Remember the rows of a file that may not be trained on."""
        for row in Source.of(path).rows():
            if isinstance(row.value, dict):
                parts = parts_of(row.value, format_of(row.value))
                place = Place(-1, row.line, row.number)
                self.twins.add(*_texts(parts), place)
                for exchange in _exchanges(parts):
                    self.twins.hold_out(exchange, place)

    def tell_near(self, reports: Sequence[FileReport]) -> None:
        """Add the near-duplicates, which are known only when all is read."""
        for later, earlier, alike in self.twins.near():
            if later.file >= 0:
                rule = "leak" if earlier.file < 0 else "near-duplicate"
                what = f"{alike:.0%} like {self._named(earlier, later.file)}"
                report = reports[later.file]
                found = Finding(rule, report.file, later.line, later.row, "", what)
                report.findings.add([found])

    def _named(self, place: Place, beside: int) -> str:
        line = f" (line {place.line})" if place.line else ""
        if place.file < 0:
            return f"held-out row {place.row}{line}"
        return f"row {place.row}{line}" + (
            f" of {self.files[place.file]}" if place.file != beside else ""
        )


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _of_file(source: Source) -> Iterator[Finding]:
    file = str(source.path)
    if source.encoding != "utf-8-sig":
        what = f"the file reads as {source.encoding}; save it as UTF-8"
        yield Finding("encoding", file, 0, 0, "", what)
    if source.layout == "array" and source.path.suffix.lower() == ".jsonl":
        yield Finding("wrong-ending", file, 0, 0, "", "a JSON array; .json is its right ending")
    if source.layout == "lines" and source.path.suffix.lower() == ".json":
        yield Finding("wrong-ending", file, 0, 0, "", "no JSON array; .jsonl is for a row a line")


def _of_format(row: Located, format: str | None, first: str | None) -> Iterator[talk.Fault]:
    if format is None and (row.number == 1 or first):
        keys = ", ".join(map(str, row.value))[:100]
        yield "no-format", "", f"the keys ({keys}) are no dataset format's"
    elif format and (first is None or not same_shape(format, first)):
        yield "other-format", "", f"a row of {format} in a file of {first or 'no format'}"


def _of_texts(parts: Sequence[Part]) -> Iterator[tuple[str, str, str]]:
    for part in parts:
        if isinstance(part.text, str):
            for rule, check in CHECKS:
                yield from ((rule, part.where, what) for what in check(part.text))


def _of_replies(parts: Sequence[Part]) -> Iterator[tuple[str, str, str]]:
    for part in parts:
        if part.role == "assistant" and isinstance(part.text, str):
            yield from (("cut-off", part.where, what) for what in cut_off(part.text))


def _hear(parts: Sequence[Part], facts: Facts, row: Located) -> None:
    ask = ""
    for part in parts:
        if part.role == "user" and isinstance(part.text, str):
            ask = part.text
        elif part.role == "assistant" and isinstance(part.text, str):
            facts.hear(ask, part.text, row.line, row.number, part.where)


def _texts(parts: Sequence[Part]) -> tuple[str, str]:
    """What is compared: everything but the system text, and the questions alone."""
    said = [(p.role, p.text) for p in parts if p.role != "system" and isinstance(p.text, str)]
    asks = "\n".join(text for role, text in said if role == "user")
    return "\n".join(text for _, text in said), asks


def _exchanges(parts: Sequence[Part]) -> Iterator[str]:
    ask = ""
    for part in parts:
        if part.role == "user" and isinstance(part.text, str):
            ask = part.text.strip()
        elif part.role == "assistant" and isinstance(part.text, str):
            yield f"{ask}\n{part.text.strip()}"
