"""`elysia data script | generate | lint`: training rows from a script or a model, and the faults in rows."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from elysia.cli.options import require_at_least
from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import DataError, UsageError
from elysia.core.files import render_json_lines

if TYPE_CHECKING:
    from elysia.data.synthesis.scenario_prompts import ScenarioPrompt


def script_parser() -> ArgumentParser:
    """The parser of `elysia data script`."""
    parser = build_parser(
        "data script",
        "SCRIPT --character NAME --output DIR [options]",
        "Turn a script (play, subtitles, novel, chat log) into training rows: scene by scene, the "
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
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="a new folder, or one that this command wrote",
    )
    add("--layout", choices=["play", "subtitles", "novel", "chat"], help="default: by the file")
    add(
        "--encoding",
        default="",
        metavar="NAME",
        help="default: UTF-8, UTF-16, GBK or Big5, as the bytes suggest",
    )
    add(
        "--directions",
        choices=["keep", "drop"],
        default="keep",
        help="texts in brackets (default: keep)",
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
    """Read and compile the script, write the folder, and print how many lines became rows."""
    if not 0 <= args.heldout < 1:
        raise UsageError("cli.heldout_not_a_share", value=args.heldout)
    require_at_least(args, 0, "--max-turns", "--gap")
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
        compiled = compile_rows.compile_lines(lines, choices, path.name)
    except DataError as error:
        raise DataError("core.at", where=path, problem=error) from None
    account = {"script": path.name, "character": args.character, **compiled.account()}
    heldout_scenes = {row["scene"] for row in compiled.heldout}
    # The drafts must not contain what the held-out rows test.
    known_lines = [line for line in lines if line.scene not in heldout_scenes]
    with staged_folder(args.output, DataError, replaces=is_earlier_output) as folder:
        write_jsonl(folder / "train.jsonl", compiled.train)
        write_jsonl(folder / "heldout.jsonl", compiled.heldout)
        write_jsonl(folder / "left_out.jsonl", iter_left_out(lines, compiled.left_out))
        card = character_draft.draft_card(known_lines, compiled.train, choices, path.name)
        write_json(folder / "card.json", card)
        lorebook = character_draft.draft_lorebook(known_lines, choices)
        write_json(folder / "lorebook.json", lorebook)
        write_json(folder / "report.json", account)
    say(f"{account['lines']} lines = {account['used']} used + {len(compiled.left_out)} left out")
    for reason, count in account["left_out"].items():
        say(f"{count:>7}  {reason}")
    say(f"{account['scenes']} scenes, {account['scenes_with_rows']} with rows")
    count = len(compiled.heldout)
    say(f"{len(compiled.train)} rows to train on, {count} held out ({len(heldout_scenes)} scenes)")
    say(f"Wrote {args.output}")
    return 0


def is_earlier_output(folder: Path) -> bool:
    """Whether an earlier run of `data script` wrote this folder."""
    return (folder / "report.json").exists() and (folder / "left_out.jsonl").exists()


def iter_left_out(lines: Iterable[Any], reasons: dict[int, str]) -> Iterable[dict[str, Any]]:
    """Every line that is in no row, with its number, the reason and the text."""
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
    """Write one JSON value."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write rows, a line each."""
    path.write_text(render_json_lines(rows), "utf-8")


def generate_parser() -> ArgumentParser:
    """The parser of `elysia data generate`."""
    parser = build_parser(
        "data generate",
        "CARD --base-url URL --model NAME --output FILE [options]",
        "Let a model write dialogues of a character over a grid of situations. Answers are stored beside "
        "the output: run it again to continue where it stopped.",
        generate,
    )
    add = parser.add_argument
    add("card", metavar="CARD", help="the character's card, JSON")
    add("--base-url", required=True, metavar="URL", help="such as http://127.0.0.1:8000/v1")
    add("--model", required=True, metavar="NAME", help="as the endpoint calls it")
    add("--output", required=True, metavar="FILE", help="the rows (.jsonl), rewritten at the end")
    add("--count", type=int, default=100, metavar="N", help="dialogues to ask for (default: 100)")
    add(
        "--situations",
        metavar="FILE",
        help="a JSON object of lists; all combinations are asked for",
    )
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
    add("--dry-run", action="store_true", help="show prompts and cost; send nothing")
    return parser


def generate(args: Namespace) -> int:
    """Send the prompts without an answer yet, then write all rows; 1 when some were not sent or failed."""
    require_at_least(args, 1, "--count", "--concurrency", "--max-tokens")
    require_at_least(args, 0, "--per-minute", "--budget", "--retries", "--temperature")
    if args.timeout <= 0:
        raise UsageError("cli.timeout_not_positive", value=args.timeout)
    from elysia.core.files import write_atomic
    from elysia.core.persona import Persona
    from elysia.data.synthesis.answer_filter import build_rows
    from elysia.data.synthesis.completion_client import CompletionClient, RequestLimits
    from elysia.data.synthesis.scenario_prompts import GRID, build_prompts, load_grid

    persona = Persona.load(args.card)
    grid = load_grid(Path(args.situations)) if args.situations else GRID
    prompts = build_prompts(persona, args.count, grid, args.seed)
    if args.dry_run:
        return show_dry_run(args, prompts)
    output = Path(args.output)
    limits = RequestLimits(
        args.concurrency, args.per_minute, args.budget, args.retries, args.timeout, args.max_tokens
    )
    folder = output.with_name(output.name + ".answers")
    key = os.environ.get(args.key_env, "")
    endpoint = CompletionClient(args.base_url, args.model, key, folder, limits, args.temperature)
    spent = endpoint.ask(prompts)
    host = urlsplit(args.base_url).hostname or ""
    rows, reasons = build_rows(
        prompts,
        endpoint.load_answer,
        card=persona.name,
        host=host,
        ours=load_character_names(args.card),
    )
    write_atomic(output, render_json_lines(rows))
    say(
        f"{spent.cached} answers from earlier runs, {spent.requests} requests, {spent.retried} retried"
    )
    say(f"{spent.tokens} tokens in all" + (f" of {args.budget}" if args.budget else ""))
    for reason, count in reasons.most_common():
        say(f"{count:>7}  left out: {reason}")
    if spent.over_budget:
        warn(f"{spent.over_budget} were not sent: they would have exceeded the budget.")
    if spent.failed:
        warn(f"{spent.failed} failed ({', '.join(spent.faults)}); run it again to retry them.")
    say(f"{args.output}: {len(rows)} rows")
    return int(bool(spent.over_budget or spent.failed))


def show_dry_run(args: Namespace, prompts: Sequence[ScenarioPrompt]) -> int:
    """Show the first prompts, and the tokens and cost of all."""
    for prompt in prompts[:2]:
        for message in prompt.messages:
            say(f"[{message['role']}] {message['content']}")
        say()
    tokens_in = sum(prompt.estimate for prompt in prompts)
    tokens_out = sum(prompt.expected for prompt in prompts)
    say(f"{len(prompts)} prompts, at most {tokens_in} tokens in, about {tokens_out} out")
    if any(args.price):
        cost = (tokens_in * args.price[0] + tokens_out * args.price[1]) / 1e6
        say(f"about {cost:.2f} at the prices given")
    return 0


COLOUR = {"error": "red", "warning": "yellow"}


def lint_parser() -> ArgumentParser:
    """The parser of `elysia data lint`."""
    parser = build_parser(
        "data lint",
        "FILE ... [--heldout FILE] [--fix] [--json FILE] [--html FILE]",
        "Find faults in dataset files, by line and row. Exits with 1 when there are errors: what training "
        "would refuse, or should never learn.",
        lint,
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help=".json, .jsonl, .csv, .txt or .parquet")
    add("--heldout", nargs="+", default=[], metavar="FILE", help="rows that may not be trained on")
    add("--persona", metavar="CARD", help="the character's card, whose names it may use")
    add("--tokenizer", metavar="DIR", help="count tokens of this model (default: characters)")
    add("--fix", action="store_true", help="repair what is safe, name each change, keep FILE.orig")
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
    """Repair with --fix, then print the findings; 1 when there are errors."""
    require_at_least(args, 0, "--limit")
    from elysia.core.files import write_atomic
    from elysia.data.lint import lint_report as shown
    from elysia.data.lint.lint_run import lint_files as read

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
    """Repair every file, and print each change."""
    from elysia.data.lint.autofix import fix_file

    for file in files:
        changes = fix_file(file)
        for change in changes:
            warn(f"fixed {change}")
        if not changes:
            warn(f"{file}: nothing that could be repaired safely")


def build_length_counter(tokenizer: str | None) -> Callable[[str], int]:
    """A function from a text to its length: in tokens of a tokenizer, or in characters."""
    if tokenizer is None:
        return len
    from elysia.models.loading import load_tokenizer, resolve_model

    encode = load_tokenizer(resolve_model(tokenizer, "huggingface"))

    def count_tokens(text: str) -> int:
        plain = text.encode("utf-8", "replace").decode()
        return len(encode(plain, add_special_tokens=False)["input_ids"])

    return count_tokens


def load_character_names(card: str | None) -> list[str]:
    """The names on a card that the character may use of itself; none without a card."""
    if card is None:
        return []
    from elysia.core.persona import Persona

    persona = Persona.load(card)
    extensions = persona.elysia_extensions
    aliases = extensions.get("aliases")
    more = aliases if isinstance(aliases, list) else []
    names = (persona.name, persona.display_name, extensions.get("english_name"), *more)
    return [str(name) for name in names if name]
