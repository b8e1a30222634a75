"""Lint of files: reads each once, row by row, and gathers what every check says.

Knows how the parts go together; nothing of how findings are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.data.formats.registry import is_same_shape
from elysia.data.lint.consistency import FactRegister
from elysia.data.lint.dedup import NearDuplicateIndex, RowLocation, build_fingerprint
from elysia.data.lint.dialogue_rules import Fault
from elysia.data.lint.findings import FindingLog, LintFinding
from elysia.data.lint.fork_pool import ForkPool, count_fork_processes
from elysia.data.lint.located_rows import LocatedRow, RowSource, UnparsedRow
from elysia.data.lint.row_checker import (
    BatchResult,
    RowChecker,
    RowResult,
    SizeStatistics,
    get_compared_texts,
    iter_exchanges,
    split_batches,
)
from elysia.data.lint.text_fields import detect_row_format, get_text_fields

MIN_BYTES = 4_000_000  # bytes of files from which on processes are worth their start
_Pool = ForkPool[Sequence[LocatedRow | UnparsedRow], BatchResult]


@dataclass
class FileReport:
    """What lint says of one file; `unit` is what lengths are counted in."""

    file: str
    layout: str
    encoding: str
    format: str | None = None
    unit: str = "characters"
    findings: FindingLog = field(default_factory=FindingLog)
    shape: SizeStatistics = field(default_factory=SizeStatistics)

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


def lint_files(
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
    run = _LintRun([str(path) for path in paths])
    for path in heldout:
        run.hold_out(path)
    if processes is None:
        large = sum(path.stat().st_size for path in paths if path.is_file()) >= MIN_BYTES
        # A tokenizer has threads of its own that Python does not see, and does not bear to be forked.
        processes = count_fork_processes() if large and count is len else 0
    held_out = run.twins.held_out if heldout else None
    judge = RowChecker(frozenset(name.lower() for name in ours), count, held_out)
    with ForkPool(judge, processes) as workers:
        reports = [run.read(index, path, unit, workers) for index, path in enumerate(paths)]
    run.tell_near(reports)
    return reports


class _LintRun:
    """One run over several files, and what is known of the rows so far."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self.twins = NearDuplicateIndex()

    def read(self, index: int, path: Path, unit: str, workers: _Pool) -> FileReport:
        """The report of file `index`, without near-duplicates."""
        source, facts, read = RowSource.of(path), FactRegister(), 0
        report = FileReport(str(path), source.layout, source.encoding, unit=unit)
        report.findings.add(_check_file(source))
        rows = source.unread() if workers.count else source.rows()
        for judged in workers.map(split_batches(rows)):
            report.shape.join(judged.shape)
            read += len(judged.verdicts)
            for verdict in judged.verdicts:
                report.findings.add(
                    LintFinding(rule, report.file, verdict.line, verdict.number, where, what)
                    for rule, where, what in self._faults(verdict, index, report)
                )
                for said in verdict.said:
                    facts.hear(said, verdict.line, verdict.number)
        report.findings.add(facts.findings(report.file))
        if not read:
            report.findings.add(
                [LintFinding("not-readable", report.file, 0, 0, "", "the file holds no rows")]
            )
        return report

    def _faults(self, verdict: RowResult, index: int, report: FileReport) -> Iterator[Fault]:
        """The faults of a row, with those that other rows make one."""
        if verdict.number == 1:
            report.format = verdict.format
        if verdict.readable:
            yield from _check_format(verdict, report.format)
        yield from verdict.faults
        if verdict.readable:
            yield from self._seen(verdict, RowLocation(index, verdict.line, verdict.number))

    def _seen(self, verdict: RowResult, place: RowLocation) -> Iterator[Fault]:
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
        for row in RowSource.of(path).rows():
            if isinstance(row.value, dict):
                parts = get_text_fields(row.value, detect_row_format(row.value))
                place = RowLocation(-1, row.line, row.number)
                self.twins.add(build_fingerprint(*get_compared_texts(parts)), place)
                for exchange in iter_exchanges(parts):
                    self.twins.hold_out(exchange, place)

    def tell_near(self, reports: Sequence[FileReport]) -> None:
        """Add the near-duplicates, which are known only when all is read."""
        for later, earlier, alike in self.twins.near():
            if later.file >= 0:
                rule = "leak" if earlier.file < 0 else "near-duplicate"
                what = f"{alike:.0%} like {self._named(earlier, later.file)}"
                report = reports[later.file]
                found = LintFinding(rule, report.file, later.line, later.row, "", what)
                report.findings.add([found])

    def _named(self, place: RowLocation, beside: int) -> str:
        line = f" (line {place.line})" if place.line else ""
        if place.file < 0:
            return f"held-out row {place.row}{line}"
        return f"row {place.row}{line}" + (
            f" of {self.files[place.file]}" if place.file != beside else ""
        )


def _check_file(source: RowSource) -> Iterator[LintFinding]:
    file = str(source.path)
    if source.encoding != "utf-8-sig":
        what = f"the file reads as {source.encoding}; save it as UTF-8"
        yield LintFinding("encoding", file, 0, 0, "", what)
    if source.layout == "array" and source.path.suffix.lower() == ".jsonl":
        yield LintFinding("wrong-ending", file, 0, 0, "", "a JSON array; .json is its right ending")
    if source.layout == "lines" and source.path.suffix.lower() == ".json":
        yield LintFinding(
            "wrong-ending", file, 0, 0, "", "no JSON array; .jsonl is for a row a line"
        )


def _check_format(verdict: RowResult, first: str | None) -> Iterator[Fault]:
    format = verdict.format
    if format is None and (verdict.number == 1 or first):
        yield "no-format", "", f"the keys ({verdict.keys}) are no dataset format's"
    elif format and (first is None or not is_same_shape(format, first)):
        yield "other-format", "", f"a row of {format} in a file of {first or 'no format'}"
