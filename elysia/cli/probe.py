"""`elysia probe`: put identity questions and ordinary ones to a model, print verdicts and rates.

Every question is a conversation of its own, answered greedily. Knows nothing of how verdicts are
made.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.cli.chat import add_model_options, settings_of
from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import DataError

if TYPE_CHECKING:
    from elysia.evaluate.identity import Rates, Verdict

Judged = list[tuple[str, str, "Verdict"]]  # question, reply, verdict


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
    """Ask, judge, print; writes the report last, whole."""
    from elysia.core.persona import Persona
    from elysia.evaluate import identity
    from elysia.train.bundled import locate

    persona = Persona.load(locate(args.persona))
    about = read_questions(Path(locate(args.questions)), "identity")
    others = read_questions(Path(locate(args.ordinary)), "ordinary")
    answers = ask(args, [*about, *others])
    who: Judged = [
        (question, reply, identity.judge_identity(reply, persona))
        for question, reply in zip(about, answers, strict=False)
    ]
    else_: Judged = [
        (question, reply, identity.judge_ordinary(reply, persona))
        for question, reply in zip(others, answers[len(about) :], strict=True)
    ]
    rates = identity.rates([v for *_, v in who], [v for *_, v in else_])
    show(who, else_, args.show)
    say(f"identity  {rates.identity_rate:.1%} of {rates.identity_questions} questions answered")
    say(f"leak      {rates.leak_rate:.1%} of {rates.ordinary_questions} ordinary answers")
    if args.output:
        write(Path(args.output), rates, who, else_)
    return 0


def read_questions(path: Path, section: str) -> list[str]:
    """The questions of a JSON list, or of the list under the key `section` of a JSON object.

    DataError, with the row, for a file that is neither.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"There is no file of questions at {path}.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if isinstance(rows, dict):
        rows = rows.get(section)
    if not isinstance(rows, list) or not rows:
        raise DataError(
            f"{path} should be a JSON list of questions, or hold one under '{section}'; not empty."
        )
    questions = []
    for number, row in enumerate(rows, 1):
        keys = ("text", "question", "input")
        text = next((row[k] for k in keys if k in row), None) if isinstance(row, dict) else row
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{path}, row {number}: a question should be a text, not {row!r}.")
        questions.append(text)
    return questions


def ask(args: Namespace, questions: Sequence[str]) -> list[str]:
    """The model's greedy answer to each question."""
    from elysia.app import models as app
    from elysia.core.messages import Message
    from elysia.engines.base import Request, Sampling
    from elysia.engines.batch import replies

    sampling = Sampling(max_new_tokens=args.max_new_tokens, temperature=0)
    engine, manner = app.open_folder(settings_of(args, sampling))
    system = [Message("system", manner.system)] if manner.system else []
    requests = [
        Request([*system, Message("user", text)], manner.template, manner.stop, sampling)
        for text in questions
    ]
    return list(replies(engine, requests, batch=args.batch))


def show(who: Judged, others: Judged, count: int) -> None:
    """Print `count` answers, two in three of them on identity, spread over the questions."""
    for rows, wanted in ((who, count - count // 3), (others, count // 3)):
        wanted = min(wanted, len(rows))
        for place in range(wanted):
            question, reply, verdict = rows[place * len(rows) // wanted]
            mark = paint("✓", "green") if verdict.good else paint("✗", "red")
            say(f"{mark} {paint(question, 'bold')}")
            say(f"  {' '.join(reply.split())}  {paint(f'({verdict.reason})', 'dim')}")


def write(path: Path, rates: Rates, who: Judged, others: Judged) -> None:
    """The report as JSON: rates, then every question with its answer and verdict."""

    def rows(judged: Judged) -> list[dict[str, Any]]:
        return [
            {"question": q, "reply": r, "good": v.good, "reason": v.reason} for q, r, v in judged
        ]

    report = {**rates.to_dict(), "identity": rows(who), "ordinary": rows(others)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    warn(f"Wrote {path}")
