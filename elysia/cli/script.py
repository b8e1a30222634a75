"""`elysia data script`: a script becomes rows in which one character answers, and drafts of a card.

Knows the flags and what is written where; the work is elysia/data/script.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elysia.cli.output import build_parser, say
from elysia.core.errors import DataError, UsageError


def script_parser() -> ArgumentParser:
    """The parser of `elysia data script`."""
    parser = build_parser(
        "data script",
        "SCRIPT --character NAME --output DIR [options]",
        "Make training rows of a script (play, subtitles, novel, chat log): scene by scene, the "
        "character answers. Writes train.jsonl, heldout.jsonl, card.json, lorebook.json, "
        "left_out.jsonl and report.json.",
        script,
    )
    add = parser.add_argument
    add("script", metavar="SCRIPT", help=".txt, .md, .srt, .ass, .vtt, .json, .jsonl or .csv")
    add("--character", required=True, metavar="NAME", help="who answers")
    add(
        "--alias", action="append", default=[], metavar="NAME", help="another name; may be repeated"
    )
    add("--output", required=True, metavar="DIR", help="a folder that is new, or written before")
    add("--layout", choices=["play", "subtitles", "novel", "chat"], help="default: by the file")
    add(
        "--encoding",
        default="",
        metavar="NAME",
        help="default: UTF-8, UTF-16, GBK or Big5 by sight",
    )
    add(
        "--directions", choices=["keep", "drop"], default="keep", help="in brackets (default: keep)"
    )
    add("--names", choices=["auto", "always", "never"], default="auto",
        help="say who speaks to the character (default: auto, where several do)")  # fmt: skip
    add("--max-turns", type=int, default=0, metavar="N", help="replies of a row; 0: a whole scene")
    add("--gap", type=float, default=0.0, metavar="S",
        help="seconds of silence that end a scene (default: subtitles 8, chat 1800)")  # fmt: skip
    add("--system", default="", metavar="TEXT", help="a system text before every row")
    add("--heldout", type=float, default=0.1, metavar="SHARE", help="of scenes (default: 0.1)")
    add("--seed", type=int, default=0, help="of the choice of held-out scenes (default: 0)")
    return parser


def script(args: Namespace) -> int:
    """Read, compile, write the folder, and print the account."""
    if not 0 <= args.heldout < 1:
        raise UsageError(f"--heldout is {args.heldout}; it is a share, 0 or more and below 1.")
    if args.max_turns < 0 or args.gap < 0:
        raise UsageError("--max-turns and --gap are 0 or more.")
    from elysia.core.files import staged_folder
    from elysia.data.script import compile, draft
    from elysia.data.script.read import read_script

    path, aliases = Path(args.script), tuple(args.alias)
    choices = compile.Choices(
        args.character, aliases, args.directions, args.names, args.max_turns, args.system,
        args.heldout, args.seed,
    )  # fmt: skip
    known = (args.character, *aliases)
    lines, _total = read_script(path, args.layout or "", args.encoding, args.gap, known)
    try:
        made = compile.compile_lines(lines, choices, path.name)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    account = {"script": path.name, "character": args.character, **made.account()}
    held = {row["scene"] for row in made.heldout}
    seen = [line for line in lines if line.scene not in held]
    with staged_folder(args.output, DataError, replaces=made_before) as folder:
        write_lines(folder / "train.jsonl", made.train)
        write_lines(folder / "heldout.jsonl", made.heldout)
        write_lines(folder / "left_out.jsonl", left_out(lines, made.left_out))
        write(folder / "card.json", draft.card(seen, made.train, choices, path.name))
        write(folder / "lorebook.json", draft.lorebook(seen, choices))
        write(folder / "report.json", account)
    say(f"{account['lines']} lines = {account['used']} used + {len(made.left_out)} left out")
    for reason, count in account["left_out"].items():
        say(f"{count:>7}  {reason}")
    say(f"{account['scenes']} scenes, {account['scenes_with_rows']} with rows")
    say(f"{len(made.train)} rows to train on, {len(made.heldout)} held out ({len(held)} scenes)")
    say(f"Wrote {args.output}")
    return 0


def made_before(folder: Path) -> bool:
    """Whether an earlier run wrote this folder."""
    return (folder / "report.json").exists() and (folder / "left_out.jsonl").exists()


def left_out(lines: Iterable[Any], reasons: dict[int, str]) -> Iterable[dict[str, Any]]:
    """Every line that is in no row: number, reason, text."""
    for line in lines:
        for number in line.numbers:
            if number in reasons:
                yield {
                    "line": number,
                    "scene": line.scene,
                    "reason": reasons[number],
                    "text": line.text,
                }


def write(path: Path, value: Any) -> None:
    """One JSON object."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """A row a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
