"""Turn a model's answers into dataset rows: parsed, checked by rules of lint, without near-duplicates.

Each row says where it came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from elysia.core.errors import DataError
from elysia.data.lint.dedup import NearDuplicateIndex, RowLocation, build_fingerprint
from elysia.data.lint.dialogue_rules import find_other_identities
from elysia.data.lint.text_rules import CHECKS, find_cut_off
from elysia.data.synthesis.scenario_prompts import ScenarioPrompt, parse_turns

LONGEST_REPLY = 2000  # characters
REFUSED_RULES = {
    "lost-character",
    "mojibake",
    "control-character",
    "placeholder",
    "markup",
    "personal-data",
}


def build_rows(
    prompts: Sequence[ScenarioPrompt],
    get_answer: Callable[[ScenarioPrompt], dict[str, Any] | None],
    *,
    card: str,
    host: str,
    ours: Iterable[str] = (),
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows, in the order of the prompts, and why the other answers were left out.

    `ours`: names that the character may use for itself. `card`, `host`: named as the origin of rows.
    """
    names, index = frozenset(name.lower() for name in ours), NearDuplicateIndex()
    rows: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for prompt in prompts:
        answer = get_answer(prompt)
        if answer is None:
            continue
        try:
            pairs = list(parse_turns(answer["text"]))
            reason = find_fault(pairs, prompt, names)
        except DataError as error:
            pairs, reason = [], str(error)
        text = "\n".join(part for pair in pairs for part in pair)
        asks = "\n".join(ask for ask, _ in pairs)
        location = RowLocation(0, 0, len(rows))
        if not reason and index.add(build_fingerprint(text, asks), location) is not None:
            reason = "the same as another row"
        if reason:
            reasons[reason] += 1
            continue
        source = {"model": answer["model"], "endpoint": host, "prompt": prompt.id, "card": card,
                  "situation": dict(prompt.situation), "tokens": answer["tokens"]}  # fmt: skip
        talk = [{"input": ask, "output": reply} for ask, reply in pairs]
        rows.append({"conversation": talk, "source": source})
    near = {pair.later.row for pair in index.find_near()}
    reasons["nearly the same as another row"] += len(near)
    return [row for place, row in enumerate(rows) if place not in near], +reasons


def find_fault(
    pairs: Sequence[tuple[str, str]], prompt: ScenarioPrompt, ours: frozenset[str]
) -> str:
    """Why a dialogue is refused (a rule of lint, or a sentence); "" when it is not."""
    turns = prompt.situation.get("turns")
    if turns and len(pairs) != turns:
        return "not as many turns as asked for"
    for ask, reply in pairs:
        if len(reply) > LONGEST_REPLY:
            return f"a reply of more than {LONGEST_REPLY} characters"
        if rule := find_refused_rule(ask, reply):
            return rule
        if any(find_other_identities(reply, ours)):
            return "other-assistant"
        if any(find_cut_off(reply)):
            return "cut-off"
    return ""


def find_refused_rule(*texts: str) -> str:
    """The first rule of lint that refuses any of `texts`; "" when none does."""
    for rule, check in CHECKS:
        if rule in REFUSED_RULES and any(any(check(text)) for text in texts):
            return rule
    return ""
