"""What lint reports of a file: the rules, the findings, sizes of the rows; as lines of text, JSON or HTML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from elysia.core.html_report import bar_chart, heading, paragraph, render_page, table
from elysia.data.lint.text_fields import TextField

ERROR, WARNING = "error", "warning"
MAX_KEPT = 1000  # findings of one rule in one file that are kept whole; more are only counted
MAX_SHOWN = 500  # findings of a file in the table of the page

# rule: (severity, what it means). An error is what training would refuse or should never learn.
RULES: dict[str, tuple[str, str]] = {
    "not-readable": (ERROR, "a row or the file cannot be read"),
    "encoding": (ERROR, "the file is not UTF-8, or has bytes that are none"),
    "wrong-ending": (WARNING, "an array named .jsonl, or lines named .json"),
    "no-format": (ERROR, "rows of no dataset format"),
    "other-format": (ERROR, "a row of another format than the file's first"),
    "schema": (ERROR, "the format refuses the row"),
    "role-order": (ERROR, "speakers do not take turns, or no reply ends the talk"),
    "empty-text": (ERROR, "text that is empty or null"),
    "lost-character": (ERROR, "U+FFFD or half of a surrogate pair"),
    "mojibake": (ERROR, "text decoded with the wrong encoding"),
    "placeholder": (ERROR, "a blank that was never filled in"),
    "other-assistant": (ERROR, "another assistant's identity"),
    "leak": (ERROR, "a row that is also held out"),
    "control-character": (WARNING, "control or invisible characters"),
    "duplicate": (WARNING, "the same as an earlier row"),
    "near-duplicate": (WARNING, "nearly the same as an earlier row"),
    "contradiction": (WARNING, "another answer to a question about the character"),
    "personal-data": (WARNING, "a phone number, mail address or identity number"),
    "cut-off": (WARNING, "a reply that ends in mid-sentence"),
    "mixed-script": (WARNING, "traditional and simplified characters in one row"),
    "markup": (WARNING, "markup or template marks left in a text"),
}


@dataclass(frozen=True)
class LintFinding:
    """One fault. `line` counts lines and `row` rows, both from 1; 0 means the whole file."""

    rule: str
    file: str
    line: int
    row: int
    where: str
    text: str

    @property
    def severity(self) -> str:
        """`error` or `warning`, as RULES says."""
        return RULES[self.rule][0]

    def to_dict(self) -> dict[str, Any]:
        """The fields and the severity, as plain values."""
        return {"severity": self.severity, **asdict(self)}


@dataclass
class FindingLog:
    """The findings of one file: all of them counted, the first MAX_KEPT of each rule kept."""

    findings: list[LintFinding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, findings: Iterable[LintFinding]) -> None:
        """Count findings, and keep them while there is room."""
        for finding in findings:
            self.counts[finding.rule] += 1
            if self.counts[finding.rule] <= MAX_KEPT:
                self.findings.append(finding)

    @property
    def errors(self) -> int:
        """How many of the findings are errors."""
        return sum(count for rule, count in self.counts.items() if RULES[rule][0] == ERROR)

    def in_order(self) -> list[LintFinding]:
        """The kept findings by line and row; those of the whole file first."""
        return sorted(self.findings, key=lambda finding: (finding.line, finding.row))


@dataclass
class SizeStatistics:
    """Sizes of what a file holds. Lengths are binned by powers of two: bin n holds 2**(n-1) and more."""

    rows: int = 0
    replies: int = 0
    learned: int = 0
    total: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    reply_lengths: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)

    def add(self, fields: Sequence[TextField], measure: Callable[[str], int]) -> None:
        """Count one row; `measure` gives the length of a text."""
        sizes = [(item.role, measure(item.text)) for item in fields if isinstance(item.text, str)]
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

    def merge(self, other: SizeStatistics) -> None:
        """Add the counts of another part of the file."""
        for name, value in vars(other).items():
            own = getattr(self, name)
            if isinstance(value, Counter):
                own.update(value)
            else:
                setattr(self, name, own + value)


@dataclass
class FileReport:
    """What lint says of one file; `unit` is what lengths are counted in."""

    file: str
    layout: str
    encoding: str
    format: str | None = None
    unit: str = "characters"
    findings: FindingLog = field(default_factory=FindingLog)
    sizes: SizeStatistics = field(default_factory=SizeStatistics)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        sizes = self.sizes
        return {
            "file": self.file,
            "format": self.format,
            "encoding": self.encoding,
            "rows": sizes.rows,
            "learned_share": sizes.learned / sizes.total if sizes.total else 0.0,
            "unit": self.unit,
            "counts": dict(self.findings.counts),
            "errors": self.findings.errors,
            "findings": [finding.to_dict() for finding in self.findings.in_order()],
        }


def format_findings(report: FileReport, limit: int = 0) -> Iterator[tuple[str, str]]:
    """(severity, line) of each finding of a file, at most `limit` of one rule (0: all)."""
    counts: Counter[str] = Counter()
    for finding in report.findings.in_order():
        counts[finding.rule] += 1
        if limit and counts[finding.rule] > limit:
            continue
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        row = f" (row {finding.row})" if finding.row else ""
        where = f"{finding.where}: " if finding.where else ""
        yield (
            finding.severity,
            f"{place}: {finding.severity} {finding.rule}: {where}{to_one_line(finding.text)}{row}",
        )


def summary(report: FileReport) -> str:
    """A file's report in one line."""
    sizes, counts = report.sizes, report.findings.counts
    share = f", {sizes.learned / sizes.total:.0%} of {report.unit} learned" if sizes.total else ""
    total = ", ".join(f"{count} {rule}" for rule, count in counts.most_common()) or "nothing found"
    return f"{report.file}: {report.format or 'no format'}, {sizes.rows} rows{share}; {total}"


def to_json(reports: Sequence[FileReport]) -> str:
    """All reports, as one JSON object."""
    value = {
        "errors": sum(r.findings.errors for r in reports),
        "files": [r.to_dict() for r in reports],
    }
    # Half surrogates cannot be encoded as UTF-8, so they are escaped.
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return text.encode("utf-8", "backslashreplace").decode()


def to_html(reports: Sequence[FileReport]) -> str:
    """All reports, as a page: for every file its counts, its charts and its findings."""
    parts = []
    for report in reports:
        counts = report.findings.counts
        parts += [heading(report.file), paragraph(summary(report))]
        parts.append(
            table(
                ("rule", "severity", "found", "what it means"),
                [
                    (rule, RULES[rule][0], count, RULES[rule][1])
                    for rule, count in counts.most_common()
                ],
                [RULES[rule][0] for rule, _ in counts.most_common()],
            )
        )
        parts += _charts(report)
        shown = report.findings.in_order()[:MAX_SHOWN]
        parts.append(
            table(
                ("line", "row", "rule", "where", "what"),
                [(f.line or "", f.row or "", f.rule, f.where, to_one_line(f.text)) for f in shown],
                [f.severity for f in shown],
            )
        )
        if sum(counts.values()) > len(shown):
            parts.append(paragraph(f"{sum(counts.values()) - len(shown)} more are not shown."))
    return render_page("Lint of the data", *parts)


def _charts(report: FileReport) -> list[str]:
    sizes, counts = report.sizes, report.findings.counts
    repeated = {rule: counts[rule] for rule in ("duplicate", "near-duplicate", "leak")}
    single = sizes.rows - sum(repeated.values())
    return [
        bar_chart(f"length of a row, {report.unit}", _bins(sizes.lengths)),
        bar_chart(f"length of a reply, {report.unit}", _bins(sizes.reply_lengths)),
        bar_chart("replies in a row", {str(n): sizes.turns[n] for n in sorted(sizes.turns)[:20]}),
        bar_chart("rows", {"single": max(0, single), **repeated}),
        bar_chart(
            f"{report.unit}", {"learned": sizes.learned, "context": sizes.total - sizes.learned}
        ),
    ]


def _bins(counts: dict[int, int]) -> dict[str, float]:
    """Powers of two as ranges.

    >>> _bins({3: 2, 1: 1})
    {'1': 1, '4-7': 2}
    """
    names = {n: f"{2 ** (n - 1)}-{2**n - 1}" if n > 1 else str(n) for n in counts}
    return {names[n]: counts[n] for n in sorted(counts)}


def to_one_line(text: str) -> str:
    """`text` on one line, control characters and half surrogates spelt out."""
    return "".join(
        ch if ch.isprintable() else " " if ch.isspace() else f"\\u{ord(ch):04x}" for ch in text
    )
