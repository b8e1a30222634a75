"""`elysia check-configs` and `elysia migrate`: configs written for XTuner.

Prints judgements; how a config is judged is elysia.train.xtuner's work.
"""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elysia.cli.options import add_cfg_options, parse_cfg_options
from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import ConfigError, ElysiaError

if TYPE_CHECKING:
    from elysia.train.xtuner.report import Report

FAILED = "does not run"  # beside the statuses of a judgement


class Judged(NamedTuple):
    """One file and what was found; `built` is None where nothing was built, "" when it was."""

    name: str
    report: Report | None
    fault: str = ""
    built: str | None = None

    @property
    def status(self) -> str:
        return self.report.status if self.report else FAILED


def check_configs_parser() -> ArgumentParser:
    """The parser of `elysia check-configs`."""
    parser = build_parser(
        "check-configs",
        "DIR [--build] [--json]",
        "Judge every config of XTuner's in a folder: it runs, runs with changes (each is named), "
        "or is not supported (and why).",
        check_configs,
    )
    parser.add_argument("folder", metavar="DIR", help="a folder, searched to the bottom, or a file")
    parser.add_argument(
        "--build",
        action="store_true",
        help="also build what each would train, with a tiny model and three rows in place of its own",
    )
    _add_device(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def migrate_parser() -> ArgumentParser:
    """The parser of `elysia migrate`."""
    parser = build_parser(
        "migrate",
        "CONFIG [-o FILE]",
        "Write the flat settings that mean what a config of XTuner's means, and list every change.",
        migrate,
    )
    parser.add_argument("config", help="a config file of XTuner's")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="default: <config>_flat.py here; - is the terminal"
    )
    _add_device(parser)
    add_cfg_options(parser)
    return parser


def _add_device(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="what the configs would run on (default: what is here)",
    )


def check_configs(args: Namespace) -> int:
    """Print a line a config and what the short names in it mean; 1 when a file does not run or
    does not build."""
    root = Path(args.folder)
    files = config_files(root)
    results = [judged(file, root, args.device) for file in files]
    if args.build:
        with tempfile.TemporaryDirectory() as folder:
            results = [
                built(result, file, Path(folder))
                for result, file in zip(results, files, strict=True)
            ]
    if args.json:
        say(json.dumps({"configs": [as_json(r) for r in results], "counts": counts(results)},
                       ensure_ascii=False, indent=1))  # fmt: skip
    else:
        show(results)
    return int(any(result.report is None or result.built for result in results))


def config_files(root: Path) -> list[Path]:
    """The Python files of a folder, to the bottom, that are no package's `__init__`."""
    if root.is_file():
        return [root]
    files = sorted(p for p in root.rglob("*.py") if p.name != "__init__.py")
    if not files:
        raise ConfigError(f"{root} is no folder with configs in it: no .py file was found.")
    return files


def judged(file: Path, root: Path, device: str) -> Judged:
    """The judgement of one file."""
    from elysia.train.xtuner.judge import judge

    name = str(file.relative_to(root)) if root.is_dir() else str(file)
    try:
        return Judged(name, judge(file, device=device))
    except ConfigError as error:
        return Judged(name, None, str(error))


def built(result: Judged, file: Path, folder: Path) -> Judged:
    """`result`, with what building it gave."""
    import logging

    from elysia.train.xtuner.standin import build

    if result.report is None or result.report.reasons:
        return result
    logging.disable(logging.WARNING)  # five hundred runs would each introduce themselves
    try:
        build(result.report.values, folder, file.stem)
        fault = ""
    except ElysiaError as error:
        fault = str(error)
    except Exception as error:  # any kind, since it is the building that is tried
        fault = f"{type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
    return result._replace(built=fault)


def as_json(result: Judged) -> dict[str, Any]:
    """One config as plain values."""
    found = result.report.to_dict() if result.report else {"status": FAILED, "fault": result.fault}
    told = {} if result.built is None else {"built": not result.built, "fault": result.built}
    return {"config": result.name, **found, **told}


def counts(results: list[Judged]) -> dict[str, int]:
    """How many of each status, and how many were built."""
    found = dict(Counter(result.status for result in results))
    tried = [result for result in results if result.built is not None]
    return found | (
        {"built": sum(not r.built for r in tried), "tried": len(tried)} if tried else {}
    )


def show(results: list[Judged]) -> None:
    """A line a config; then what the changes' names mean, and the counts."""
    colours = {"runs": "green", "runs with changes": "green", "not supported": "yellow"}
    meanings: dict[str, Counter[str]] = {}
    for result in results:
        report = result.report
        told = result.fault if report is None else "; ".join(report.reasons)
        if report and not report.reasons:
            told = ", ".join(report.changes)
            for key, text in report.changes.items():
                meanings.setdefault(key, Counter())[text] += 1
        say(
            f"{paint(f'{result.status:<18}', colours.get(result.status, 'red'))}{result.name}: {told}"
        )
        if report and not report.reasons and report.needs:
            say(f"{'':<18}needs {'; '.join(report.needs)}")
        if result.built:
            say(f"{'':<18}{paint('does not build', 'red')}: {result.built}")
    if meanings:
        say(f"\n{paint('Changes', 'bold')}")
    for key, texts in meanings.items():
        text, _ = texts.most_common(1)[0]
        say(f"  {key} ({sum(texts.values())}): {text}")
    say("\n" + ", ".join(f"{count} {what}" for what, count in counts(results).items()))


def migrate(args: Namespace) -> int:
    """Write the flat config; a config that cannot be trained is an error that says why."""
    options = parse_cfg_options(args.cfg_options)
    from elysia.train.bundled import find_config
    from elysia.train.xtuner import read
    from elysia.train.xtuner.judge import judge
    from elysia.train.xtuner.migrate import default_target, flat_text

    source = find_config(args.config)
    tree = read.tree_of(read.load(source))
    if not read.is_whole(tree) or isinstance(tree.get("settings"), dict):
        raise ConfigError(f"{source} holds flat settings already: there is nothing to migrate.")
    report = judge(source, options, args.device)
    if report.reasons:
        raise ConfigError(f"{source} cannot be trained here: {'; '.join(report.reasons)}.")
    target = Path(args.output) if args.output else default_target(source)
    text = flat_text(report, str(source), "FILE" if args.output == "-" else str(target))
    if args.output == "-":
        say(text.rstrip("\n"))
        return 0
    if target.exists():
        raise ConfigError(f"{target} exists already. Move it away, or name another with -o.")
    target.write_text(text, encoding="utf-8")
    for change in report.changes.values():
        say(f"- {change}")
    for need in report.needs:
        warn(f"needed first: {need}")
    say(f"Wrote {target}")
    return 0
