"""Lint's report as lines of text, as JSON and as an HTML page. Knows nothing of how it is found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from elysia.core.html_report import bar_chart, heading, paragraph, render_page, table
from elysia.data.lint.findings import RULES
from elysia.data.lint.lint_files import FileReport

MAX_SHOWN = 500  # findings of a file in the table of the page


def format_findings(report: FileReport, limit: int = 0) -> Iterator[tuple[str, str]]:
    """(severity, line) of each finding of a file, at most `limit` of one rule (0: all)."""
    told: dict[str, int] = {}
    for finding in report.findings.in_order():
        told[finding.rule] = told.get(finding.rule, 0) + 1
        if limit and told[finding.rule] > limit:
            continue
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        row = f" (row {finding.row})" if finding.row else ""
        where = f"{finding.where}: " if finding.where else ""
        yield (
            finding.severity,
            f"{place}: {finding.severity} {finding.rule}: {where}{to_one_line(finding.text)}{row}",
        )


def summary(report: FileReport) -> str:
    """One line on a file."""
    shape, counts = report.shape, report.findings.counts
    share = f", {shape.learned / shape.total:.0%} of {report.unit} learned" if shape.total else ""
    found = ", ".join(f"{count} {rule}" for rule, count in counts.most_common()) or "nothing found"
    return f"{report.file}: {report.format or 'no format'}, {shape.rows} rows{share}; {found}"


def to_json(reports: Sequence[FileReport]) -> str:
    """Everything, as one JSON object."""
    value = {
        "errors": sum(r.findings.errors for r in reports),
        "files": [r.to_dict() for r in reports],
    }
    # Half surrogates are no UTF-8: they are escaped.
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return text.encode("utf-8", "backslashreplace").decode()


def to_html(reports: Sequence[FileReport]) -> str:
    """A page: for every file its counts, its plots and its findings."""
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
        parts += _plots(report)
        kept = report.findings.in_order()[:MAX_SHOWN]
        parts.append(
            table(
                ("line", "row", "rule", "where", "what"),
                [(f.line or "", f.row or "", f.rule, f.where, to_one_line(f.text)) for f in kept],
                [f.severity for f in kept],
            )
        )
        if sum(counts.values()) > len(kept):
            parts.append(paragraph(f"{sum(counts.values()) - len(kept)} more are not shown."))
    return render_page("Lint of the data", *parts)


def _plots(report: FileReport) -> list[str]:
    shape, counts = report.shape, report.findings.counts
    doubled = {rule: counts[rule] for rule in ("duplicate", "near-duplicate", "leak")}
    single = shape.rows - sum(doubled.values())
    return [
        bar_chart(f"length of a row, {report.unit}", _bins(shape.lengths)),
        bar_chart(f"length of a reply, {report.unit}", _bins(shape.reply_lengths)),
        bar_chart("replies in a row", {str(n): shape.turns[n] for n in sorted(shape.turns)[:20]}),
        bar_chart("rows", {"single": max(0, single), **doubled}),
        bar_chart(
            f"{report.unit}", {"learned": shape.learned, "context": shape.total - shape.learned}
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
