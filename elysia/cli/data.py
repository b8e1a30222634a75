"""`elysia data script`: a script becomes rows in which one character answers, and drafts of a card.

Knows the flags and what is written where; the work is elysia/data/script.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from elysia.data.synthesis.scenario_prompts import ScenarioPrompt


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
    from elysia.data.script import character_draft, compile_rows
    from elysia.data.script.script_reader import read_script

    path, aliases = Path(args.script), tuple(args.alias)
    choices = compile_rows.CompileOptions(
        args.character, aliases, args.directions, args.names, args.max_turns, args.system,
        args.heldout, args.seed,
    )  # fmt: skip
    known = (args.character, *aliases)
    lines, _total = read_script(path, args.layout or "", args.encoding, args.gap, known)
    try:
        made = compile_rows.compile_lines(lines, choices, path.name)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    account = {"script": path.name, "character": args.character, **made.account()}
    held = {row["scene"] for row in made.heldout}
    seen = [line for line in lines if line.scene not in held]
    with staged_folder(args.output, DataError, replaces=is_earlier_output) as folder:
        write_jsonl(folder / "train.jsonl", made.train)
        write_jsonl(folder / "heldout.jsonl", made.heldout)
        write_jsonl(folder / "left_out.jsonl", iter_left_out(lines, made.left_out))
        write_json(
            folder / "card.json", character_draft.draft_card(seen, made.train, choices, path.name)
        )
        write_json(folder / "lorebook.json", character_draft.draft_lorebook(seen, choices))
        write_json(folder / "report.json", account)
    say(f"{account['lines']} lines = {account['used']} used + {len(made.left_out)} left out")
    for reason, count in account["left_out"].items():
        say(f"{count:>7}  {reason}")
    say(f"{account['scenes']} scenes, {account['scenes_with_rows']} with rows")
    say(f"{len(made.train)} rows to train on, {len(made.heldout)} held out ({len(held)} scenes)")
    say(f"Wrote {args.output}")
    return 0


def is_earlier_output(folder: Path) -> bool:
    """Whether an earlier run wrote this folder."""
    return (folder / "report.json").exists() and (folder / "left_out.jsonl").exists()


def iter_left_out(lines: Iterable[Any], reasons: dict[int, str]) -> Iterable[dict[str, Any]]:
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


def write_json(path: Path, value: Any) -> None:
    """One JSON object."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """A row a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def generate_parser() -> ArgumentParser:
    """The parser of `elysia data generate`."""
    parser = build_parser(
        "data generate",
        "CARD --base-url URL --model NAME --output FILE [options]",
        "Have a model write dialogues of a character over a grid of situations. Answers are kept "
        "beside the output: run it again to go on where it stopped.",
        generate,
    )
    add = parser.add_argument
    add("card", metavar="CARD", help="the character's card, JSON")
    add("--base-url", required=True, metavar="URL", help="such as http://127.0.0.1:8000/v1")
    add("--model", required=True, metavar="NAME", help="as the endpoint calls it")
    add(
        "--output", required=True, metavar="FILE", help="the rows (.jsonl), written anew at the end"
    )
    add("--count", type=int, default=100, metavar="N", help="dialogues to ask for (default: 100)")
    add("--situations", metavar="FILE", help="a JSON object of lists; all combinations are asked")
    add("--key-env", default="OPENAI_API_KEY", metavar="NAME",
        help="the environment variable that holds the key (default: OPENAI_API_KEY)")  # fmt: skip
    add("--concurrency", type=int, default=4, metavar="N", help="requests at a time (default: 4)")
    add("--per-minute", type=float, default=0.0, metavar="N", help="requests a minute; 0: no limit")
    add(
        "--budget",
        type=int,
        default=0,
        metavar="TOKENS",
        help="in and out, of all runs; 0: no limit",
    )
    add("--retries", type=int, default=5, metavar="N", help="of one request (default: 5)")
    add("--timeout", type=float, default=120.0, metavar="S", help="of one request (default: 120)")
    add("--max-tokens", type=int, default=1500, metavar="N", help="of one answer (default: 1500)")
    add("--temperature", type=float, default=1.0, metavar="T", help="default: 1.0")
    add("--price", type=float, nargs=2, default=(0.0, 0.0), metavar=("IN", "OUT"),
        help="of a million tokens, for the estimate of --dry-run")  # fmt: skip
    add("--seed", type=int, default=0, help="of the order of situations (default: 0)")
    add("--dry-run", action="store_true", help="show prompts and cost; ask nothing")
    return parser


def generate(args: Namespace) -> int:
    """Ask what is missing, then write every row anew; 1 when some were not asked or failed."""
    if min(args.count, args.concurrency, args.max_tokens) < 1 or args.timeout <= 0:
        raise UsageError("--count, --concurrency, --max-tokens and --timeout are above 0.")
    if min(args.per_minute, args.budget, args.retries, args.temperature) < 0:
        raise UsageError("--per-minute, --budget, --retries and --temperature are 0 or more.")
    from elysia.core.files import write_atomic
    from elysia.core.persona import Persona
    from elysia.data.synthesis.answer_filter import build_rows
    from elysia.data.synthesis.completion_client import CompletionClient, RequestLimits
    from elysia.data.synthesis.scenario_prompts import GRID, build_prompts, load_grid

    persona = Persona.load(args.card)
    grid = load_grid(Path(args.situations)) if args.situations else GRID
    wanted = build_prompts(persona, args.count, grid, args.seed)
    if args.dry_run:
        return show_dry_run(args, wanted)
    output = Path(args.output)
    limits = RequestLimits(args.concurrency, args.per_minute, args.budget, args.retries, args.timeout,
                    args.max_tokens)  # fmt: skip
    folder = output.with_name(output.name + ".answers")
    key = os.environ.get(args.key_env, "")
    endpoint = CompletionClient(args.base_url, args.model, key, folder, limits, args.temperature)
    spent = endpoint.ask(wanted)
    host = urlsplit(args.base_url).hostname or ""
    rows, reasons = build_rows(
        wanted,
        endpoint.load_answer,
        card=persona.name,
        host=host,
        ours=load_character_names(args.card),
    )
    write_atomic(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    say(f"{spent.cached} answers were kept, {spent.requests} requests, {spent.retried} of them again")
    say(f"{spent.tokens} tokens in all" + (f" of {args.budget}" if args.budget else ""))
    for reason, count in reasons.most_common():
        say(f"{count:>7}  left out: {reason}")
    if spent.over_budget:
        warn(f"{spent.over_budget} were not asked: the budget would not have held them.")
    if spent.failed:
        warn(f"{spent.failed} failed ({', '.join(spent.faults)}); run it again to ask them again.")
    say(f"{args.output}: {len(rows)} rows")
    return int(bool(spent.over_budget or spent.failed))


def show_dry_run(args: Namespace, wanted: Sequence[ScenarioPrompt]) -> int:
    """Show the first prompts, and what all would take."""
    for prompt in wanted[:2]:
        for message in prompt.messages:
            say(f"[{message['role']}] {message['content']}")
        say()
    given = sum(prompt.estimate for prompt in wanted)
    made = sum(prompt.expected for prompt in wanted)
    say(f"{len(wanted)} prompts, at most {given} tokens in, about {made} out")
    if any(args.price):
        say(f"about {(given * args.price[0] + made * args.price[1]) / 1e6:.2f} at the prices given")
    return 0


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
    from elysia.data.lint import lint_report as shown
    from elysia.data.lint.lint_files import lint_files as read

    files = [Path(file) for file in args.files]
    if args.fix:
        fix_files(files)
    unit = "tokens" if args.tokenizer else "characters"
    heldout = [Path(file) for file in args.heldout]
    count = build_length_counter(args.tokenizer)
    reports = read(files, heldout, ours=load_character_names(args.persona), count=count, unit=unit)
    if args.json == "-":
        say(shown.to_json(reports))
    else:
        for report in reports:
            for severity, line in shown.format_findings(report, args.limit):
                say(paint(line, COLOUR[severity]))
            say(paint(shown.summary(report), "bold"))
    for target, text in ((args.json, shown.to_json), (args.html, shown.to_html)):
        if target and target != "-":
            write_atomic(target, text(reports))
            warn(f"Wrote {target}")
    return int(any(report.findings.errors for report in reports))


def fix_files(files: list[Path]) -> None:
    """Fix every file, saying each change."""
    from elysia.data.lint.autofix import fix_file

    for file in files:
        changes = fix_file(file)
        for change in changes:
            warn(f"fixed {change}")
        if not changes:
            warn(f"{file}: nothing that could be mended safely")


def build_length_counter(tokenizer: str | None) -> Callable[[str], int]:
    """How long a text is: tokens of a tokenizer, or characters."""
    if tokenizer is None:
        return len
    from elysia.models.loading import load_tokenizer, resolve_model

    found = load_tokenizer(resolve_model(tokenizer, "huggingface"))

    def tokens(text: str) -> int:
        plain = text.encode("utf-8", "replace").decode()
        return len(found(plain, add_special_tokens=False)["input_ids"])

    return tokens


def load_character_names(card: str | None) -> list[str]:
    """The names on a card that the character may call itself by."""
    if card is None:
        return []
    from elysia.core.persona import Persona

    persona = Persona.load(card)
    ours = persona.elysia_extensions
    aliases = ours.get("aliases")
    more = aliases if isinstance(aliases, list) else []
    return [
        str(n) for n in (persona.name, persona.display_name, ours.get("english_name"), *more) if n
    ]
