"""`elysia evaluate persona` (also `elysia score`) and `elysia evaluate compare`: the persona scorecard.

Loads one model at a time and hands what it says to elysia/evaluate. Knows nothing of how measures
are taken.
"""

from __future__ import annotations

import gc
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.cli.chat import add_model_options, settings_of
from elysia.cli.output import build_parser, say, warn
from elysia.core.errors import DataError, UsageError

LINES = 2000  # of others at most

if TYPE_CHECKING:
    from elysia.core.messages import Conversation
    from elysia.evaluate.scorecard import Material, Scorecard


def short_parser() -> ArgumentParser:
    """The parser of `elysia score`, the same verb by a short name."""
    return score_parser("score")


def score_parser(verb: str = "evaluate persona") -> ArgumentParser:
    """The parser of `elysia evaluate persona`."""
    parser = build_parser(
        verb,
        "MODEL [--adapter ADAPTER] --heldout FILE [--train FILE] [--general FILE] [--against BASE]",
        "Measure a persona without a judge model: held-out lines, voice, identity, leaks, copying, "
        "forgetting. With --adapter and no --against, the model without it is the base.",
        score,
    )
    parser.add_argument(
        "model_name_or_path", metavar="MODEL", help="a folder, or a name on the hub"
    )
    add_model_options(parser)
    add, card = parser.add_argument, "configs/personas/elysia.json"
    add("--persona", default=card, metavar="CARD", help=f"default: {card}")
    add("--heldout", required=True, metavar="FILE", help="rows of the character, never trained on")
    add("--train", metavar="FILE", help="the rows trained on: voice, catchphrases, copying")
    add("--general", metavar="FILE", help="general rows, never trained on: forgetting, distractors")
    add("--others", metavar="FILE", help="rows of other characters: distractors")
    add("--against", metavar="MODEL", help="the base to compare with")
    add("--questions", default="data/probes.json", metavar="FILE", help="default: data/probes.json")
    ordinary = "data/probes_ordinary.json"
    add("--ordinary", default=ordinary, metavar="FILE", help=f"default: {ordinary}")
    add("--label", metavar="NAME", help="the model's name in the report")
    add("--limit", type=int, default=100, metavar="N", help="replies of a file (default: 100)")
    add("--max-new-tokens", type=int, default=96, metavar="N", help="default: 96")
    add("--batch", type=int, default=16, metavar="N", help="replies at a time (default: 16)")
    add("--json", metavar="FILE", help="write measures and answers there")
    add("--html", metavar="FILE", help="write a page with plots")
    return parser


def compare_parser() -> ArgumentParser:
    """The parser of `elysia evaluate compare`."""
    parser = build_parser(
        "evaluate compare",
        "REPORT ... [--html FILE]",
        "Put scorecards side by side; the last model of the last report counts as the base.",
        compare,
    )
    parser.add_argument("reports", nargs="+", metavar="REPORT", help="what --json wrote")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots")
    return parser


def score(args: Namespace) -> int:
    """Measure the model, then its base; print, and write what was asked for."""
    if args.limit < 1 or args.max_new_tokens < 1 or args.batch < 1:
        raise UsageError("--limit, --max-new-tokens and --batch are 1 or more.")
    material = material_of(args)
    label = args.label or Path(args.adapter or args.model_name_or_path).name
    cards = [measure(args, label, material)]
    base = args.against or (args.model_name_or_path if args.adapter else None)
    if base:
        template = args.prompt_template or template_of(args)
        gc.collect()  # the first model, before the second is loaded
        plain = {"model_name_or_path": base, "adapter": None, "prompt_template": template}
        cards.append(measure(Namespace(**{**vars(args), **plain}), Path(base).name, material))
    show([card.to_dict() for card in cards], args.html)
    if args.json:
        from elysia.core.files import write_atomic

        report = {"scorecards": [card.to_dict() for card in cards]}
        write_atomic(args.json, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
        warn(f"Wrote {args.json}")
    return 0


def compare(args: Namespace) -> int:
    """Print the table of several reports; a label that comes again is told once."""
    cards: dict[str, dict[str, Any]] = {}
    for file in args.reports:
        for card in read_report(Path(file)):
            cards.pop(card["label"], None)  # the base of every report goes to the end
            cards[card["label"]] = card
    show(list(cards.values()), args.html)
    return 0


def show(cards: Sequence[dict[str, Any]], html: str | None) -> None:
    """The table, and the page where asked for."""
    from elysia.core.files import write_atomic
    from elysia.evaluate import comparison

    for line in comparison.as_text(cards):
        say(line)
    if html:
        write_atomic(html, comparison.as_html(cards))
        warn(f"Wrote {html}")


def read_report(path: Path) -> list[dict[str, Any]]:
    """The scorecards of a report. DataError when it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        cards = value["scorecards"]
        if all(isinstance(c["measures"], dict) and isinstance(c["label"], str) for c in cards):
            return list(cards)
    except FileNotFoundError:
        raise DataError(f"There is no report {path}.") from None
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise DataError(f"{path} is no report of `elysia evaluate persona --json`.")


def material_of(args: Namespace) -> Material:
    """Everything a model is measured on, read before any model is loaded."""
    from elysia.cli.probe import read_questions
    from elysia.core.persona import Persona
    from elysia.evaluate.scorecard import Material
    from elysia.evaluate.talks import read_talks
    from elysia.train.bundled import locate

    questions = read_questions(Path(locate(args.questions)), "identity")
    heldout = read_talks(args.heldout, args.limit)
    training = [reply for _, reply in read_talks(args.train)] if args.train else []
    others = args.others or args.general
    return Material(
        Persona.load(locate(args.persona)),
        heldout,
        read_talks(args.general, args.limit) if args.general else (),
        training,
        [reply for _, reply in read_talks(others, LINES)] if others else (),
        [("en" if text.isascii() else "zh", text) for text in questions],
        read_questions(Path(locate(args.ordinary)), "ordinary"),
    )


def measure(args: Namespace, label: str, material: Material) -> Scorecard:
    """Load one model and measure it; it is let go with this function's names."""
    from elysia.app import models as app
    from elysia.core.messages import Message
    from elysia.engines.base import Request, Sampling
    from elysia.engines.batch import replies
    from elysia.evaluate.likelihood import Likelihood
    from elysia.evaluate.scorecard import score as measured

    sampling = Sampling(max_new_tokens=args.max_new_tokens, temperature=0)
    engine, manner = app.open_folder(settings_of(args, sampling))
    system = [Message("system", manner.system)] if manner.system else []

    def answer(conversations: Sequence[Conversation]) -> list[str]:
        requests = [
            Request(
                talk if talk[0].role == "system" else [*system, *talk],
                manner.template, manner.stop, sampling,
            )
            for talk in conversations
        ]  # fmt: skip
        return list(replies(engine, requests, batch=args.batch))

    longest = min(engine.context_length, 2048)
    reader = Likelihood(
        engine.model, engine.tokenizer, manner.template, system=manner.system, longest=longest
    )
    return measured(label, reader, answer, material, max_new_tokens=args.max_new_tokens)


def template_of(args: Namespace) -> str | None:
    """The template of the model's own run card: a base without one is spoken to in it."""
    from elysia.core.run_card import RunCard

    card = RunCard.read(args.adapter or args.model_name_or_path)
    name = card.template.get("name") if card and card.template else None
    return str(name) if name else None
