"""`elysia data lint`: what is wrong with dataset files, and, asked for, mended. Reads no model.

Knows the flags; how faults are found is elysia/data/lint.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import UsageError

COLOUR = {"error": "red", "warning": "yellow"}


def lint_parser() -> ArgumentParser:
    """The parser of `elysia data lint`."""
    parser = build_parser(
        "data lint",
        "FILE ... [--heldout FILE] [--fix] [--json FILE] [--html FILE]",
        "Say what is wrong with dataset files, by line and row. Exits with 1 when there are "
        "errors: what training would refuse, or should never learn.",
        lint,
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help=".json, .jsonl, .csv, .txt or .parquet")
    add("--heldout", nargs="+", default=[], metavar="FILE", help="rows that may not be trained on")
    add("--persona", metavar="CARD", help="the character's card: its names are its own")
    add("--tokenizer", metavar="DIR", help="count tokens of this model (default: characters)")
    add("--fix", action="store_true", help="mend what is safe, say each change, keep FILE.orig")
    add("--json", metavar="FILE", help="write the report as JSON; - is the terminal")
    add("--html", metavar="FILE", help="write a page with plots")
    add(
        "--limit",
        type=int,
        default=20,
        metavar="N",
        help="of a rule to print; 0: all (default: 20)",
    )
    return parser


def lint(args: Namespace) -> int:
    """Mend where asked, read, print; 1 when errors were found."""
    if args.limit < 0:
        raise UsageError(f"--limit is {args.limit}; it must be 0 (all) or more.")
    from elysia.core.files import write_atomic
    from elysia.data.lint import report as shown
    from elysia.data.lint.run import lint as read

    files = [Path(file) for file in args.files]
    if args.fix:
        mend(files)
    unit = "tokens" if args.tokenizer else "characters"
    heldout = [Path(file) for file in args.heldout]
    count = counter(args.tokenizer)
    reports = read(files, heldout, ours=names_of(args.persona), count=count, unit=unit)
    if args.json == "-":
        say(shown.as_json(reports))
    else:
        for report in reports:
            for severity, line in shown.lines(report, args.limit):
                say(paint(line, COLOUR[severity]))
            say(paint(shown.summary(report), "bold"))
    for target, text in ((args.json, shown.as_json), (args.html, shown.as_html)):
        if target and target != "-":
            write_atomic(target, text(reports))
            warn(f"Wrote {target}")
    return int(any(report.findings.errors for report in reports))


def mend(files: list[Path]) -> None:
    """Fix every file, saying each change."""
    from elysia.data.lint.fix import fix

    for file in files:
        changes = fix(file)
        for change in changes:
            warn(f"fixed {change}")
        if not changes:
            warn(f"{file}: nothing that could be mended safely")


def counter(tokenizer: str | None) -> Callable[[str], int]:
    """How long a text is: tokens of a tokenizer, or characters."""
    if tokenizer is None:
        return len
    from elysia.models.load import load_tokenizer, resolve

    found = load_tokenizer(resolve(tokenizer, "huggingface"))

    def tokens(text: str) -> int:
        plain = text.encode("utf-8", "replace").decode()
        return len(found(plain, add_special_tokens=False)["input_ids"])

    return tokens


def names_of(card: str | None) -> list[str]:
    """The names on a card that the character may call itself by."""
    if card is None:
        return []
    from elysia.core.persona import Persona

    persona = Persona.load(card)
    ours = persona.ours
    aliases = ours.get("aliases")
    more = aliases if isinstance(aliases, list) else []
    return [str(n) for n in (persona.name, persona.called, ours.get("english_name"), *more) if n]
