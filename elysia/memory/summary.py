"""An extractive summary of the turns that no longer fit a prompt: sentences are picked, never written.

The sentences that matter (facts, decisions, names, feelings) are kept in the conversation's own words
and language, each with its day, within a budget of tokens. The summary of a reply and the turns since
give the next one. A rolling summary can therefore not invent anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from elysia.memory.base import MemoryInput
from elysia.memory.dates import get_local_date
from elysia.memory.extract import extract_facts, split_sentences
from elysia.memory.importance import score_importance
from elysia.retrieval.analyzer import count_content_words

MIN_SENTENCE, MAX_SENTENCE = 4, 160  # characters of a sentence
MIN_WEIGHT = 0.3  # a sentence below is not worth its tokens
DECAY = 0.97  # of a sentence's weight with each new summary
DUPLICATE_SHARE = 0.7  # share of common words above which two sentences say the same
STATED_SHARE = 0.6  # share of a fact's words above which a sentence states it
ASSISTANT_WEIGHT = 0.8  # of the character's sentences, relative to the user's

_LINE = re.compile(r"^(\d{4}-\d\d-\d\d)(?: ([^:：]{1,40}))?[:：] ?(.+)$")

TokenCounter = Callable[[str], int]


@dataclass(frozen=True)
class SummarySentence:
    """A sentence of a summary. `day` is an ISO date, `weight` its importance from 0 to 1."""

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
    """The summary of an earlier summary and newer turns, in their order.

    `budget` is in tokens, as `count` counts them; `format_summary` of the result keeps within it.
    """
    old = [replace(sentence, weight=sentence.weight * DECAY) for sentence in before]
    candidates = _drop_repeated([*old, *_pick_sentences(turns)])
    order = sorted(range(len(candidates)), key=lambda n: (-candidates[n].weight, -n))
    chosen: list[int] = []
    remaining = budget
    for n in order:
        cost = count(format_summary([candidates[n]]) + "\n")
        if cost <= remaining:
            chosen.append(n)
            remaining -= cost
    # Lines together may cost more than each alone, by the tokens that join them.
    while chosen and count(format_summary([candidates[n] for n in sorted(chosen)])) > budget:
        chosen.pop()
    return [candidates[n] for n in sorted(chosen)]


def format_summary(summary: Sequence[SummarySentence]) -> str:
    """The summary as text: a line per sentence, with its day and speaker."""
    lines = [f"{item.day} {item.speaker}: {item.text}" for item in summary]
    return "\n".join(line.replace(" : ", ": ") for line in lines)


def parse_summary(text: str) -> list[SummarySentence]:
    """A summary from its text; the inverse of `format_summary`.

    >>> parse_summary("2024-05-01 Ann: I moved to Leeds")[0].speaker
    'Ann'
    """
    summary: list[SummarySentence] = []
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        day, speaker, words = match.groups() if match else ("", "", line.strip())
        if words:
            weight = _weigh(words, "user")
            summary.append(SummarySentence(day or "", (speaker or "").strip(), words, weight))
    return summary


def _pick_sentences(turns: Sequence[MemoryInput]) -> list[SummarySentence]:
    sentences: list[SummarySentence] = []
    for turn in turns:
        facts = [fact.text for fact in extract_facts(turn)]
        for sentence, is_question in split_sentences(turn.text):
            text = " ".join(sentence.split())
            if is_question or len(text) < MIN_SENTENCE:
                continue
            weight = _weigh(text, turn.role, sum(_is_stated_in(fact, text) for fact in facts))
            if weight >= MIN_WEIGHT:
                day = str(get_local_date(turn.at))
                sentences.append(SummarySentence(day, turn.speaker, _shorten(text), weight))
    return sentences


def _weigh(text: str, role: str, facts: int = 0) -> float:
    return score_importance(text, role, facts) * (1.0 if role == "user" else ASSISTANT_WEIGHT)


def _is_stated_in(fact: str, sentence: str) -> bool:
    words = count_content_words(fact)
    common = words & count_content_words(sentence)
    return common.total() >= STATED_SHARE * words.total()


def _drop_repeated(summary: Sequence[SummarySentence]) -> list[SummarySentence]:
    """Without the sentences that a later one repeats, or whose facts a later one replaces."""
    distinct: list[SummarySentence] = []
    later_slots: set[str] = set()
    for sentence in reversed(summary):
        facts = extract_facts(MemoryInput("", "", "user", "", sentence.text, 0.0))
        slots = {fact.slot for fact in facts}
        if slots and slots <= later_slots:
            continue
        if not any(_is_same(sentence.text, other.text) for other in distinct):
            distinct.append(sentence)
            later_slots |= slots
    return distinct[::-1]


def _is_same(text: str, other: str) -> bool:
    first, second = set(count_content_words(text)), set(count_content_words(other))
    return bool(first) and len(first & second) >= DUPLICATE_SHARE * len(first | second)


def _shorten(text: str) -> str:
    """A long sentence up to its last comma or space within MAX_SENTENCE."""
    if len(text) <= MAX_SENTENCE:
        return text
    ends = [match.end() for match in re.finditer(r"[，,、 ]", text[:MAX_SENTENCE])]
    return text[: ends[-1] if ends else MAX_SENTENCE].rstrip("，,、 ") + "…"
