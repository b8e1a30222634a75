"""What reading a config of XTuner's finds: settings, named changes, reasons against, and what is
needed first. `ConfigNode` is a dict whose every key must be taken, so that nothing is silently dropped.
Knows nothing of what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pprint import pformat
from textwrap import wrap
from typing import Any

from elysia.compat.xtuner.loader import ConfigSymbol
from elysia.compat.xtuner.symbols import find_symbol_error, short_name

RUNS, CHANGED, REFUSED = "runs", "runs with changes", "not supported"


@dataclass
class ConversionReport:
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


class ConfigNode:
    """A dict of the config's, at `where`; keys are taken one by one, and `done` refuses the rest."""

    def __init__(self, values: Any, where: str, report: ConversionReport) -> None:
        self.where, self.report = where, report
        self.values: dict[str, Any] = dict(values) if isinstance(values, Mapping) else {}
        if not isinstance(values, Mapping):
            report.refuse(f"{where} is {shorten_repr(values)}, and should be a dict")

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which counts as read."""
        return self.values.pop(key, default)

    def kind(self, *known: str) -> str:
        """What `type` means; a reason against the config when it is none of `known`."""
        value = self.take("type")
        found = short_name(value)
        if found not in known:
            self.report.refuse(
                f"{self.where}.type is {shorten_repr(value)}, which is not read here"
            )
        return found

    def ignore(self, *keys: str) -> None:
        """Keys that change nothing of what is learned or written."""
        for key in keys:
            self.values.pop(key, None)

    def done(self) -> None:
        """Refuse what nobody took."""
        for key, value in self.values.items():
            self.report.refuse(f"{self.where}.{key} = {shorten_repr(value)} is not honoured")


def shorten_repr(value: Any) -> str:
    """A value in a sentence, shortened."""
    text = str(value) if isinstance(value, ConfigSymbol) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse_unknown_symbols(value: Any, report: ConversionReport) -> None:
    """Refuse every symbol of XTuner's in a tree that XTuner does not have."""
    if isinstance(value, ConfigSymbol):
        sentence = find_symbol_error(value)
        if sentence:
            report.refuse(sentence.rstrip("."))
    elif isinstance(value, Mapping):
        for inner in value.values():
            refuse_unknown_symbols(inner, report)
    elif isinstance(value, list | tuple):
        for inner in value:
            refuse_unknown_symbols(inner, report)


def render_flat_config(
    report: ConversionReport, values: Mapping[str, Any], source: str, target: str
) -> str:
    """The text of a flat config of `values`; its head names the command, the origin and every change.

    values: settings by name, those at their defaults left out, so that each line says something.
    """
    lines = [f"# xtuner train {target}", f"# From {source}."]
    for title, texts in (("What is different from XTuner here:", [*report.changes.values()]),
                         ("Needed first:", report.needs)):  # fmt: skip
        if texts:
            lines += ["#", f"# {title}"]
        for text in texts:
            first, *rest = wrap(f"{text}.", 96, break_long_words=False, break_on_hyphens=False)
            lines += [f"# - {first}", *(f"#   {line}" for line in rest)]
    lines.append("")
    lines += [f"{name} = {_format_value(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _format_value(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return f"[{pformat(value[0], width=96, sort_dicts=False)}]"
    return pformat(value, width=96, sort_dicts=False)


def default_flat_path(source: Path) -> Path:
    """`<name>_flat.py` where the command is given, as copy-cfg's is `<name>_copy.py`."""
    return Path(f"{source.stem}_flat.py")
