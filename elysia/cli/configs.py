"""`elysia list-cfg` and `copy-cfg`, about configs by name, and `check-configs` and `migrate`, about configs
written for XTuner.
"""

from __future__ import annotations

import ast
import json
import tempfile
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elysia.cli.options import add_cfg_options, parse_cfg_options
from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import ConfigError, ElysiaError, nearest

if TYPE_CHECKING:
    from elysia.compat.xtuner.report import ConversionReport


def list_cfg_parser() -> ArgumentParser:
    """The parser of `elysia list-cfg`."""
    about = (
        "List the bundled configs, then those of XTuner 0.2.0 that can be trained here, by name; with a "
        "pattern also those that cannot, and why."
    )
    parser = build_parser("list-cfg", "[-p PATTERN]", about, list_cfg)
    parser.add_argument("-p", "--pattern", default="", help="only names that contain this text")
    return parser


def copy_cfg_parser() -> ArgumentParser:
    """The parser of `elysia copy-cfg`."""
    parser = build_parser(
        "copy-cfg", "NAME DIR", "Copy a config that list-cfg shows to DIR/NAME_copy.py, to edit it.",
        copy_cfg,
    )  # fmt: skip
    parser.add_argument("config_name", metavar="NAME", help="a name that list-cfg shows")
    parser.add_argument("save_dir", metavar="DIR", help="created when it does not exist")
    return parser


def list_cfg(args: Namespace) -> int:
    """Print the names, a line each: ours, then XTuner's. A pattern that matches none is an error."""
    from elysia.compat.xtuner.shipped_configs import list_shipped_configs, list_unsupported_configs
    from elysia.core.paths import list_bundled_configs

    pattern = args.pattern.lower()
    own = sorted(list_bundled_configs())
    shipped = [name for name in list_shipped_configs() if name not in own]
    names = [name for name in [*own, *shipped] if pattern in name.lower()]
    unsupported = list_unsupported_configs()
    matching = {name: why for name, why in unsupported.items() if pattern in name.lower()}
    if not names and not matching:
        raise ConfigError("cli.no_config_named_like", pattern=args.pattern)
    for name in names:
        say(name)
    if not pattern:
        say(
            paint(
                f"\n{len(matching)} more of XTuner's cannot be trained here; -p shows why.", "dim"
            )
        )
    elif matching:
        say(paint("\nXTuner's that cannot be trained here:", "bold"))
        for name, why in matching.items():
            say(f"{name}: {why}")
    return 0


def copy_cfg(args: Namespace) -> int:
    """Copy one config; an existing file is never overwritten."""
    from elysia.core.paths import list_bundled_configs

    configs = list_bundled_configs()
    name = args.config_name.removeprefix("configs/").removesuffix(".py")
    folder = Path(args.save_dir)
    target = folder / f"{name}_copy.py"
    text = with_absolute_base(configs[name]) if name in configs else render_shipped(name, target)
    if folder.exists() and not folder.is_dir():
        raise ConfigError("core.target_is_file", path=folder)
    if target.exists():
        raise ConfigError("cli.config_copy_exists", path=target)
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    say(f"Copied to {target}")
    return 0


def render_shipped(name: str, target: Path) -> str:
    """The flat config of one that ships with XTuner, for the file `target`; ConfigError for a name that
    is none of them or cannot be trained."""
    from elysia.compat.xtuner import shipped_configs
    from elysia.compat.xtuner.report import render_flat_config
    from elysia.core.paths import list_bundled_configs

    report = shipped_configs.read_shipped_config(name)
    if report is None:
        if reason := shipped_configs.list_unsupported_configs().get(name):
            raise ConfigError("cli.config_not_trainable", path=name, reasons=[reason])
        known = [*list_bundled_configs(), *shipped_configs.list_shipped_configs()]
        raise ConfigError("cli.no_such_bundled_config", name=name, hint=nearest(name, known))
    from elysia.train.config.settings import build_settings

    values = build_settings(report.values, name).non_defaults()
    return render_flat_config(report, values, f"XTuner 0.2.0's {name}", str(target))


def with_absolute_base(config: Path) -> str:
    """The text of `config` with an absolute path in `_base_`, so that the copy works in any folder."""
    text = config.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for node in ast.parse(text).body:
        if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_base_"):
            continue
        value = ast.literal_eval(node.value)
        bases = [value] if isinstance(value, str) else list(value)
        absolute = [str((config.parent / base).resolve()) for base in bases]
        shown = absolute[0] if isinstance(value, str) else absolute
        lines[node.lineno - 1 : node.end_lineno] = [f"_base_ = {shown!r}\n"]
        break
    return "".join(lines)


FAILED = "does not run"  # the status of a file without a report; reports have their own


class CheckedConfig(NamedTuple):
    """The result for one file. `built` is why its build failed, "" if it did not, None if none was tried."""

    name: str
    report: ConversionReport | None
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
        "Check every XTuner config in a folder: it runs, runs with changes (each is named), or is not "
        "supported (and why).",
        check_configs,
    )
    parser.add_argument("folder", metavar="DIR", help="a folder with its subfolders, or a file")
    parser.add_argument(
        "--build",
        action="store_true",
        help="also build each training, with a tiny model and three rows in place of its own",
    )
    _add_device(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def migrate_parser() -> ArgumentParser:
    """The parser of `elysia migrate`."""
    parser = build_parser(
        "migrate",
        "CONFIG [-o FILE]",
        "Write the flat settings that are equivalent to an XTuner config, and list every change.",
        migrate,
    )
    parser.add_argument("config", help="a config file for XTuner")
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
    """Print a line for each config and what the short names of changes mean; 1 when any fails."""
    root = Path(args.folder)
    files = list_config_files(root)
    results = [check_config(file, root, args.device) for file in files]
    if args.build:
        with tempfile.TemporaryDirectory() as folder:
            results = [
                try_build(result, file, Path(folder))
                for result, file in zip(results, files, strict=True)
            ]
    if args.json:
        say(json.dumps({"configs": [to_json(r) for r in results], "counts": count_statuses(results)},
                       ensure_ascii=False, indent=1))  # fmt: skip
    else:
        show_results(results)
    return int(any(result.report is None or result.built for result in results))


def list_config_files(root: Path) -> list[Path]:
    """`root` itself, or the Python files below it that are not a package's `__init__`."""
    if root.is_file():
        return [root]
    files = sorted(p for p in root.rglob("*.py") if p.name != "__init__.py")
    if not files:
        raise ConfigError("cli.no_configs_in_folder", path=root)
    return files


def check_config(file: Path, root: Path, device: str) -> CheckedConfig:
    """What the conversion of one file reports."""
    from elysia.compat.xtuner.convert import convert_config

    name = str(file.relative_to(root)) if root.is_dir() else str(file)
    try:
        return CheckedConfig(name, convert_config(file, device=device))
    except ConfigError as error:
        return CheckedConfig(name, None, str(error))


def try_build(result: CheckedConfig, file: Path, folder: Path) -> CheckedConfig:
    """`result` with the outcome of building it."""
    import logging

    from elysia.train.verify.smoke_model import build_smoke_run

    if result.report is None or result.report.reasons:
        return result
    logging.disable(logging.WARNING)  # every run logs its settings, and there may be hundreds
    try:
        build_smoke_run(result.report.values, folder, file.stem)
        fault = ""
    except ElysiaError as error:
        fault = str(error)
    except Exception as error:  # of any type: whether it can be built is the question
        fault = f"{type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
    return result._replace(built=fault)


def to_json(result: CheckedConfig) -> dict[str, Any]:
    """One config as plain values."""
    failure = {"status": FAILED, "fault": result.fault}
    fields = result.report.to_dict() if result.report else failure
    build = {} if result.built is None else {"built": not result.built, "fault": result.built}
    return {"config": result.name, **fields, **build}


def count_statuses(results: list[CheckedConfig]) -> dict[str, int]:
    """How many have each status, and how many could be built."""
    counts = dict(Counter(result.status for result in results))
    tried = [result for result in results if result.built is not None]
    built = sum(not result.built for result in tried)
    return counts | ({"built": built, "tried": len(tried)} if tried else {})


def show_results(results: list[CheckedConfig]) -> None:
    """A line for each config, then the meaning of each change's name, and the counts."""
    colours = {"runs": "green", "runs with changes": "green", "not supported": "yellow"}
    meanings: dict[str, Counter[str]] = {}
    for result in results:
        report = result.report
        summary = result.fault if report is None else "; ".join(map(str, report.reasons))
        if report and not report.reasons:
            summary = ", ".join(report.changes)
            for key, text in report.changes.items():
                meanings.setdefault(key, Counter())[str(text)] += 1
        status = paint(f"{result.status:<18}", colours.get(result.status, "red"))
        say(f"{status}{result.name}: {summary}")
        if report and not report.reasons and report.needs:
            say(f"{'':<18}needs {'; '.join(map(str, report.needs))}")
        if result.built:
            say(f"{'':<18}{paint('does not build', 'red')}: {result.built}")
    if meanings:
        say(f"\n{paint('Changes', 'bold')}")
    for key, texts in meanings.items():
        text, _ = texts.most_common(1)[0]
        say(f"  {key} ({sum(texts.values())}): {text}")
    say("\n" + ", ".join(f"{count} {what}" for what, count in count_statuses(results).items()))


def migrate(args: Namespace) -> int:
    """Write the flat config. A config that cannot be trained is an error that says why."""
    options = parse_cfg_options(args.cfg_options)
    from elysia.compat.xtuner import loader
    from elysia.compat.xtuner.convert import convert_config
    from elysia.compat.xtuner.report import default_flat_path, render_flat_config
    from elysia.core.paths import find_config
    from elysia.train.config.settings import Settings, build_settings

    source = find_config(args.config)
    tree = loader.config_to_tree(loader.load_config_file(source))
    if not loader.is_xtuner_config(tree) or isinstance(tree.get("settings"), dict):
        raise ConfigError("cli.config_already_flat", path=source)
    names = list(Settings.model_fields)
    report = convert_config(source, options, args.device, setting_names=names)
    if report.reasons:
        raise ConfigError("cli.config_not_trainable", path=source, reasons=list(report.reasons))
    target = Path(args.output) if args.output else default_flat_path(source)
    values = build_settings(report.values, "the config").non_defaults()
    name = "FILE" if args.output == "-" else str(target)
    text = render_flat_config(report, values, str(source), name)
    if args.output == "-":
        say(text.rstrip("\n"))
        return 0
    if target.exists():
        raise ConfigError("cli.migrate_target_exists", path=target)
    target.write_text(text, encoding="utf-8")
    for change in report.changes.values():
        say(f"- {change}")
    for need in report.needs:
        warn(f"needed first: {need}")
    say(f"Wrote {target}")
    return 0
