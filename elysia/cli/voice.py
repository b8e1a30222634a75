"""`elysia voice`: say a text, list voices, show how a text is read, bring a checkpoint.

Knows nothing of how sound is made.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from elysia.cli.output import build_parser, paint, say
from elysia.core.errors import UsageError


def explain_parser() -> ArgumentParser:
    """The parser of `elysia voice explain`."""
    parser = build_parser(
        "voice explain",
        "TEXT [--cleaner NAME]",
        "Show each step from a text to what is said: stripped, written out, languages, pinyin, "
        "symbols.",
        explain,
    )
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument(
        "--cleaner",
        default="cjke_cleaners2",
        help="chinese_cleaners, cjke_cleaners2 or pinyin (default: cjke_cleaners2)",
    )
    parser.add_argument(
        "--directions", action="store_true", help="read *actions* and （动作）, too"
    )
    return parser


def explain(args: Namespace) -> int:
    """Print the steps, one a line."""
    from elysia.voice.text.cleaners import CLEANERS
    from elysia.voice.text.explain import explain as steps_of

    if args.cleaner not in CLEANERS:
        raise UsageError(f"There is no cleaner '{args.cleaner}', only {', '.join(CLEANERS)}.")
    show_steps(steps_of(args.text, args.cleaner, directions=args.directions))
    return 0


def show_steps(steps: list[tuple[str, str]]) -> None:
    """Print what `explain` gave."""
    for name, value in steps:
        say(f"{paint(name + ':', 'cyan')} {value}")
