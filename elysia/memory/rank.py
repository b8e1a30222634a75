"""Which of the candidates answer a question: words, neighbours, days, whose words, importance.

A candidate's score lies between 0 and about 1; what shares nothing with the question has 0. Knows
nothing of databases or indexes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from elysia.memory.question import Question
from elysia.memory.rows import Row
from elysia.memory.words import content, worth

LONGEST = 2_000  # characters of a memory that are compared
K1, B = 1.2, 0.4  # BM25's (Robertson and Zaragoza 2009); turns differ little in length
NO_WORD = 0.2  # what a pair of characters that is nowhere weighs in a question
KIN = 0.35  # another word for the subject, against the word itself
PART = 0.5  # how much the best part of a question counts beside the whole
BESIDE, NEAR = 0.4, 0.15  # of a neighbour's score, and of the one behind it
INDEX = 0.25  # the index's own opinion, which knows how rare a word is everywhere and what is meant
UNSURE = 0.25  # how much it counts where no word of weight is shared
DAY = 0.5  # said on a day that the question names
LATEST, EARLIEST = 0.35, 0.35  # for questions that ask for one end of time
SUBJECT = 0.3  # a fact of the question's subject
VOICE = 0.25  # said by whom the question asks for
WEIGHT = 0.1  # importance
AGE, HALF_LIFE = 0.1, 90 * 86_400.0  # what the oldest memory loses, and how soon (seconds)
REPLACED = 0.6  # what is left of a turn whose facts are no longer so


@dataclass
class Candidate:
    """A memory on its way up. `found`: the index's score against that of its best; `why`: so far."""

    row: Row
    found: float = 0.0
    meant: bool = False  # the index found it by its meaning, too
    stale: bool = False  # something it says was replaced or corrected since
    shares: bool = False  # a word of the question stands in it
    base: float = 0.0
    score: float = 0.0
    why: list[str] = field(default_factory=list)


def rank(question: Question, candidates: Sequence[Candidate], now: float) -> list[Candidate]:
    """The candidates, best first, each with its score and reasons."""
    if not candidates:
        return []
    by_words(question, candidates)
    with_neighbours(candidates)
    times = sorted({one.row.created for one in candidates})
    for one in candidates:
        one.score *= 1 + WEIGHT * (one.row.importance - 0.5)
        one.score *= 1 - AGE * (1 - 0.5 ** (max(0.0, now - one.row.created) / HALF_LIFE))
        by_voice(question, one)
        by_subject(question, one)
        by_time(question, one, times)
        if one.stale and not question.before:
            one.score *= REPLACED
            one.why.append("replaced since")
    return sorted(candidates, key=lambda one: (-one.score, -one.row.created, one.row.id))


def by_words(question: Question, candidates: Sequence[Candidate]) -> None:
    """BM25 among the candidates, with other words for the subjects; of parts, the best counts, too."""
    texts = [content(one.row.text[:LONGEST]) for one in candidates]
    rarity = _rarity(texts, set(question.words) | set(question.kin))
    lengths = [sum(text.values()) for text in texts]
    mean = sum(lengths) / len(lengths) or 1.0
    full = _full(question.words, rarity)
    for one, text, length in zip(candidates, texts, lengths, strict=True):
        slow = K1 * (1 - B + B * length / mean)
        own = _sum(question.words, text, rarity, slow) / full if full else 0.0
        if question.parts:
            best = max(
                _sum(part, text, rarity, slow) / (_full(part, rarity) or 1.0)
                for part in question.parts
            )
            own = (own + PART * best) / (1 + PART)
        hits = sorted(
            (_gain(w, text, rarity, slow) for w in question.kin.keys() & text), reverse=True
        )
        kin = KIN * sum(hits[:2]) / (full or sum(hits) or 1.0)
        # What the index found by words like "what" and "the" alone, it did not find.
        sure = 1.0 if one.meant else min(1.0, UNSURE + 2 * (own + kin))
        one.base = own + kin + INDEX * sure * one.found
        one.shares = own > 0
        if own:
            one.why.append(f"words {own:.2f}")
        if kin:
            one.why.append(f"subject's words {kin:.2f}")


def _rarity(texts: Sequence[Counter[str]], words: set[str]) -> dict[str, float]:
    there = Counter(word for text in texts for word in words if word in text)
    many = len(texts)
    found = {w: math.log(1 + (many - there[w] + 0.5) / (there[w] + 0.5)) for w in words}
    # A pair of Chinese characters that nobody wrote is mostly no word at all.
    return {w: n if there[w] or w.isascii() else NO_WORD * n for w, n in found.items()}


def _full(words: Counter[str], rarity: dict[str, float]) -> float:
    return sum(worth(word) * rarity[word] * (K1 + 1) for word in words)


def _gain(word: str, text: Counter[str], rarity: dict[str, float], slow: float) -> float:
    count = text.get(word, 0)
    return worth(word) * rarity[word] * count * (K1 + 1) / (count + slow) if count else 0.0


def _sum(words: Counter[str], text: Counter[str], rarity: dict[str, float], slow: float) -> float:
    return sum(_gain(word, text, rarity, slow) for word in words.keys() & text)


def with_neighbours(candidates: Sequence[Candidate]) -> None:
    """A turn gains from its neighbours: the answer often stands beside what the question matches."""
    turns: dict[tuple[str | None, int], float] = {}
    for one in candidates:
        if one.row.kind == "turn":
            turns[one.row.conversation_id, one.row.number] = one.base
    for one in candidates:
        one.score = one.base
        if one.row.kind != "turn":
            continue
        talk, place = one.row.conversation_id, one.row.number
        beside = max(turns.get((talk, place + step), 0.0) for step in (-1, 1))
        near = max(turns.get((talk, place + step), 0.0) for step in (-2, 2))
        one.score += BESIDE * beside + NEAR * near
        if BESIDE * beside + NEAR * near > one.base:
            one.why.append(f"beside a match {beside:.2f}")


def by_voice(question: Question, one: Candidate) -> None:
    """Who asks what the character said wants her words; who asks of themselves, their own."""
    if one.row.kind == "turn":
        wanted = "assistant" if question.theirs else "user"
        one.score *= 1 + VOICE if one.row.role == wanted else 1 - VOICE
    if one.row.speaker and len(one.row.speaker) > 1 and one.row.speaker in question.text:
        one.score *= 1 + VOICE


def by_subject(question: Question, one: Candidate) -> None:
    """A current fact of what is asked for goes first."""
    slot = one.row.slot
    if one.row.kind == "fact" and slot and slot.split(":")[0] in question.subjects:
        one.score += SUBJECT
        one.why.append(f"a fact of {slot.split(':')[0]}")


def by_time(question: Question, one: Candidate, times: Sequence[float]) -> None:
    """The days that the question names; the newest or the oldest, where it asks for them."""
    if any(span.holds(one.row.created) for span in question.days):
        one.score += DAY
        one.why.append("that day")
    place = times.index(one.row.created) / (len(times) - 1) if len(times) > 1 else 0.5
    if question.recent or (question.now and one.row.kind == "turn"):
        one.score += LATEST * place * min(1.0, one.score * 2 + 0.3)
    if question.first:
        one.score += EARLIEST * (1 - place)
