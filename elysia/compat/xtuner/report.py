"""The report of a conversion: settings, named changes, reasons against training, and what is needed first.

`ConfigNode` wraps a dict of the config whose every key must be taken, so that nothing is silently dropped.
`render_flat_config` writes a report's settings as a flat config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from pprint import pformat
from textwrap import wrap
from typing import Any

from elysia.compat.xtuner.loader import ConfigSymbol
from elysia.compat.xtuner.symbols import find_symbol_error, short_name


class ConversionStatus(StrEnum):
    """Whether a config can be trained here. The values are stored in reports of `check-configs --json`."""

    RUNS = "runs"
    CHANGED = "runs with changes"
    REFUSED = "not supported"


@dataclass
class ConversionReport:
    """What became of one config.

    `values`: settings by name. `changes`: by a short key, what training here does otherwise than XTuner.
    `reasons`: why the config cannot be trained. `needs`: what must be there first, such as a dataset to
    download.
    """

    values: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)

    @property
    def status(self) -> ConversionStatus:
        if self.reasons:
            return ConversionStatus.REFUSED
        return ConversionStatus.CHANGED if self.changes else ConversionStatus.RUNS

    def change(self, key: str, text: str) -> None:
        """Note a difference from XTuner; the first sentence of a key stands."""
        self.changes.setdefault(key, text)

    def refuse(self, reason: str) -> None:
        """Note why the config cannot be trained."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def need(self, item: str) -> None:
        """Note what must be there before training."""
        if item not in self.needs:
            self.needs.append(item)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "status": self.status,
            "changes": self.changes,
            "reasons": self.reasons,
            "needs": self.needs,
        }


class ConfigNode:
    """A dict of the config at the dotted place `where`: keys are taken one by one, and `refuse_rest` makes
    a reason of every key that is left."""

    def __init__(self, values: Any, where: str, report: ConversionReport) -> None:
        self.where, self.report = where, report
        self.values: dict[str, Any] = dict(values) if isinstance(values, Mapping) else {}
        if not isinstance(values, Mapping):
            report.refuse(f"{where} is {shorten_repr(values)}, and should be a dict")

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which counts as read."""
        return self.values.pop(key, default)

    def read_type(self, *known: str) -> str:
        """The short name of `type`; a reason against the config when it is none of `known`."""
        value = self.take("type")
        name = short_name(value)
        if name not in known:
            self.report.refuse(
                f"{self.where}.type is {shorten_repr(value)}, which is not read here"
            )
        return name

    def ignore(self, *keys: str) -> None:
        """Drop keys that change nothing of what is learned or written."""
        for key in keys:
            self.values.pop(key, None)

    def refuse_rest(self) -> None:
        """Refuse the keys that nobody took."""
        for key, value in self.values.items():
            self.report.refuse(f"{self.where}.{key} = {shorten_repr(value)} is not honoured")


def shorten_repr(value: Any) -> str:
    """A value for a sentence, of 60 characters at most."""
    text = str(value) if isinstance(value, ConfigSymbol) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse_unknown_symbols(value: Any, report: ConversionReport) -> None:
    """Refuse every name in a tree that is said to be XTuner's and is not in XTuner."""
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
    """`<name>_flat.py` in the current folder."""
    return Path(f"{source.stem}_flat.py")
