"""Lint dataset files: read each once, row by row, and gather what every check reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from elysia.data.formats.registry import is_same_shape
from elysia.data.lint.consistency import FactRegister
from elysia.data.lint.dedup import (
    FirstSeenTable,
    NearDuplicateIndex,
    RowLocation,
    build_fingerprint,
    hash_text,
)
from elysia.data.lint.dialogue_rules import RuleHit
from elysia.data.lint.lint_report import FileReport, LintFinding
from elysia.data.lint.located_rows import LocatedRow, RowSource, UnparsedRow
from elysia.data.lint.row_checker import (
    BatchResult,
    RowChecker,
    RowResult,
    get_compared_texts,
    iter_exchanges,
    split_batches,
)
from elysia.data.lint.text_fields import detect_row_format, get_text_fields
from elysia.data.process_pool import ProcessPool, count_useful_processes

_Pool = ProcessPool[Sequence[LocatedRow | UnparsedRow], BatchResult]


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

    `ours` are names that the character may use for itself; `count` measures a text in `unit`. Rows
    are checked by `processes` further processes (below 2: none; None: as many as pay off for files of
    this size), with the same report. DataError where a file is missing, DeviceError where a process
    ended early.
    """
    run = _LintRun([str(path) for path in paths])
    for path in heldout:
        run.hold_out(path)
    if processes is None:
        size = sum(path.stat().st_size for path in paths if path.is_file())
        # The function that counts tokens cannot be sent to another process.
        processes = count_useful_processes(size) if count is len else 1
    names = frozenset(name.lower() for name in ours)
    checker = RowChecker(names, count, run.heldout_exchanges if heldout else None)
    with ProcessPool(checker, processes) as pool:
        reports = [run.read(index, path, unit, pool) for index, path in enumerate(paths)]
    run.report_near_duplicates(reports)
    return reports


class _LintRun:
    """A run over several files: what is known of the rows so far."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self.rows = NearDuplicateIndex()
        self.heldout_exchanges = FirstSeenTable()

    def read(self, index: int, path: Path, unit: str, pool: _Pool) -> FileReport:
        """The report of file `index`, without near-duplicates."""
        source, facts, count = RowSource.of(path), FactRegister(), 0
        report = FileReport(str(path), source.layout, source.encoding, unit=unit)
        report.findings.add(_check_file(source))
        # Parsing is left to the other processes, if there are any.
        rows = source.unparsed_rows() if pool.processes else source.rows()
        for batch in pool.map(split_batches(rows)):
            report.sizes.merge(batch.sizes)
            count += len(batch.results)
            for result in batch.results:
                report.findings.add(
                    LintFinding(rule, report.file, result.line, result.number, where, what)
                    for rule, where, what in self._check_row(result, index, report)
                )
                for fact in result.facts:
                    facts.add(fact, result.line, result.number)
        report.findings.add(facts.find_contradictions(report.file))
        if not count:
            report.findings.add(
                [LintFinding("not-readable", report.file, 0, 0, "", "the file holds no rows")]
            )
        return report

    def _check_row(self, result: RowResult, index: int, report: FileReport) -> Iterator[RuleHit]:
        """What is wrong with a row, by itself and beside the other rows."""
        if result.number == 1:
            report.format = result.format
        if result.readable:
            yield from _check_format(result, report.format)
        yield from result.hits
        if result.readable:
            yield from self._check_repeated(result, RowLocation(index, result.line, result.number))

    def _check_repeated(self, result: RowResult, location: RowLocation) -> Iterator[RuleHit]:
        """Whether a row, or one of its questions with its reply, occurred before."""
        if (earlier := self.rows.add(result.fingerprint, location)) is not None:
            rule = "leak" if earlier.file < 0 else "duplicate"
            yield rule, "", f"the same as {self._describe(earlier, location.file)}"
        elif result.heldout:
            where = self._describe(result.heldout, location.file)
            yield "leak", "", f"holds a question and reply of {where}"

    def hold_out(self, path: Path) -> None:
        """Remember the rows of a file that must not be trained on."""
        for row in RowSource.of(path).rows():
            if isinstance(row.value, dict):
                fields = get_text_fields(row.value, detect_row_format(row.value))
                location = RowLocation(-1, row.line, row.number)
                self.rows.add(build_fingerprint(*get_compared_texts(fields)), location)
                for exchange in iter_exchanges(fields):
                    self.heldout_exchanges.add(hash_text(exchange), location)

    def report_near_duplicates(self, reports: Sequence[FileReport]) -> None:
        """Add the near-duplicates, which are known only when all files are read."""
        for later, earlier, similarity in self.rows.find_near():
            if later.file >= 0:
                rule = "leak" if earlier.file < 0 else "near-duplicate"
                what = f"{similarity:.0%} like {self._describe(earlier, later.file)}"
                report = reports[later.file]
                finding = LintFinding(rule, report.file, later.line, later.row, "", what)
                report.findings.add([finding])

    def _describe(self, location: RowLocation, file: int) -> str:
        """A row, as it is named in a finding of `file`."""
        line = f" (line {location.line})" if location.line else ""
        if location.file < 0:
            return f"held-out row {location.row}{line}"
        return f"row {location.row}{line}" + (
            f" of {self.files[location.file]}" if location.file != file else ""
        )


def _check_file(source: RowSource) -> Iterator[LintFinding]:
    file, ending = str(source.path), source.path.suffix.lower()
    if source.encoding != "utf-8-sig":
        what = f"the file reads as {source.encoding}; save it as UTF-8"
        yield LintFinding("encoding", file, 0, 0, "", what)
    if source.layout == "array" and ending == ".jsonl":
        yield LintFinding("wrong-ending", file, 0, 0, "", "a JSON array; name it .json")
    if source.layout == "lines" and ending == ".json":
        what = "not a JSON array but a row per line; name it .jsonl"
        yield LintFinding("wrong-ending", file, 0, 0, "", what)


def _check_format(result: RowResult, first: str | None) -> Iterator[RuleHit]:
    format = result.format
    if format is None and (result.number == 1 or first):
        yield "no-format", "", f"the keys ({result.keys}) are those of no dataset format"
    elif format and (first is None or not is_same_shape(format, first)):
        yield "other-format", "", f"a row of {format} in a file of {first or 'no format'}"
