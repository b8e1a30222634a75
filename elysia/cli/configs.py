"""`elysia list-cfg` and `elysia copy-cfg`: the configs that ship with the project. No config is
executed.
"""

from __future__ import annotations

import ast
from argparse import ArgumentParser, Namespace
from pathlib import Path

from elysia.cli.output import build_parser, say
from elysia.core.errors import ConfigError, nearest


def list_cfg_parser() -> ArgumentParser:
    """The parser of `elysia list-cfg`."""
    parser = build_parser("list-cfg", "[-p PATTERN]", "List the bundled configs.", list_cfg)
    parser.add_argument("-p", "--pattern", default="", help="only names that contain this text")
    return parser


def copy_cfg_parser() -> ArgumentParser:
    """The parser of `elysia copy-cfg`."""
    parser = build_parser(
        "copy-cfg", "NAME DIR", "Copy a bundled config to DIR/NAME_copy.py, to edit it.", copy_cfg
    )
    parser.add_argument("config_name", metavar="NAME", help="a name that list-cfg shows")
    parser.add_argument("save_dir", metavar="DIR", help="made when absent")
    return parser


def list_cfg(args: Namespace) -> int:
    """Print the names, one a line; a pattern that finds none is an error."""
    from elysia.train.bundled import bundled_configs

    names = [name for name in sorted(bundled_configs()) if args.pattern.lower() in name.lower()]
    for name in names:
        say(name)
    if not names:
        what = f" has '{args.pattern}' in its name" if args.pattern else " was found"
        raise ConfigError(f"No bundled config{what}.")
    return 0


def copy_cfg(args: Namespace) -> int:
    """Copy one config; an existing file is never overwritten."""
    from elysia.train.bundled import bundled_configs

    configs = bundled_configs()
    name = args.config_name.removeprefix("configs/").removesuffix(".py")
    if name not in configs:
        raise ConfigError(
            f"There is no bundled config '{args.config_name}'.{nearest(name, configs)} "
            "'elysia list-cfg' lists them."
        )
    folder = Path(args.save_dir)
    target = folder / f"{configs[name].stem}_copy.py"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; copy-cfg wants a folder.")
    if target.exists():
        raise ConfigError(f"{target} exists already. Move it away, or copy to another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(relocated(configs[name]), encoding="utf-8")
    say(f"Copied to {target}")
    return 0


def relocated(config: Path) -> str:
    """The text of `config` with its relative `_base_` made absolute: it means the same anywhere."""
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
