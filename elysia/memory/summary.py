"""What was said in the turns that no longer fit: picked, not written, and therefore never invented.

The sentences that matter (facts, decisions, names, feelings) are kept in the talk's own words and
language, each under its day, within a budget of tokens. A summary and newer turns give the next one.
Knows nothing of engines, stores or prompts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from elysia.memory.base import MemoryInput
from elysia.memory.dates import get_local_date
from elysia.memory.extract import extract_facts, split_sentences
from elysia.memory.importance import score_importance
from elysia.retrieval.analyzer import count_content_words

MIN_SENTENCE, MAX_SENTENCE = 4, 160  # characters of a sentence that is kept
MIN_WEIGHT = 0.3  # what weighs less is not worth its tokens
DECAY = 0.97  # what a sentence keeps of its weight each time the summary is made anew
DUPLICATE_SHARE = 0.7  # share of words above which two sentences say the same
ASSISTANT_WEIGHT = 0.8  # the character's own words, against the user's

_LINE = re.compile(r"^(\d{4}-\d\d-\d\d)(?: ([^:：]{1,40}))?[:：] ?(.+)$")

TokenCounter = Callable[[str], int]


@dataclass(frozen=True)
class SummarySentence:
    """A sentence of the summary: its day, who said it, its words, and what it weighs."""

    day: str
    speaker: str
    text: str
    weight: float


def summarize(
    before: Sequence[SummarySentence],
    turns: Sequence[MemoryInput],
    *,
    budget: int,
    count: TokenCounter,
) -> list[SummarySentence]:
    """The summary of what `before` summed up and these newer turns, in order.

    `budget` is in tokens as `count` counts them; `format_summary` of the result keeps within it.
    """
    old = [SummarySentence(one.day, one.speaker, one.text, one.weight * DECAY) for one in before]
    candidates = _drop_repeated([*old, *_pick_sentences(turns)])
    order = sorted(range(len(candidates)), key=lambda place: (-candidates[place].weight, -place))
    chosen: list[int] = []
    left = budget
    for place in order:
        cost = count(format_summary([candidates[place]]) + "\n")
        if cost <= left:
            chosen.append(place)
            left -= cost
    # Lines together may cost more than each alone, by the tokens between them.
    while (
        chosen and count(format_summary([candidates[place] for place in sorted(chosen)])) > budget
    ):
        chosen.pop()
    return [candidates[place] for place in sorted(chosen)]


def format_summary(summary: Sequence[SummarySentence]) -> str:
    """The summary as text: a line a sentence, with its day and speaker."""
    return "\n".join(f"{one.day} {one.speaker}: {one.text}".replace(" : ", ": ") for one in summary)


def parse_summary(text: str) -> list[SummarySentence]:
    """A summary from its text, as `format_summary` gave it.

    >>> parse_summary("2024-05-01 Ann: I moved to Leeds")[0].speaker
    'Ann'
    """
    found: list[SummarySentence] = []
    for line in text.splitlines():
        hit = _LINE.match(line.strip())
        day, speaker, said = hit.groups() if hit else ("", "", line.strip())
        if said:
            found.append(
                SummarySentence(day or "", (speaker or "").strip(), said, _weigh(said, "user"))
            )
    return found


def _pick_sentences(turns: Sequence[MemoryInput]) -> list[SummarySentence]:
    found: list[SummarySentence] = []
    for turn in turns:
        facts = [fact.text for fact in extract_facts(turn)]
        for sentence, asked in split_sentences(turn.text):
            said = " ".join(sentence.split())
            if asked or len(said) < MIN_SENTENCE:
                continue
            weight = _weigh(said, turn.role, sum(_is_stated_in(fact, said) for fact in facts))
            if weight >= MIN_WEIGHT:
                found.append(
                    SummarySentence(
                        str(get_local_date(turn.at)), turn.speaker, _shorten(said), weight
                    )
                )
    return found


def _weigh(text: str, role: str, facts: int = 0) -> float:
    return score_importance(text, role, facts) * (1.0 if role == "user" else ASSISTANT_WEIGHT)


def _is_stated_in(fact: str, sentence: str) -> bool:
    words = count_content_words(fact)
    return sum((words & count_content_words(sentence)).values()) >= 0.6 * sum(words.values())


def _drop_repeated(summary: Sequence[SummarySentence]) -> list[SummarySentence]:
    """Without what a later sentence says again, or says to be otherwise now."""
    found: list[SummarySentence] = []
    settled: set[str] = set()
    for one in reversed(summary):
        slots = {
            fact.slot for fact in extract_facts(MemoryInput("", "", "user", "", one.text, 0.0))
        }
        if slots and slots <= settled:
            continue
        if not any(_is_same(one.text, other.text) for other in found):
            found.append(one)
            settled |= slots
    return found[::-1]


def _is_same(one: str, other: str) -> bool:
    first, second = set(count_content_words(one)), set(count_content_words(other))
    return bool(first) and len(first & second) >= DUPLICATE_SHARE * len(first | second)


def _shorten(text: str) -> str:
    if len(text) <= MAX_SENTENCE:
        return text
    ends = [hit.end() for hit in re.finditer(r"[，,、 ]", text[:MAX_SENTENCE])]
    return text[: ends[-1] if ends else MAX_SENTENCE].rstrip("，,、 ") + "…"
