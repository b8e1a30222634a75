"""`elysia help`, whose Markdown form is docs/cli.md, and `elysia version`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from elysia import __version__
from elysia.cli.output import build_parser, say


def help_parser() -> ArgumentParser:
    """The parser of `elysia help`."""
    parser = build_parser(
        "help", "[VERB] [--markdown]", "Show the verbs, or one verb's help.", show_help
    )
    parser.add_argument("verb", nargs="*", help="a verb, such as train or convert merge")
    parser.add_argument(
        "--markdown", action="store_true", help="every verb's help as one page (docs/cli.md)"
    )
    return parser


def version_parser() -> ArgumentParser:
    """The parser of `elysia version`."""
    return build_parser("version", "", "Print the version.", show_version)


def show_version(args: Namespace) -> int:
    """Print the version."""
    say(__version__)
    return 0


def show_help(args: Namespace) -> int:
    """Print the overview, one verb's help, or all of them as a page."""
    from elysia.cli import GROUPS, VERBS, build_verb_parser, find_verb

    if args.markdown:
        say(render_markdown(), end="")
    elif not args.verb:
        say(render_overview(VERBS))
    elif len(args.verb) == 1 and args.verb[0] in GROUPS:
        group = args.verb[0] + " "
        members = {verb: entry for verb, entry in VERBS.items() if verb.startswith(group)}
        say(render_overview(members))
    else:
        say(build_verb_parser(find_verb(args.verb)[0]).format_help(), end="")
    return 0


def render_overview(verbs: dict[str, tuple[str, str]]) -> str:
    """The usage line and a line for each verb."""
    width = max(map(len, verbs)) + 2
    lines = [f"  {verb:{width}}{summary}" for verb, (_, summary) in verbs.items()]
    head = ["usage: elysia VERB ...    (xtuner VERB ... is the same)", ""]
    return "\n".join([*head, *lines, "", "'elysia VERB --help' shows a verb's options."])


def render_markdown() -> str:
    """The page docs/cli.md: the overview and the help of every verb."""
    from elysia.cli import VERBS, build_verb_parser

    page = [
        "# Command line",
        "",
        "Written by `elysia help --markdown`; do not edit. `xtuner` is the same program.",
        "",
        "```",
        render_overview(VERBS),
        "```",
    ]
    for verb in VERBS:
        text = build_verb_parser(verb).format_help().rstrip()
        page += ["", f"## {verb}", "", "```", text, "```"]
    return "\n".join(page) + "\n"
