"""Extracts facts about the user from a message, by rules: a sentence of theirs with a slot each.

A slot is what a fact is about ("home", "pet:Biscuit", "taste:coffee"); the newest fact of a slot counts.
Questions, suppositions, quotations, role play and what is said of other people give no facts. Any other
way to find facts, such as a model, is a `FactExtractor`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from elysia.memory.base import MemoryInput
from elysia.memory.extract.slots import UserFact

__all__ = ["FactExtractor", "UserFact", "extract_facts", "split_sentences"]

MAX_MESSAGE = 4_000  # characters of a message that are read; longer ones are pasted texts
MAX_FACTS = 8  # of one message; whoever states more is telling a story
# "I moved to Hangzhou, I live by the canal": facts of these slots in one sentence are joined.
MERGED_SLOTS = {"home", "job", "school"}

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


class FactExtractor(Protocol):
    """Finds facts about the user in a message. May be called from several threads."""

    def __call__(self, message: MemoryInput) -> Sequence[UserFact]:
        """The facts, in the order in which they were stated."""


def extract_facts(message: MemoryInput) -> list[UserFact]:
    """The facts that a user's message states about the user; none of anybody else's message."""
    # Imported late: compiling their patterns takes 0.2 s.
    from elysia.memory.extract.chinese import extract_chinese
    from elysia.memory.extract.english import extract_english

    if message.role != "user" or _PLAYED.search(message.text[:MAX_MESSAGE]):
        return []
    facts: dict[str, UserFact] = {}
    text = _QUOTED.sub(_drop_quotation, message.text[:MAX_MESSAGE])
    for sentence, is_question in split_sentences(text):
        is_chinese = _HAN.search(sentence)
        extract, comma = (extract_chinese, "，") if is_chinese else (extract_english, ", ")
        in_sentence: dict[str, UserFact] = {}
        for fact in extract(sentence, is_question, message.at):
            before = in_sentence.get(fact.slot)
            if before and fact.slot in MERGED_SLOTS and before.text not in fact.text:
                fact = replace(fact, text=f"{before.text}{comma}{fact.text}")
            in_sentence[fact.slot] = fact
        facts |= in_sentence  # the last statement counts
    return list(facts.values())[:MAX_FACTS]


def split_sentences(text: str) -> Iterator[tuple[str, bool]]:
    """Each sentence without its final punctuation, and whether it is a question.

    >>> list(split_sentences("我叫林晓。你呢？"))
    [('我叫林晓', False), ('你呢', True)]
    """
    for sentence in _SENTENCES.findall(text):
        body = sentence.strip().rstrip("。.!！？?；;\n ")
        if body:
            end = sentence[len(body) :]
            yield body, "?" in end or "？" in end


def _drop_quotation(match: re.Match[str]) -> str:
    # A quoted name or title stays; somebody's words do not.
    inner = match.group()[1:-1]
    return "…" if _OWN.search(inner) or len(inner) > 40 else inner
