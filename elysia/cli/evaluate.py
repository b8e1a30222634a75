"""`elysia probe`, `evaluate persona` (also `score`) and `evaluate compare`: identity and the scorecard.

One model is loaded at a time; a question is a conversation of its own, answered greedily.
"""

from __future__ import annotations

import gc
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.cli.options import add_model_options, build_model_config, require_at_least
from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import DataError
from elysia.core.files import write_atomic
from elysia.core.messages import Message
from elysia.core.paths import resolve_bundled
from elysia.core.persona import Persona
from elysia.core.run_card import RunCard

if TYPE_CHECKING:
    from elysia.app import ChatFormat
    from elysia.core.messages import Conversation
    from elysia.evaluate.identity import IdentityRates, ReplyVerdict
    from elysia.evaluate.scorecard import EvaluationData, PersonaScorecard

JudgedReplies = list[tuple[str, str, "ReplyVerdict"]]  # question, reply, verdict


def probe_parser() -> ArgumentParser:
    """The parser of `elysia probe`."""
    parser = build_parser(
        "probe",
        "MODEL [--adapter ADAPTER] [options]",
        "Ask a model who it is, and ordinary things; report how often it says its whole name, and "
        "how often the persona leaks into ordinary answers.",
        probe,
    )
    parser.add_argument(
        "model_name_or_path", metavar="MODEL", help="a folder, or a name on the hub"
    )
    add_model_options(parser)
    data, personas = "data/probes.json", "configs/personas/elysia.json"
    add = parser.add_argument
    add("--questions", default=data, metavar="FILE", help=f"identity questions (default: {data})")
    ordinary = "data/probes_ordinary.json"
    add("--ordinary", default=ordinary, metavar="FILE", help=f"others (default: {ordinary})")
    add("--persona", default=personas, metavar="CARD", help=f"default: {personas}")
    add("--output", metavar="FILE", help="write every answer and the rates there as JSON")
    add("--show", type=int, default=12, metavar="N", help="answers to print (default: 12)")
    add("--max-new-tokens", type=int, default=96, metavar="N", help="default: 96")
    add("--batch", type=int, default=20, metavar="N", help="questions at a time (default: 20)")
    return parser


def probe(args: Namespace) -> int:
    """Ask the questions, print verdicts and rates, and write the report."""
    from elysia.evaluate import identity

    persona = Persona.load(resolve_bundled(args.persona))
    about_self = read_questions(Path(resolve_bundled(args.questions)), "identity")
    about_others = read_questions(Path(resolve_bundled(args.ordinary)), "ordinary")
    questions = [*about_self, *about_others]
    _, _, answer = load_answerer(args)
    replies = answer([[Message("user", text)] for text in questions])
    on_identity: JudgedReplies = [
        (question, reply, identity.judge_identity(reply, persona))
        for question, reply in zip(about_self, replies, strict=False)
    ]
    ordinary: JudgedReplies = [
        (question, reply, identity.judge_ordinary(reply, persona))
        for question, reply in zip(about_others, replies[len(about_self) :], strict=True)
    ]
    rates = identity.compute_rates([v for *_, v in on_identity], [v for *_, v in ordinary])
    show_answers(on_identity, ordinary, args.show)
    say(f"identity  {rates.identity_rate:.1%} of {rates.identity_questions} questions answered")
    say(f"leak      {rates.leak_rate:.1%} of {rates.ordinary_questions} ordinary answers")
    if args.output:
        write_probe_report(Path(args.output), rates, on_identity, ordinary)
    return 0


def read_questions(path: Path, section: str) -> list[str]:
    """The questions of a JSON list, or of the list under the key `section` of a JSON object.

    Raises DataError, naming the row, for anything else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("cli.no_questions_file", path=path) from None
    except (OSError, ValueError) as error:
        raise DataError("cli.questions_not_json", path=path, reason=str(error)) from error
    if isinstance(rows, dict):
        rows = rows.get(section)
    if not isinstance(rows, list) or not rows:
        raise DataError("cli.questions_not_list", path=path, section=section)
    questions = []
    for number, row in enumerate(rows, 1):
        keys = ("text", "question", "input")
        text = next((row[k] for k in keys if k in row), None) if isinstance(row, dict) else row
        if not isinstance(text, str) or not text.strip():
            raise DataError("cli.question_not_text", path=path, row=number, value=repr(row))
        questions.append(text)
    return questions


def load_answerer(
    args: Namespace,
) -> tuple[Any, ChatFormat, Callable[[Iterable[Conversation]], list[str]]]:
    """The engine of a model folder, its chat format, and a function from conversations to replies.

    Replies are greedy, of `--max-new-tokens` tokens at most, `--batch` at a time. The model's system text
    goes before a conversation without one.
    """
    from elysia.app import model_loading
    from elysia.engines.base import GenerationRequest, Sampling

    sampling = Sampling(max_new_tokens=args.max_new_tokens, temperature=0)
    engine, style = model_loading.load_model_folder(build_model_config(args, sampling))
    system = [Message("system", style.system)] if style.system else []

    def answer(conversations: Iterable[Conversation]) -> list[str]:
        requests = [
            GenerationRequest(
                messages if messages[0].role == "system" else [*system, *messages],
                style.template, style.stop, sampling,
            )
            for messages in conversations
        ]  # fmt: skip
        return engine.generate_batch(requests, batch=args.batch)

    return engine, style, answer


def show_answers(on_identity: JudgedReplies, ordinary: JudgedReplies, count: int) -> None:
    """Print `count` answers, two in three of them on identity, spread over the questions."""
    for rows, share in ((on_identity, count - count // 3), (ordinary, count // 3)):
        shown = min(share, len(rows))
        for index in range(shown):
            question, reply, verdict = rows[index * len(rows) // shown]
            mark = paint("✓", "green") if verdict.good else paint("✗", "red")
            say(f"{mark} {paint(question, 'bold')}")
            say(f"  {' '.join(reply.split())}  {paint(f'({verdict.reason})', 'dim')}")


def write_probe_report(
    path: Path, rates: IdentityRates, on_identity: JudgedReplies, ordinary: JudgedReplies
) -> None:
    """Write the report as JSON: the rates, then every question with its answer and verdict."""

    def rows(judged: JudgedReplies) -> list[dict[str, Any]]:
        return [
            {"question": q, "reply": r, "good": v.good, "reason": str(v.reason)}
            for q, r, v in judged
        ]

    report = {**rates.to_dict(), "identity": rows(on_identity), "ordinary": rows(ordinary)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    warn(f"Wrote {path}")


MAX_OTHER_LINES = 2000  # replies of other characters that are read


def score_parser() -> ArgumentParser:
    """The parser of `elysia evaluate persona`, also `elysia score`."""
    parser = build_parser(
        "evaluate persona",
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
        "Show scorecards side by side; the last model of the last report counts as the base.",
        compare,
    )
    parser.add_argument("reports", nargs="+", metavar="REPORT", help="what --json wrote")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots")
    return parser


def score(args: Namespace) -> int:
    """Measure the model, then its base; print the scorecards, and write the reports."""
    require_at_least(args, 1, "--limit", "--max-new-tokens", "--batch")
    material = load_material(args)
    label = args.label or Path(args.adapter or args.model_name_or_path).name
    cards = [measure(args, label, material)]
    base = args.against or (args.model_name_or_path if args.adapter else None)
    if base:
        template = args.prompt_template or get_card_template(args)
        gc.collect()  # frees the first model before the second is loaded
        plain = {"model_name_or_path": base, "adapter": None, "prompt_template": template}
        cards.append(measure(Namespace(**{**vars(args), **plain}), Path(base).name, material))
    show_scorecards([card.to_dict() for card in cards], args.html)
    if args.json:
        report = {"scorecards": [card.to_dict() for card in cards]}
        write_atomic(args.json, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
        warn(f"Wrote {args.json}")
    return 0


def compare(args: Namespace) -> int:
    """Print the table of several reports; of two scorecards with one label, the later one."""
    cards: dict[str, dict[str, Any]] = {}
    for file in args.reports:
        for card in read_report(Path(file)):
            cards.pop(card["label"], None)  # the base of every report goes to the end
            cards[card["label"]] = card
    show_scorecards(list(cards.values()), args.html)
    return 0


def show_scorecards(cards: Sequence[dict[str, Any]], html: str | None) -> None:
    """Print the table, and write the page with --html."""
    from elysia.evaluate import compare as comparison

    for line in comparison.render_text(cards):
        say(line)
    if html:
        write_atomic(html, comparison.render_html(cards))
        warn(f"Wrote {html}")


def read_report(path: Path) -> list[dict[str, Any]]:
    """The scorecards in a report file. Raises DataError when it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        cards = value["scorecards"]
        if all(isinstance(c["measures"], dict) and isinstance(c["label"], str) for c in cards):
            return list(cards)
    except FileNotFoundError:
        raise DataError("cli.no_report", path=path) from None
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise DataError("cli.not_a_report", path=path)


def load_material(args: Namespace) -> EvaluationData:
    """Everything that models are measured on, read before any of them is loaded."""
    from elysia.evaluate.eval_data import read_reply_examples
    from elysia.evaluate.scorecard import EvaluationData

    questions = read_questions(Path(resolve_bundled(args.questions)), "identity")
    heldout = read_reply_examples(args.heldout, args.limit)
    training = [reply for _, reply in read_reply_examples(args.train)] if args.train else []
    others = args.others or args.general
    return EvaluationData(
        Persona.load(resolve_bundled(args.persona)),
        heldout,
        read_reply_examples(args.general, args.limit) if args.general else (),
        training,
        [reply for _, reply in read_reply_examples(others, MAX_OTHER_LINES)] if others else (),
        [("en" if text.isascii() else "zh", text) for text in questions],
        read_questions(Path(resolve_bundled(args.ordinary)), "ordinary"),
    )


def measure(args: Namespace, label: str, material: EvaluationData) -> PersonaScorecard:
    """Load one model and measure it. Nothing refers to the model after the return, so its memory is freed."""
    from elysia.evaluate.likelihood import ReplyScorer
    from elysia.evaluate.scorecard import score_model

    engine, style, answer = load_answerer(args)
    longest = min(engine.context_length, 2048)
    scorer = ReplyScorer(
        engine.model, engine.tokenizer, style.template, system=style.system, longest=longest
    )
    return score_model(label, scorer, answer, material, max_new_tokens=args.max_new_tokens)


def get_card_template(args: Namespace) -> str | None:
    """The template in the run card of the model, which its base is prompted with as well; None for a base's
    own, which the base carries itself."""
    card = RunCard.read(args.adapter or args.model_name_or_path)
    is_named = card is not None and card.template and "jinja" not in card.template
    name = card.template.get("name") if card and is_named else None
    return str(name) if name else None
