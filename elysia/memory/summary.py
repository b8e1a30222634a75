"""What was said in the turns that no longer fit: picked, not written, and therefore never invented.

The sentences that matter (facts, decisions, names, feelings) are kept in the talk's own words and
language, each under its day, within a budget of tokens. A summary and newer turns give the next one.
Knows nothing of engines, stores or prompts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from elysia.memory.base import Heard
from elysia.memory.facts import facts_of, sentences
from elysia.memory.weigh import weight_of
from elysia.memory.when import day_of
from elysia.memory.words import content

SHORTEST, LONGEST = 4, 160  # characters of a sentence that is kept
LEAST = 0.3  # what weighs less is not worth its tokens
FADE = 0.97  # what a sentence keeps of its weight each time the summary is made anew
SAME = 0.7  # share of words above which two sentences say the same
ASSISTANT = 0.8  # the character's own words, against the user's

_LINE = re.compile(r"^(\d{4}-\d\d-\d\d)(?: ([^:：]{1,40}))?[:：] ?(.+)$")

Count = Callable[[str], int]


@dataclass(frozen=True)
class Kept:
    """A sentence of the summary: its day, who said it, its words, and what it weighs."""

    day: str
    speaker: str
    text: str
    weight: float


def summarize(
    before: Sequence[Kept], turns: Sequence[Heard], *, budget: int, count: Count
) -> list[Kept]:
    """The summary of what `before` summed up and these newer turns, in order.

    `budget` is in tokens as `count` counts them; `shown` of the result keeps within it.
    """
    old = [Kept(one.day, one.speaker, one.text, one.weight * FADE) for one in before]
    candidates = _distinct([*old, *_picked(turns)])
    order = sorted(range(len(candidates)), key=lambda place: (-candidates[place].weight, -place))
    chosen: list[int] = []
    left = budget
    for place in order:
        cost = count(shown([candidates[place]]) + "\n")
        if cost <= left:
            chosen.append(place)
            left -= cost
    # Lines together may cost more than each alone, by the tokens between them.
    while chosen and count(shown([candidates[place] for place in sorted(chosen)])) > budget:
        chosen.pop()
    return [candidates[place] for place in sorted(chosen)]


def shown(summary: Sequence[Kept]) -> str:
    """The summary as text: a line a sentence, with its day and speaker."""
    return "\n".join(f"{one.day} {one.speaker}: {one.text}".replace(" : ", ": ") for one in summary)


def read_summary(text: str) -> list[Kept]:
    """A summary from its text, as `shown` gave it.

    >>> read_summary("2024-05-01 Ann: I moved to Leeds")[0].speaker
    'Ann'
    """
    found: list[Kept] = []
    for line in text.splitlines():
        hit = _LINE.match(line.strip())
        day, speaker, said = hit.groups() if hit else ("", "", line.strip())
        if said:
            found.append(Kept(day or "", (speaker or "").strip(), said, _weight(said, "user")))
    return found


def _picked(turns: Sequence[Heard]) -> list[Kept]:
    found: list[Kept] = []
    for turn in turns:
        facts = [fact.text for fact in facts_of(turn)]
        for sentence, asked in sentences(turn.text):
            said = " ".join(sentence.split())
            if asked or len(said) < SHORTEST:
                continue
            weight = _weight(said, turn.role, sum(_within(fact, said) for fact in facts))
            if weight >= LEAST:
                found.append(Kept(str(day_of(turn.at)), turn.speaker, _cut(said), weight))
    return found


def _weight(text: str, role: str, facts: int = 0) -> float:
    return weight_of(text, role, facts) * (1.0 if role == "user" else ASSISTANT)


def _within(fact: str, sentence: str) -> bool:
    words = content(fact)
    return sum((words & content(sentence)).values()) >= 0.6 * sum(words.values())


def _distinct(summary: Sequence[Kept]) -> list[Kept]:
    """Without what a later sentence says again, or says to be otherwise now."""
    found: list[Kept] = []
    settled: set[str] = set()
    for one in reversed(summary):
        slots = {fact.slot for fact in facts_of(Heard("", "", "user", "", one.text, 0.0))}
        if slots and slots <= settled:
            continue
        if not any(_alike(one.text, other.text) for other in found):
            found.append(one)
            settled |= slots
    return found[::-1]


def _alike(one: str, other: str) -> bool:
    first, second = set(content(one)), set(content(other))
    return bool(first) and len(first & second) >= SAME * len(first | second)


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    ends = [hit.end() for hit in re.finditer(r"[，,、 ]", text[:LONGEST])]
    return text[: ends[-1] if ends else LONGEST].rstrip("，,、 ") + "…"
