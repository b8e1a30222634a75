"""`elysia data generate`: dialogues of a character from a model behind an OpenAI-compatible endpoint.

Knows the flags and what is written where; the work is elysia/data/model.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from elysia.cli.lint import names_of
from elysia.cli.output import build_parser, say, warn
from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.data.model.prompts import Prompt


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
    from elysia.data.model.endpoint import Endpoint, Limits
    from elysia.data.model.prompts import GRID, prompts, read_grid
    from elysia.data.model.write import rows_of

    persona = Persona.load(args.card)
    grid = read_grid(Path(args.situations)) if args.situations else GRID
    wanted = prompts(persona, args.count, grid, args.seed)
    if args.dry_run:
        return dry_run(args, wanted)
    output = Path(args.output)
    limits = Limits(args.concurrency, args.per_minute, args.budget, args.retries, args.timeout,
                    args.max_tokens)  # fmt: skip
    folder = output.with_name(output.name + ".answers")
    key = os.environ.get(args.key_env, "")
    endpoint = Endpoint(args.base_url, args.model, key, folder, limits, args.temperature)
    spent = endpoint.ask(wanted)
    host = urlsplit(args.base_url).hostname or ""
    rows, reasons = rows_of(
        wanted, endpoint.answer_of, card=persona.name, host=host, ours=names_of(args.card)
    )
    write_atomic(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    say(f"{spent.cached} answers were kept, {spent.asked} requests, {spent.retried} of them again")
    say(f"{spent.tokens} tokens in all" + (f" of {args.budget}" if args.budget else ""))
    for reason, count in reasons.most_common():
        say(f"{count:>7}  left out: {reason}")
    if spent.left:
        warn(f"{spent.left} were not asked: the budget would not have held them.")
    if spent.failed:
        warn(f"{spent.failed} failed ({', '.join(spent.faults)}); run it again to ask them again.")
    say(f"{args.output}: {len(rows)} rows")
    return int(bool(spent.left or spent.failed))


def dry_run(args: Namespace, wanted: Sequence[Prompt]) -> int:
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
