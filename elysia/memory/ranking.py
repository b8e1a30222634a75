"""Which memories may answer a question: the index's hits and what stands beside them in the rows.

Knows nothing of how candidates are ranked.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, or_

from elysia.memory import memory_repository
from elysia.memory.base import MemoryScope
from elysia.memory.memory_repository import MAX_RANKED_FACTS, MemoryRow
from elysia.memory.query import ParsedQuery
from elysia.retrieval.analyzer import count_content_words, term_weight
from elysia.retrieval.index import HybridIndex
from elysia.store.tables import memories as table

INDEX_DEPTH = 48  # of the index's hits that are ranked
NEIGHBOUR_REACH = 2  # neighbours to each side that are ranked with a hit
MAX_EXPANDED = 16  # hits whose neighbours are looked at
MAX_DATED_TURNS = 160  # turns of the days that a question names
MAX_EDGE_TURNS = 24  # newest or oldest turns, for questions that ask for them
MAX_UNINDEXED = 100  # newest memories that the index may not find yet
# Subjects with names of their own, and the slots in which those stand.
PEOPLE_SUBJECTS = {"pet", "partner", "family", "mother", "father", "siblings", "baby", "friend"}
NAMED_SLOTS = ("pet:", "partner", "family:", "acquaintance:")
SEMANTIC_DEPTH = 8  # nearest by meaning that need no word in common

_NAME_PATTERN = re.compile(
    r"叫做?([\u4e00-\u9fff]{1,4}|[A-Z][a-z]+)|[和跟与]([\u4e00-\u9fff]{2,3})(?:分手|离婚|结婚|"
    r"订婚)|\b(?:called|named) ([A-Z][\w'-]+)"
)

_MEANT = re.compile(r"meaning #(\d+)")


def search_index(
    index: HybridIndex, key: str, asked: ParsedQuery
) -> tuple[dict[str, float], set[str]]:
    """Ids that the index finds, each with its score against the best; and those near by meaning."""
    found: dict[str, float] = {}
    meant: set[str] = set()
    own = index.search([key], asked.text, k=INDEX_DEPTH)
    # Fused ranks lie close together: the last of them is worth nothing.
    fused = any(_MEANT.search(hit.why) for hit in own)
    last = own[-1].score if fused else 0.0
    for hit in own:
        found[hit.id] = (hit.score - last) / ((own[0].score - last) or 1.0)
        near = _MEANT.search(hit.why)
        meant |= {hit.id} if near and int(near[1]) <= SEMANTIC_DEPTH else set()
    kin = " ".join(asked.synonyms)
    for hit in index.search([key], kin, k=INDEX_DEPTH // 2) if kin else []:
        found.setdefault(hit.id, 0.0)
    return found, meant


def collect_rows(
    connection: Connection, scope: MemoryScope, asked: ParsedQuery, found: Mapping[str, float]
) -> list[MemoryRow]:
    """The hits with their neighbours, facts, the days that are named, an end of time. Replaced
    facts are not among them.
    """
    pool = memory_repository.fetch_by_id(connection, scope, found)
    best = sorted(pool, key=lambda row: -found[row.id])[:MAX_EXPANDED]
    pool += memory_repository.fetch_neighbours(connection, scope, best, NEIGHBOUR_REACH)
    pool += memory_repository.fetch_newest_facts(connection, scope)
    if asked.days:
        pool += memory_repository.fetch_between(
            connection, scope, [span.bounds for span in asked.days], MAX_DATED_TURNS
        )
    for wanted, order in (
        (asked.recent, table.c.number.desc()),
        (asked.first, table.c.number.asc()),
    ):
        if wanted:
            pool += memory_repository.fetch_rows(
                connection, scope, table.c.kind == "turn", order=[order], limit=MAX_EDGE_TURNS
            )
    return [row for row in {row.id: row for row in pool}.values() if row.replaced_by is None]


def find_implied_names(connection: Connection, scope: MemoryScope, asked: ParsedQuery) -> set[str]:
    """The words of names that the question means: of the mother, the dog, the partner once had."""
    if not asked.subjects & PEOPLE_SUBJECTS:
        return set()
    facts = memory_repository.fetch_rows(
        connection, scope, table.c.kind == "fact",
        or_(*(table.c.slot.startswith(head) for head in NAMED_SLOTS)),
        order=[table.c.number.desc()], limit=MAX_RANKED_FACTS,
    )  # fmt: skip
    found: set[str] = set()
    for row in facts:
        head = str(row.slot).split(":")[0]
        if head in asked.subjects or set(count_content_words(row.text)) & {
            *asked.words,
            *asked.synonyms,
        }:
            found |= {
                word for name in extract_names(row.text) for word in count_content_words(name)
            }
    return found - set(asked.words)


def find_outdated_turns(
    connection: Connection, scope: MemoryScope, pool: list[MemoryRow]
) -> set[str]:
    """Messages that said a fact which was replaced or corrected since."""
    messages = {row.message_id for row in pool if row.kind == "turn" and row.message_id}
    return memory_repository.find_outdated_messages(connection, scope, messages)


def extract_names(text: str) -> list[str]:
    """The names in a fact about somebody.

    >>> extract_names("我养了一只橘猫，叫年糕"), extract_names("My sister is called Grace")
    (['年糕'], ['Grace'])
    """
    return [next(filter(None, hit)) for hit in _NAME_PATTERN.findall(text)]


MAX_COMPARED = 2_000  # characters of a memory that are compared
K1, B = 1.2, 0.4  # BM25's (Robertson and Zaragoza 2009); turns differ little in length
UNSEEN_PAIR = 0.2  # what a pair of characters that is nowhere weighs in a question
SYNONYM_WEIGHT = 0.35  # another word for the subject, against the word itself
CLAUSE_WEIGHT = 0.5  # how much the best part of a question counts beside the whole
NEXT_WEIGHT, SECOND_WEIGHT = 0.4, 0.15  # of a neighbour's score, and of the one behind it
INDEX_WEIGHT = (
    0.25  # the index's own opinion, which knows how rare a word is everywhere and what is meant
)
UNSURE_INDEX = 0.25  # how much it counts where no word of weight is shared
DAY_BONUS = 0.5  # said on a day that the question names
LATEST_BONUS, EARLIEST_BONUS = 0.35, 0.35  # for questions that ask for one end of time
SUBJECT_BONUS = 0.3  # a fact of the question's subject
SPEAKER_WEIGHT = 0.25  # said by whom the question asks for
IMPORTANCE_WEIGHT = 0.1  # importance
AGE_PENALTY, HALF_LIFE = 0.1, 90 * 86_400.0  # what the oldest memory loses, and how soon (seconds)
OUTDATED_FACTOR = 0.6  # what is left of a turn whose facts are no longer so


@dataclass
class MemoryCandidate:
    """A memory on its way up. `found`: the index's score against that of its best; `why`: so far."""

    row: MemoryRow
    found: float = 0.0
    meant: bool = False  # the index found it by its meaning, too
    stale: bool = False  # something it says was replaced or corrected since
    shares: bool = False  # a word of the question stands in it
    base: float = 0.0
    score: float = 0.0
    why: list[str] = field(default_factory=list)


def rerank(
    question: ParsedQuery, candidates: Sequence[MemoryCandidate], now: float
) -> list[MemoryCandidate]:
    """The candidates, best first, each with its score and reasons."""
    if not candidates:
        return []
    score_words(question, candidates)
    add_neighbour_scores(candidates)
    times = sorted({one.row.created for one in candidates})
    for one in candidates:
        one.score *= 1 + IMPORTANCE_WEIGHT * (one.row.importance - 0.5)
        one.score *= 1 - AGE_PENALTY * (1 - 0.5 ** (max(0.0, now - one.row.created) / HALF_LIFE))
        apply_speaker(question, one)
        boost_subject_facts(question, one)
        boost_times(question, one, times)
        if one.stale and not question.before:
            one.score *= OUTDATED_FACTOR
            one.why.append("replaced since")
    return sorted(candidates, key=lambda one: (-one.score, -one.row.created, one.row.id))


def score_words(question: ParsedQuery, candidates: Sequence[MemoryCandidate]) -> None:
    """BM25 among the candidates, with other words for the subjects; of parts, the best counts, too."""
    texts = [count_content_words(one.row.text[:MAX_COMPARED]) for one in candidates]
    rarity = _inverse_frequencies(texts, set(question.words) | set(question.synonyms))
    lengths = [sum(text.values()) for text in texts]
    mean = sum(lengths) / len(lengths) or 1.0
    full = _perfect_score(question.words, rarity)
    for one, text, length in zip(candidates, texts, lengths, strict=True):
        slow = K1 * (1 - B + B * length / mean)
        own = _bm25_score(question.words, text, rarity, slow) / full if full else 0.0
        if question.parts:
            best = max(
                _bm25_score(part, text, rarity, slow) / (_perfect_score(part, rarity) or 1.0)
                for part in question.parts
            )
            own = (own + CLAUSE_WEIGHT * best) / (1 + CLAUSE_WEIGHT)
        hits = sorted(
            (_term_score(w, text, rarity, slow) for w in question.synonyms.keys() & text),
            reverse=True,
        )
        kin = SYNONYM_WEIGHT * sum(hits[:2]) / (full or sum(hits) or 1.0)
        # What the index found by words like "what" and "the" alone, it did not find.
        sure = 1.0 if one.meant else min(1.0, UNSURE_INDEX + 2 * (own + kin))
        one.base = own + kin + INDEX_WEIGHT * sure * one.found
        one.shares = own > 0
        if own:
            one.why.append(f"words {own:.2f}")
        if kin:
            one.why.append(f"subject's words {kin:.2f}")


def _inverse_frequencies(texts: Sequence[Counter[str]], words: set[str]) -> dict[str, float]:
    there = Counter(word for text in texts for word in words if word in text)
    many = len(texts)
    found = {w: math.log(1 + (many - there[w] + 0.5) / (there[w] + 0.5)) for w in words}
    # A pair of Chinese characters that nobody wrote is mostly no word at all.
    return {w: n if there[w] or w.isascii() else UNSEEN_PAIR * n for w, n in found.items()}


def _perfect_score(words: Counter[str], rarity: dict[str, float]) -> float:
    return sum(term_weight(word) * rarity[word] * (K1 + 1) for word in words)


def _term_score(word: str, text: Counter[str], rarity: dict[str, float], slow: float) -> float:
    count = text.get(word, 0)
    return term_weight(word) * rarity[word] * count * (K1 + 1) / (count + slow) if count else 0.0


def _bm25_score(
    words: Counter[str], text: Counter[str], rarity: dict[str, float], slow: float
) -> float:
    return sum(_term_score(word, text, rarity, slow) for word in words.keys() & text)


def add_neighbour_scores(candidates: Sequence[MemoryCandidate]) -> None:
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
        one.score += NEXT_WEIGHT * beside + SECOND_WEIGHT * near
        if NEXT_WEIGHT * beside + SECOND_WEIGHT * near > one.base:
            one.why.append(f"beside a match {beside:.2f}")


def apply_speaker(question: ParsedQuery, one: MemoryCandidate) -> None:
    """Who asks what the character said wants her words; who asks of themselves, their own."""
    if one.row.kind == "turn":
        wanted = "assistant" if question.about_assistant else "user"
        one.score *= 1 + SPEAKER_WEIGHT if one.row.role == wanted else 1 - SPEAKER_WEIGHT
    if one.row.speaker and len(one.row.speaker) > 1 and one.row.speaker in question.text:
        one.score *= 1 + SPEAKER_WEIGHT


def boost_subject_facts(question: ParsedQuery, one: MemoryCandidate) -> None:
    """A current fact of what is asked for goes first."""
    slot = one.row.slot
    if one.row.kind == "fact" and slot and slot.split(":")[0] in question.subjects:
        one.score += SUBJECT_BONUS
        one.why.append(f"a fact of {slot.split(':')[0]}")


def boost_times(question: ParsedQuery, one: MemoryCandidate, times: Sequence[float]) -> None:
    """The days that the question names; the newest or the oldest, where it asks for them."""
    if any(span.contains(one.row.created) for span in question.days):
        one.score += DAY_BONUS
        one.why.append("that day")
    place = times.index(one.row.created) / (len(times) - 1) if len(times) > 1 else 0.5
    if question.recent or (question.now and one.row.kind == "turn"):
        one.score += LATEST_BONUS * place * min(1.0, one.score * 2 + 0.3)
    if question.first:
        one.score += EARLIEST_BONUS * (1 - place)
