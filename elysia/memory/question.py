"""What a question to a memory asks for: words, subjects, days, whose words, and which end of time.

Knows nothing of what is remembered.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from elysia.memory.concepts import subjects_of, words_of
from elysia.memory.when import Span, spans
from elysia.memory.words import content
from elysia.retrieval.words import fold

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
_THEIRS = re.compile(
    r"\byou(?:r)?\b.{0,30}\b(?:recommend|suggest|advi[sc]e|tell|told|say|said|mention|give|gave|"
    r"name|teach|taught|think|answer)|"
    r"\b(?:recommend|suggest|advi[sc]e|told|gave|given|taught)\w*\b.{0,20}\b(?:me|by you|to me)\b|"
    r"你.{0,8}(?:推荐|建议|说过|说的|告诉|教|让我|劝|觉得|提到|回答|提过|给过)"
)
_PARTS = re.compile(r"[，,；;、]|\band\b|\bthen\b|以及|还有|后来|然后")


@dataclass(frozen=True)
class Question:
    """A question, read. `theirs`: it asks for what the character said, not the user."""

    text: str
    words: Counter[str]
    parts: list[Counter[str]]
    subjects: set[str]
    days: list[Span]
    theirs: bool
    recent: bool
    first: bool
    before: bool
    now: bool
    kin: Counter[str] = field(default_factory=Counter)  # other words for the subjects


def read_question(text: str, now: float) -> Question:
    """Read a question that is asked at `now` (seconds since 1970)."""
    text = text[:1_000]
    lower = fold(text)
    days = spans(text, now)
    bare = lower
    for span in days:
        bare = bare.replace(fold(span.words), " ")
    words = content(bare)
    parts = [part for part in (content(part) for part in _PARTS.split(bare)) if part]
    subjects = subjects_of(set(words), bare)
    kin: Counter[str] = Counter()
    for subject in subjects:
        for word in words_of(subject):
            # As a text's words are: pairs; a single character only where it is the word.
            kin.update(part for part in content(word) if len(part) > 1 or len(word) == 1)
    for word in words:
        kin.pop(word, None)
    return Question(
        text=text,
        words=words,
        parts=parts if len(parts) > 1 else [],
        subjects=subjects,
        days=days,
        theirs=bool(_THEIRS.search(lower)),
        recent=bool(_RECENT.search(lower)),
        first=bool(_FIRST.search(lower)),
        before=bool(_BEFORE.search(lower)),
        now=bool(_NOW.search(lower)),
        kin=Counter(dict.fromkeys(kin, 1)),
    )
