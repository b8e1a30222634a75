"""Writes the flat config that means what a config of XTuner's means. Knows nothing of XTuner."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from pprint import pformat
from textwrap import wrap
from typing import Any

from elysia.train.settings import Settings, settings_from
from elysia.train.xtuner.report import Report


def flat_text(report: Report, source: str, target: str) -> str:
    """The text of a flat config; its head names the command, the origin and every change.

    Only what differs from this project's defaults is written, so that a setting says something.
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
    lines += [f"{name} = {_written(value)}" for name, value in differing(report.values).items()]
    return "\n".join(lines) + "\n"


def differing(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that are not at their defaults, in the order of `Settings`."""
    settings = settings_from(values, "the config")
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if value != default:
            chosen[field.name] = value
    return chosen


def _written(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return f"[{pformat(value[0], width=96, sort_dicts=False)}]"
    return pformat(value, width=96, sort_dicts=False)


def default_target(source: Path) -> Path:
    """`<name>_flat.py` where the command is given, as copy-cfg's is `<name>_copy.py`."""
    return Path(f"{source.stem}_flat.py")
