"""Rows of a model's answers: parsed, filtered by rules, rid of near-duplicates, each with where it
came from. Knows nothing of endpoints beyond their kept answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from elysia.core.errors import DataError
from elysia.data.lint.prints import print_of
from elysia.data.lint.talk import identities
from elysia.data.lint.text import CHECKS, cut_off
from elysia.data.lint.twins import Place, Twins
from elysia.data.model.prompts import Prompt, turns_of

LONGEST = 2000  # characters of a reply
REFUSED = {
    "lost-character",
    "mojibake",
    "control-character",
    "placeholder",
    "markup",
    "personal-data",
}


def rows_of(
    prompts: Sequence[Prompt],
    answer_of: Callable[[Prompt], dict[str, Any] | None],
    *,
    card: str,
    host: str,
    ours: Iterable[str] = (),
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows, in the order of the prompts, and why the other answers were left out."""
    names, twins = frozenset(name.lower() for name in ours), Twins()
    rows: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for prompt in prompts:
        answer = answer_of(prompt)
        if answer is None:
            continue
        try:
            pairs = list(turns_of(answer["text"]))
            reason = fault_of(pairs, prompt, names)
        except DataError as error:
            pairs, reason = [], str(error)
        text = "\n".join(part for pair in pairs for part in pair)
        asks = "\n".join(ask for ask, _ in pairs)
        if not reason and twins.add(print_of(text, asks), Place(0, 0, len(rows))) is not None:
            reason = "the same as another row"
        if reason:
            reasons[reason] += 1
            continue
        source = {"model": answer["model"], "endpoint": host, "prompt": prompt.id, "card": card,
                  "situation": dict(prompt.situation), "tokens": answer["tokens"]}  # fmt: skip
        talk = [{"input": ask, "output": reply} for ask, reply in pairs]
        rows.append({"conversation": talk, "source": source})
    near = {pair.later.row for pair in twins.near()}
    reasons["nearly the same as another row"] += len(near)
    return [row for place, row in enumerate(rows) if place not in near], +reasons


def fault_of(pairs: Sequence[tuple[str, str]], prompt: Prompt, ours: frozenset[str]) -> str:
    """Why a dialogue is not taken, by lint's rules; "" when it is."""
    turns = prompt.situation.get("turns")
    if turns and len(pairs) != turns:
        return "not as many turns as asked for"
    for ask, reply in pairs:
        if len(reply) > LONGEST:
            return f"a reply of more than {LONGEST} characters"
        for rule, check in CHECKS:
            if rule in REFUSED and any(any(check(text)) for text in (ask, reply)):
                return rule
        if any(identities(reply, ours)):
            return "other-assistant"
        if any(cut_off(reply)):
            return "cut-off"
    return ""
