"""What lint finds: the rules, their severity, and one finding. Knows nothing of how it is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

ERROR, WARNING = "error", "warning"
MAX_KEPT = (
    1000  # findings of one rule in one file that are kept whole; beyond it they are only counted
)

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
        """Plain values."""
        return {"severity": self.severity, **asdict(self)}


@dataclass
class FindingLog:
    """All findings of one file: every one counted, the first KEPT of a rule kept."""

    kept: list[LintFinding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, found: Iterable[LintFinding]) -> None:
        """Count findings, and keep them while there is room."""
        for finding in found:
            self.counts[finding.rule] += 1
            if self.counts[finding.rule] <= MAX_KEPT:
                self.kept.append(finding)

    @property
    def errors(self) -> int:
        """How many are errors."""
        return sum(count for rule, count in self.counts.items() if RULES[rule][0] == ERROR)

    def in_order(self) -> list[LintFinding]:
        """The kept ones by line and row; those of the whole file first."""
        return sorted(self.kept, key=lambda finding: (finding.line, finding.row))
