"""Writes the table of XTuner's own configs from its wheel, or checks each name against the wheel.

    pip download --no-deps xtuner==0.2.0
    python scripts/xtuner_configs.py xtuner-0.2.0-py3-none-any.whl [--check]

With --check nothing is written: every config of the table must give the settings that the wheel's file is
converted to, and the exit code is 1 when one does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from elysia.compat.xtuner import convert_config
from elysia.compat.xtuner.report import ConversionReport
from elysia.compat.xtuner.shipped_configs import TABLE, pack_configs, read_shipped_config
from elysia.core.templates import SYSTEM_TEMPLATES
from elysia.train.config.settings import Settings, build_settings


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(args.wheel) as wheel:
        wheel.extractall(folder, [n for n in wheel.namelist() if n.startswith("xtuner/configs/")])
        reports = convert_all(Path(folder) / "xtuner/configs")
    if args.check:
        return report_differences(reports)
    trained = {name: report for name, report in reports.items() if not report.reasons}
    unsupported = {n: "; ".join(map(str, r.reasons)) for n, r in reports.items() if r.reasons}
    complete_values(trained)
    TABLE.write_text(format_table(pack_configs(trained, unsupported)), encoding="utf-8")
    print(f"{len(trained)} configs, {len(unsupported)} that cannot be trained: {TABLE}")
    return 0


def convert_all(root: Path) -> dict[str, ConversionReport]:
    """{name: report} of every config below `root`, as a machine with CUDA would train it.

    Two files of one name must mean the same, since a name is all that the table knows.
    """
    reports: dict[str, ConversionReport] = {}
    for path in sorted(root.rglob("*.py")):
        if path.name == "__init__.py":
            continue
        report = convert_config(path, device="cuda")
        if path.stem in reports and reports[path.stem] != report:
            raise SystemExit(f"two configs are called {path.stem} and differ")
        reports[path.stem] = report
    return reports


def read_non_defaults(report: ConversionReport) -> dict[str, Any]:
    """The settings of a report that are not at their defaults, as plain JSON values."""
    values = build_settings(report.values, "the wheel").non_defaults()
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def complete_values(reports: dict[str, ConversionReport]) -> None:
    """Give each report a value for each setting that any of them sets."""
    non_defaults = {name: read_non_defaults(report) for name, report in reports.items()}
    names = [
        n for n in Settings.model_fields if any(n in values for values in non_defaults.values())
    ]
    fields = {n: Settings.model_fields[n] for n in names}
    defaults = {
        n: "" if field.is_required() else field.get_default(call_default_factory=True)
        for n, field in fields.items()
    }
    plain = json.loads(json.dumps(defaults))
    for name, report in reports.items():
        report.values = {**plain, **non_defaults[name]}


def format_table(table: dict[str, Any]) -> str:
    """The table as JSON with one config a line."""
    parts = []
    for key, value in table.items():
        items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
        lines = [
            ("" if name is None else f"{json.dumps(name)}: ") + json.dumps(item, ensure_ascii=False)
            for name, item in items
        ]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        parts.append(f"{json.dumps(key)}: {opening}\n" + ",\n".join(lines) + f"\n{closing}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def compare_config(name: str, report: ConversionReport) -> list[str]:
    """The settings in which the table's config of a name differs from the wheel's."""
    shipped = read_shipped_config(name, device="cuda")
    if shipped is None:
        return [] if report.reasons else ["it is not in the table"]
    ours, theirs = read_non_defaults(shipped), read_non_defaults(report)
    texts = {"evaluation_inputs"}  # questions are this project's own
    if theirs.get("evaluation_system") not in SYSTEM_TEMPLATES.values():
        texts.add("evaluation_system")  # a text written out in the config is not in the table
    return [
        f"{key}: {ours.get(key)!r}, in the wheel {theirs.get(key)!r}"
        for key in sorted({*ours, *theirs} - texts)
        if ours.get(key) != theirs.get(key)
    ]


def report_differences(reports: dict[str, ConversionReport]) -> int:
    """Print every difference; 1 when there is one."""
    faults = [f"{n}: {text}" for n, report in reports.items() for text in compare_config(n, report)]
    print("\n".join(faults) or f"all {len(reports)} configs mean what the wheel's do")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
