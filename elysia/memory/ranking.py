"""Ranks memories for a question in two stages: candidates from index and rows, then a rescoring.

Candidates are what the index finds, the turns beside those, the current facts, the turns of the days
that the question names, and one end of time where it asks for that. They are rescored by words,
neighbours, days, speaker and importance; a score lies between 0 and about 1, and is 0 for a memory that
shares nothing with the question.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import or_

from elysia.memory.base import ReasonKind, RecallReason
from elysia.memory.memory_repository import MAX_RANKED_FACTS, MemoryRepository, MemoryRow
from elysia.memory.query import ParsedQuery
from elysia.retrieval.analyzer import count_content_words, term_weight
from elysia.retrieval.bm25 import inverse_document_frequency, saturate
from elysia.retrieval.index import HybridIndex
from elysia.store.tables import memories as table

# First stage: how many candidates.
INDEX_DEPTH = 48  # hits of the index
SEMANTIC_DEPTH = 8  # nearest by meaning, which need no word in common
NEIGHBOUR_REACH = 2  # turns to each side of a hit
MAX_EXPANDED = 16  # hits whose neighbours are fetched
MAX_DATED_TURNS = 160  # turns of the days that a question names
MAX_EDGE_TURNS = 24  # newest or oldest turns, for questions that ask for them
MAX_UNINDEXED = 100  # newest memories that the index may not find yet
# Subjects whose names a question may leave out, and the slots of facts that hold them.
PEOPLE_SUBJECTS = {"pet", "partner", "family", "mother", "father", "siblings", "baby", "friend"}
NAMED_SLOTS = ("pet:", "partner", "family:", "acquaintance:")

# Second stage. The numbers were fitted to the half of `benchmarks/memory.py` that may be looked at.
MAX_COMPARED = 2_000  # characters of a memory that are compared
K1, B = 1.2, 0.4  # of BM25; turns differ little in length
UNSEEN_PAIR = 0.2  # weight of a pair of Chinese characters that no candidate has
SYNONYM_WEIGHT = 0.35  # another word for the subject, relative to the word itself
CLAUSE_WEIGHT = 0.5  # the best clause of a question, relative to the whole
NEXT_WEIGHT, SECOND_WEIGHT = (
    0.4,
    0.15,
)  # of the score of the next neighbour, and of the one behind it
INDEX_WEIGHT = 0.25  # the index's opinion: it knows how rare a word is everywhere, and meanings
UNSURE_INDEX = 0.25  # how much of that counts where no word of weight is shared
DAY_BONUS = 0.5  # a day that the question names
LATEST_BONUS, EARLIEST_BONUS = 0.35, 0.35  # for questions that ask for one end of time
SUBJECT_BONUS = 0.3  # a fact of the question's subject
SPEAKER_WEIGHT = 0.25  # words of the speaker that the question asks for
IMPORTANCE_WEIGHT = 0.1
AGE_PENALTY, HALF_LIFE = 0.1, 90 * 86_400.0  # what the oldest memory loses, and how soon (seconds)
OUTDATED_FACTOR = 0.6  # what remains of a turn whose facts no longer hold

_NAME_PATTERN = re.compile(
    r"叫做?([\u4e00-\u9fff]{1,4}|[A-Z][a-z]+)|[和跟与]([\u4e00-\u9fff]{2,3})(?:分手|离婚|结婚|"
    r"订婚)|\b(?:called|named) ([A-Z][\w'-]+)"
)


@dataclass
class MemoryCandidate:
    """A memory that is being scored. `index_score` is relative to the index's best hit."""

    row: MemoryRow
    index_score: float = 0.0
    is_semantic_hit: bool = False  # among the nearest by meaning
    is_outdated: bool = False  # a fact that it states was replaced or corrected since
    shares_words: bool = False  # a word of the question occurs in it
    base_score: float = 0.0  # before its neighbours count
    score: float = 0.0
    reasons: list[RecallReason] = field(default_factory=list)

    def add_reason(self, kind: ReasonKind, value: float | str = "") -> None:
        """Note what raised or lowered the score."""
        self.reasons.append(RecallReason(kind, value))


def search_index(
    index: HybridIndex, key: str, query: ParsedQuery
) -> tuple[dict[str, float], set[str]]:
    """Ids that the index finds, each with its score relative to the best; and the nearest by meaning."""
    scores: dict[str, float] = {}
    hits = index.search([key], query.text, k=INDEX_DEPTH)
    # With vectors even the last hit scores well, as something is always nearest: it counts as 0.
    has_vectors = any(hit.semantic_rank is not None for hit in hits)
    lowest = hits[-1].score if has_vectors else 0.0
    for hit in hits:
        scores[hit.id] = (hit.score - lowest) / ((hits[0].score - lowest) or 1.0)
    synonyms = " ".join(query.synonyms)
    for hit in index.search([key], synonyms, k=INDEX_DEPTH // 2) if synonyms else []:
        scores.setdefault(hit.id, 0.0)
    nearest = {hit.id for hit in hits if hit.semantic_rank and hit.semantic_rank <= SEMANTIC_DEPTH}
    return scores, nearest


def collect_rows(
    repository: MemoryRepository, query: ParsedQuery, scores: Mapping[str, float]
) -> list[MemoryRow]:
    """All candidates: the hits and everything else that may answer; never replaced facts."""
    rows = repository.fetch_by_id(scores)
    best = sorted(rows, key=lambda row: -scores[row.id])[:MAX_EXPANDED]
    rows += repository.fetch_neighbours(best, NEIGHBOUR_REACH)
    rows += repository.fetch_newest_facts()
    if query.days:
        rows += repository.fetch_between([day.bounds for day in query.days], MAX_DATED_TURNS)
    for is_asked_for, order in (
        (query.recent, table.c.number.desc()),
        (query.first, table.c.number.asc()),
    ):
        if is_asked_for:
            rows += repository.fetch(table.c.kind == "turn", order=[order], limit=MAX_EDGE_TURNS)
    distinct = {row.id: row for row in rows}.values()
    return [row for row in distinct if row.replaced_by is None]


def find_implied_names(repository: MemoryRepository, query: ParsedQuery) -> set[str]:
    """The names that a question leaves out: of the mother, the dog, the partner."""
    if not query.subjects & PEOPLE_SUBJECTS:
        return set()
    facts = repository.fetch(
        table.c.kind == "fact",
        or_(*(table.c.slot.startswith(prefix) for prefix in NAMED_SLOTS)),
        order=[table.c.number.desc()],
        limit=MAX_RANKED_FACTS,
    )
    words: set[str] = set()
    for row in facts:
        subject = str(row.slot).split(":")[0]
        is_shared = set(count_content_words(row.text)) & {*query.words, *query.synonyms}
        if subject in query.subjects or is_shared:
            names = extract_names(row.text)
            words |= {word for name in names for word in count_content_words(name)}
    return words - set(query.words)


def extract_names(text: str) -> list[str]:
    """The names in a fact about somebody.

    >>> extract_names("我养了一只橘猫，叫年糕"), extract_names("My sister is called Grace")
    (['年糕'], ['Grace'])
    """
    return [next(filter(None, groups)) for groups in _NAME_PATTERN.findall(text)]


def find_outdated_turns(repository: MemoryRepository, rows: Collection[MemoryRow]) -> set[str]:
    """Ids of messages that stated a fact which was replaced or corrected since."""
    messages = {row.message_id for row in rows if row.kind == "turn" and row.message_id}
    return repository.find_outdated_messages(messages)


def rerank(
    query: ParsedQuery, candidates: Sequence[MemoryCandidate], now: float
) -> list[MemoryCandidate]:
    """The candidates, best first, each with its score and reasons. `now`: seconds since 1970."""
    if not candidates:
        return []
    score_words(query, candidates)
    add_neighbour_scores(candidates)
    times = sorted({candidate.row.created for candidate in candidates})
    for candidate in candidates:
        row = candidate.row
        candidate.score *= 1 + IMPORTANCE_WEIGHT * (row.importance - 0.5)
        age = max(0.0, now - row.created)
        candidate.score *= 1 - AGE_PENALTY * (1 - 0.5 ** (age / HALF_LIFE))
        apply_speaker(query, candidate)
        boost_subject_facts(query, candidate)
        boost_times(query, candidate, times)
        if candidate.is_outdated and not query.before:
            candidate.score *= OUTDATED_FACTOR
            candidate.add_reason(ReasonKind.OUTDATED)
    return sorted(candidates, key=lambda item: (-item.score, -item.row.created, item.row.id))


def score_words(query: ParsedQuery, candidates: Sequence[MemoryCandidate]) -> None:
    """BM25 among the candidates, relative to a perfect match; synonyms of the subjects count less, and
    of several clauses the best counts besides the whole.
    """
    texts = [count_content_words(item.row.text[:MAX_COMPARED]) for item in candidates]
    rarity = _inverse_frequencies(texts, set(query.words) | set(query.synonyms))
    lengths = [sum(text.values()) for text in texts]
    mean = sum(lengths) / len(lengths) or 1.0
    perfect = _perfect_score(query.words, rarity)
    for candidate, text, length in zip(candidates, texts, lengths, strict=True):
        ratio = length / mean
        score = _bm25_score(query.words, text, rarity, ratio) / perfect if perfect else 0.0
        if query.clauses:
            best = max(
                _bm25_score(clause, text, rarity, ratio) / (_perfect_score(clause, rarity) or 1.0)
                for clause in query.clauses
            )
            score = (score + CLAUSE_WEIGHT * best) / (1 + CLAUSE_WEIGHT)
        matches = query.synonyms.keys() & text
        gains = sorted((_term_score(word, text, rarity, ratio) for word in matches), reverse=True)
        # Two synonyms are enough: more of them say no more of the subject.
        synonyms = SYNONYM_WEIGHT * sum(gains[:2]) / (perfect or sum(gains) or 1.0)
        # What the index found by words like "what" and "the" alone, it did not find.
        trust = (
            1.0 if candidate.is_semantic_hit else min(1.0, UNSURE_INDEX + 2 * (score + synonyms))
        )
        candidate.base_score = score + synonyms + INDEX_WEIGHT * trust * candidate.index_score
        candidate.shares_words = score > 0
        if score:
            candidate.add_reason(ReasonKind.WORDS, score)
        if synonyms:
            candidate.add_reason(ReasonKind.SYNONYMS, synonyms)


def _inverse_frequencies(texts: Sequence[Counter[str]], words: set[str]) -> dict[str, float]:
    containing = Counter(word for text in texts for word in words if word in text)
    rarity = {word: inverse_document_frequency(len(texts), containing[word]) for word in words}
    # A pair of Chinese characters that nobody wrote is mostly not a word at all.
    return {
        word: value if containing[word] or word.isascii() else UNSEEN_PAIR * value
        for word, value in rarity.items()
    }


def _perfect_score(words: Counter[str], rarity: dict[str, float]) -> float:
    return sum(term_weight(word) * rarity[word] * (K1 + 1) for word in words)


def _term_score(word: str, text: Counter[str], rarity: dict[str, float], ratio: float) -> float:
    if not (count := text.get(word, 0)):
        return 0.0
    return term_weight(word) * rarity[word] * saturate(count, ratio, k1=K1, b=B)


def _bm25_score(
    words: Counter[str], text: Counter[str], rarity: dict[str, float], ratio: float
) -> float:
    return sum(_term_score(word, text, rarity, ratio) for word in words.keys() & text)


def add_neighbour_scores(candidates: Sequence[MemoryCandidate]) -> None:
    """A turn gains from its neighbours: the answer often stands beside what the question matches."""
    scores: dict[tuple[str | None, int], float] = {}
    for candidate in candidates:
        if candidate.row.kind == "turn":
            scores[candidate.row.conversation_id, candidate.row.number] = candidate.base_score
    for candidate in candidates:
        candidate.score = candidate.base_score
        if candidate.row.kind != "turn":
            continue
        conversation, number = candidate.row.conversation_id, candidate.row.number
        following = max(scores.get((conversation, number + step), 0.0) for step in (-1, 1))
        second = max(scores.get((conversation, number + step), 0.0) for step in (-2, 2))
        gain = NEXT_WEIGHT * following + SECOND_WEIGHT * second
        candidate.score += gain
        if gain > candidate.base_score:
            candidate.add_reason(ReasonKind.NEIGHBOUR, following)


def apply_speaker(query: ParsedQuery, candidate: MemoryCandidate) -> None:
    """Prefer the character's words where the question asks what they said, else the user's own."""
    row = candidate.row
    if row.kind == "turn":
        speaker = "assistant" if query.about_assistant else "user"
        candidate.score *= 1 + SPEAKER_WEIGHT if row.role == speaker else 1 - SPEAKER_WEIGHT
    if row.speaker and len(row.speaker) > 1 and row.speaker in query.text:
        candidate.score *= 1 + SPEAKER_WEIGHT


def boost_subject_facts(query: ParsedQuery, candidate: MemoryCandidate) -> None:
    """A current fact of the question's subject goes first."""
    slot = candidate.row.slot
    if candidate.row.kind == "fact" and slot and slot.split(":")[0] in query.subjects:
        candidate.score += SUBJECT_BONUS
        candidate.add_reason(ReasonKind.SUBJECT_FACT, slot.split(":")[0])


def boost_times(query: ParsedQuery, candidate: MemoryCandidate, times: Sequence[float]) -> None:
    """Prefer the days that the question names, and the newest or oldest where it asks for those.

    `times`: the distinct times of all candidates, in order.
    """
    if any(day.contains(candidate.row.created) for day in query.days):
        candidate.score += DAY_BONUS
        candidate.add_reason(ReasonKind.DAY)
    position = times.index(candidate.row.created) / (len(times) - 1) if len(times) > 1 else 0.5
    if query.recent or (query.now and candidate.row.kind == "turn"):
        candidate.score += LATEST_BONUS * position * min(1.0, candidate.score * 2 + 0.3)
    if query.first:
        candidate.score += EARLIEST_BONUS * (1 - position)
