"""Lint of files: reads each once, row by row, and gathers what every check says.

Knows how the parts go together; nothing of how findings are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.data.formats import same_shape
from elysia.data.lint.facts import Facts
from elysia.data.lint.findings import Finding, Findings
from elysia.data.lint.judge import Judge, Judged, Shape, Verdict, compared, exchanges, pieces
from elysia.data.lint.parts import format_of, parts_of
from elysia.data.lint.prints import print_of
from elysia.data.lint.rows import Located, Source, Unread
from elysia.data.lint.talk import Fault
from elysia.data.lint.twins import Place, Twins
from elysia.data.lint.workers import Workers, useful

LARGE = 4_000_000  # bytes of files from which on processes are worth their start
_Workers = Workers[Sequence[Located | Unread], Judged]


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
    processes: int | None = None,
) -> list[FileReport]:
    """The report of each file. Rows that are also in `heldout` are leaks.

    `ours` are names that the character may bear; `count` measures a text in `unit`. Rows are judged
    in so many `processes` beside this one (0: none; None: what pays for files of this size), with
    the same report. DataError where a file is missing, DeviceError where a process ended early.
    """
    run = _Run([str(path) for path in paths])
    for path in heldout:
        run.hold_out(path)
    if processes is None:
        large = sum(path.stat().st_size for path in paths if path.is_file()) >= LARGE
        # A tokenizer has threads of its own that Python does not see, and does not bear to be forked.
        processes = useful() if large and count is len else 0
    held_out = run.twins.held_out if heldout else None
    judge = Judge(frozenset(name.lower() for name in ours), count, held_out)
    with Workers(judge, processes) as workers:
        reports = [run.read(index, path, unit, workers) for index, path in enumerate(paths)]
    run.tell_near(reports)
    return reports


class _Run:
    """One run over several files, and what is known of the rows so far."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self.twins = Twins()

    def read(self, index: int, path: Path, unit: str, workers: _Workers) -> FileReport:
        """The report of file `index`, without near-duplicates."""
        source, facts, read = Source.of(path), Facts(), 0
        report = FileReport(str(path), source.layout, source.encoding, unit=unit)
        report.findings.add(_of_file(source))
        rows = source.unread() if workers.count else source.rows()
        for judged in workers.map(pieces(rows)):
            report.shape.join(judged.shape)
            read += len(judged.verdicts)
            for verdict in judged.verdicts:
                report.findings.add(
                    Finding(rule, report.file, verdict.line, verdict.number, where, what)
                    for rule, where, what in self._faults(verdict, index, report)
                )
                for said in verdict.said:
                    facts.hear(said, verdict.line, verdict.number)
        report.findings.add(facts.findings(report.file))
        if not read:
            report.findings.add(
                [Finding("not-readable", report.file, 0, 0, "", "the file holds no rows")]
            )
        return report

    def _faults(self, verdict: Verdict, index: int, report: FileReport) -> Iterator[Fault]:
        """The faults of a row, with those that other rows make one."""
        if verdict.number == 1:
            report.format = verdict.format
        if verdict.readable:
            yield from _of_format(verdict, report.format)
        yield from verdict.faults
        if verdict.readable:
            yield from self._seen(verdict, Place(index, verdict.line, verdict.number))

    def _seen(self, verdict: Verdict, place: Place) -> Iterator[Fault]:
        """Whether a row, or a question of it with its reply, was there before."""
        if (earlier := self.twins.add(verdict.print, place)) is not None:
            rule = "leak" if earlier.file < 0 else "duplicate"
            yield rule, "", f"the same as {self._named(earlier, place.file)}"
        elif verdict.held:
            yield (
                "leak",
                "",
                f"holds a question and reply of {self._named(verdict.held, place.file)}",
            )

    def hold_out(self, path: Path) -> None:
        """Remember the rows of a file that may not be trained on."""
        for row in Source.of(path).rows():
            if isinstance(row.value, dict):
                parts = parts_of(row.value, format_of(row.value))
                place = Place(-1, row.line, row.number)
                self.twins.add(print_of(*compared(parts)), place)
                for exchange in exchanges(parts):
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


def _of_file(source: Source) -> Iterator[Finding]:
    file = str(source.path)
    if source.encoding != "utf-8-sig":
        what = f"the file reads as {source.encoding}; save it as UTF-8"
        yield Finding("encoding", file, 0, 0, "", what)
    if source.layout == "array" and source.path.suffix.lower() == ".jsonl":
        yield Finding("wrong-ending", file, 0, 0, "", "a JSON array; .json is its right ending")
    if source.layout == "lines" and source.path.suffix.lower() == ".json":
        yield Finding("wrong-ending", file, 0, 0, "", "no JSON array; .jsonl is for a row a line")


def _of_format(verdict: Verdict, first: str | None) -> Iterator[Fault]:
    format = verdict.format
    if format is None and (verdict.number == 1 or first):
        yield "no-format", "", f"the keys ({verdict.keys}) are no dataset format's"
    elif format and (first is None or not same_shape(format, first)):
        yield "other-format", "", f"a row of {format} in a file of {first or 'no format'}"
