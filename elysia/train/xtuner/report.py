"""What reading a config of XTuner's finds: settings, named changes, reasons against, and what is
needed first. `Part` is a dict whose every key must be taken, so that nothing is silently dropped.
Knows nothing of what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elysia.train.xtuner.read import Symbol
from elysia.train.xtuner.symbols import fault, meaning

RUNS, CHANGED, REFUSED = "runs", "runs with changes", "not supported"


@dataclass
class Report:
    """The judgement of one config.

    `values` are names and values of `Settings`; `changes` maps a short key to the sentence that
    says what is different here; `reasons` are sentences why the config cannot be trained; `needs`
    are things that must be there first, such as a dataset to download.
    """

    values: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        if self.reasons:
            return REFUSED
        return CHANGED if self.changes else RUNS

    def change(self, key: str, text: str) -> None:
        self.changes.setdefault(key, text)

    def refuse(self, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)

    def need(self, what: str) -> None:
        if what not in self.needs:
            self.needs.append(what)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "status": self.status,
            "changes": self.changes,
            "reasons": self.reasons,
            "needs": self.needs,
        }


class Part:
    """A dict of the config's, at `where`; keys are taken one by one, and `done` refuses the rest."""

    def __init__(self, values: Any, where: str, report: Report) -> None:
        self.where, self.report = where, report
        self.values: dict[str, Any] = dict(values) if isinstance(values, Mapping) else {}
        if not isinstance(values, Mapping):
            report.refuse(f"{where} is {shown(values)}, and should be a dict")

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which counts as read."""
        return self.values.pop(key, default)

    def kind(self, *known: str) -> str:
        """What `type` means; a reason against the config when it is none of `known`."""
        value = self.take("type")
        found = meaning(value)
        if found not in known:
            self.report.refuse(f"{self.where}.type is {shown(value)}, which is not read here")
        return found

    def ignore(self, *keys: str) -> None:
        """Keys that change nothing of what is learned or written."""
        for key in keys:
            self.values.pop(key, None)

    def done(self) -> None:
        """Refuse what nobody took."""
        for key, value in self.values.items():
            self.report.refuse(f"{self.where}.{key} = {shown(value)} is not honoured")


def shown(value: Any) -> str:
    """A value in a sentence, shortened."""
    text = str(value) if isinstance(value, Symbol) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unknown_symbols(value: Any, report: Report) -> None:
    """Refuse every symbol of XTuner's in a tree that XTuner does not have."""
    if isinstance(value, Symbol):
        sentence = fault(value)
        if sentence:
            report.refuse(sentence.rstrip("."))
    elif isinstance(value, Mapping):
        for inner in value.values():
            unknown_symbols(inner, report)
    elif isinstance(value, list | tuple):
        for inner in value:
            unknown_symbols(inner, report)
