"""Parses a question to a memory: words, subjects with synonyms, days, speaker, and end of time.

`subjects.toml` is the thesaurus: a question about "my pet" should find the dog.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from elysia.memory.dates import DateRange, find_date_ranges
from elysia.retrieval.analyzer import count_content_words, fold_text, stem

SUBJECTS = Path(__file__).with_name("subjects.toml")
MAX_QUESTION = 1_000  # characters of a question that are read

_RECENT = re.compile(
    r"\blast time\b|\blatest\b|\bmost recent|\brecent(?:ly)?\b|\blately\b|\bjust now\b|\bnewest\b|"
    r"上次|上回|最近|最新|刚才|刚刚|近来|这阵子"
)
_FIRST = re.compile(
    r"\bvery first\b|\bfirst (?:time|thing|chat|talk)|第一次|最初|最开始|一开始|刚认识"
)
_BEFORE = re.compile(
    r"\bused to\b|\bbefore\b|\bpreviously\b|\bformer|以前|曾经|之前|原来|过去|原先"
)
_NOW = re.compile(r"\bnow\b|\bstill\b|\bcurrently\b|\bthese days\b|现在|目前|如今|还在")
_ABOUT_ASSISTANT = re.compile(
    r"\byou(?:r)?\b.{0,30}\b(?:recommend|suggest|advi[sc]e|tell|told|say|said|mention|give|gave|"
    r"name|teach|taught|think|answer)|"
    r"\b(?:recommend|suggest|advi[sc]e|told|gave|given|taught)\w*\b.{0,20}\b(?:me|by you|to me)\b|"
    r"你.{0,8}(?:推荐|建议|说过|说的|告诉|教|让我|劝|觉得|提到|回答|提过|给过)"
)
_CLAUSE_BREAKS = re.compile(r"[，,；;、]|\band\b|\bthen\b|以及|还有|后来|然后")


@dataclass(frozen=True)
class ParsedQuery:
    """What a question asks for. `days` are the dates that it names."""

    text: str
    words: Counter[str]
    clauses: list[Counter[str]]  # the words of each; empty for a question of one clause
    subjects: set[str]
    days: list[DateRange]
    about_assistant: bool  # asks what the character said, not the user
    recent: bool
    first: bool
    before: bool
    now: bool
    synonyms: Counter[str] = field(default_factory=Counter)  # other words for the subjects


def parse_query(text: str, now: float) -> ParsedQuery:
    """Parse a question that is asked at `now` (seconds since 1970)."""
    text = text[:MAX_QUESTION]
    folded = fold_text(text)
    days = find_date_ranges(text, now)
    undated = folded
    for day in days:
        undated = undated.replace(fold_text(day.words), " ")
    words = count_content_words(undated)
    clauses = [
        clause for part in _CLAUSE_BREAKS.split(undated) if (clause := count_content_words(part))
    ]
    subjects = find_subjects(set(words), undated)
    return ParsedQuery(
        text=text,
        words=words,
        clauses=clauses if len(clauses) > 1 else [],
        subjects=subjects,
        days=days,
        about_assistant=bool(_ABOUT_ASSISTANT.search(folded)),
        recent=bool(_RECENT.search(folded)),
        first=bool(_FIRST.search(folded)),
        before=bool(_BEFORE.search(folded)),
        now=bool(_NOW.search(folded)),
        synonyms=_collect_synonyms(subjects, words),
    )


def find_subjects(words: set[str], text: str) -> set[str]:
    """The subjects of a question: by its words, and by Chinese words that occur anywhere in the text."""
    subjects = {subject for word in words for subject in _subjects_by_word().get(word, ())}
    for word, named in _subjects_by_word().items():
        if not word.isascii() and len(word) > 1 and word in text:
            subjects.update(named)
    return subjects


@cache
def load_subjects() -> dict[str, frozenset[str]]:
    """The thesaurus: subject to its words, folded; English ones stemmed."""
    table = tomllib.loads(SUBJECTS.read_text(encoding="utf-8"))
    return {
        subject: frozenset(
            stem(fold_text(word)) for line in words.values() for word in line.split()
        )
        for subject, words in table.items()
    }


@cache
def _subjects_by_word() -> dict[str, tuple[str, ...]]:
    subjects: dict[str, tuple[str, ...]] = {}
    for subject, words in load_subjects().items():
        for word in words:
            subjects[word] = (*subjects.get(word, ()), subject)
    return subjects


def _collect_synonyms(subjects: set[str], words: Counter[str]) -> Counter[str]:
    synonyms: Counter[str] = Counter()
    for subject in subjects:
        for word in load_subjects()[subject]:
            # Like the words of a text: pairs; a single character only where it is the whole word.
            terms = count_content_words(word)
            synonyms.update(term for term in terms if len(term) > 1 or len(word) == 1)
    return Counter({word: 1 for word in synonyms if word not in words})
