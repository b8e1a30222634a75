"""What a user says of themselves, by rules: each a sentence of theirs with a slot, and no trivia.

A slot is what a fact is about ("home", "pet:Biscuit", "taste:coffee"); of one slot the newest fact
counts. Questions, suppositions, quotations, roles that are played and what is said of other people
make no facts. Knows nothing of where facts are kept. Another way of finding them, a model for
instance, is any `FactExtractor`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from elysia.memory.base import MemoryInput
from elysia.retrieval.analyzer import stem

MAX_MESSAGE = 4_000  # characters of a message that are read; longer ones are pasted texts
MERGED_SLOTS = {"home", "job", "school"}
MAX_FACTS = 8  # facts of one message; somebody who says more is telling a story

_HAN = re.compile("[\u3400-\u9fff]")
_QUOTED = re.compile("“[^”]*”|「[^」]*」|『[^』]*』|\"[^\"\n]*\"|(?<!\\w)'[^'\n]{8,}'(?!\\w)")
_OWN = re.compile(r"我|\b(?:I|I'm|my|me)\b", re.I)
_PLAYED = re.compile(
    r"扮演|角色扮演|假装|装作|演一个|剧本|小说里|故事里|歌词|台词|翻译|设定是|"
    r"\brole-?play|\bpretend|\blyrics?\b|\bin (?:the|this|my) (?:story|novel|play|game)\b|"
    r"\bact as\b|\btranslate\b|\bmy character\b|^\s*[*（(>]",
    re.I | re.M,
)
_SENTENCES = re.compile(r"[^。！？!?；;\n.]+(?:\.(?=\S)[^。！？!?；;\n.]*)*[。！？!?；;\n.]*")


@dataclass(frozen=True)
class UserFact:
    """Something that is so, in the user's words. Importance is from 0 to 1.

    With `against`, it is only news to somebody who remembers a fact of the slot with that word; a
    slot that ends in `*` is then any that begins so.
    """

    slot: str
    text: str
    importance: float = 0.7
    against: str | None = None


class FactExtractor(Protocol):
    """Finds facts of the user in a message. May be called from several threads."""

    def __call__(self, heard: MemoryInput) -> Sequence[UserFact]:
        """The facts, in the order in which they were said."""


def extract_facts(heard: MemoryInput) -> list[UserFact]:
    """The facts that a user's message states of the user; none in anybody else's."""
    from elysia.memory.extract.chinese import extract_chinese
    from elysia.memory.extract.english import extract_english

    if heard.role != "user" or _PLAYED.search(heard.text[:MAX_MESSAGE]):
        return []
    found: dict[str, UserFact] = {}
    text = _QUOTED.sub(_drop_quotation, heard.text[:MAX_MESSAGE])
    for sentence, asked in split_sentences(text):
        read, comma = (extract_chinese, "，") if _HAN.search(sentence) else (extract_english, ", ")
        here: dict[str, UserFact] = {}
        for fact in read(sentence, asked, heard.at):
            before = here.get(fact.slot)
            # "I moved to Hangzhou, I live by the canal" is one fact.
            if before and fact.slot in MERGED_SLOTS and before.text not in fact.text:
                fact = replace(fact, text=f"{before.text}{comma}{fact.text}")
            here[fact.slot] = fact
        found |= here  # what is said last counts
    return list(found.values())[:MAX_FACTS]


def split_sentences(text: str) -> Iterator[tuple[str, bool]]:
    """Each sentence without its end, and whether it is a question.

    >>> list(split_sentences("我叫林晓。你呢？"))
    [('我叫林晓', False), ('你呢', True)]
    """
    for hit in _SENTENCES.findall(text):
        body = hit.strip().rstrip("。！!？?；;.\n ")
        if body:
            yield body, "?" in hit[len(body) :] or "？" in hit[len(body) :]


def build_slot_name(thing: str) -> str:
    """What a slot calls a thing: "Playing pianos" and "play piano" are one.

    >>> build_slot_name("playing the piano") == build_slot_name("play pianos")
    True
    """
    thing = re.sub(r"^(?:the|a|an|to|some|any|my|more|much)\s+", "", thing.strip().casefold())
    words = [stem(word) for word in re.findall(r"[^\W_]+", thing) if word not in _ARTICLES]
    return " ".join(words)[:60]


_ARTICLES = {"the", "a", "an", "of", "my", "so", "too", "very", "much", "really"}


def _drop_quotation(hit: re.Match[str]) -> str:
    # A quoted name or title stays; somebody's words do not.
    inner = hit.group()[1:-1]
    return "…" if _OWN.search(inner) or len(inner) > 40 else inner
