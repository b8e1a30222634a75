"""The prompt of one reply: the card, what is recalled and looked up, and as much of the history as fits.

The card and the newest message always stay. What remains of the context is shared out: each
`PromptSection` has a share of it, the newest messages of the history take the rest, and the card's
example dialogue what is left at the end. What found no room is listed in the breakdown.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from elysia.chat.message_tree import pack_text
from elysia.chat.prompt.character_state import CharacterState, PromptFrame, TokenBudget, fit_history
from elysia.core.errors import EngineError
from elysia.core.lorebook_activation import ActivatedEntry
from elysia.core.messages import Message
from elysia.knowledge.base import SearchHit
from elysia.memory.base import MemoryHit

HAN_PATTERN = re.compile(r"[\u3400-\u9fff]")
SECTION_TITLES = {
    "zh": {
        "summary": "此前谈过的：",
        "memory": "{char}记得关于{user}的这些事：",
        "documents": "查到的资料（引用时写编号）：",
        "outdated": "（后来变了）",
    },
    "en": {
        "summary": "Earlier in this talk:",
        "memory": "What {char} remembers of {user}:",
        "documents": "Notes that were looked up (cite them by number):",
        "outdated": " (has changed since)",
    },
}
ITEM_OVERHEAD = 12  # tokens of an item's number, name or date, about


@dataclass(frozen=True)
class PromptSources:
    """Where a prompt may draw from. Each is asked once.

    `recall(question, ids)` searches memory, leaving out what messages `ids` say; `search(question)`
    searches documents; `summarize(ids, tokens)` sums up messages that no longer fit.
    """

    recall: Callable[[str, Sequence[str]], list[MemoryHit]] = lambda _question, _without: []
    search: Callable[[str], list[SearchHit]] = lambda _question: []
    summarize: Callable[[Sequence[str], int], str] = lambda _left_out, _budget: ""


@dataclass(frozen=True)
class ComposedPrompt:
    """A prompt, and its breakdown: plain values that say what entered it, why, and what did not.

    `matched` are the ids of the lore entries that were activated.
    """

    messages: list[Message]
    breakdown: dict[str, Any] = field(default_factory=dict)
    matched: frozenset[str] = frozenset()


def build_prompt(
    character: CharacterState,
    messages: Sequence[Message],
    ids: Sequence[str],
    *,
    count: Callable[[Sequence[Message]], int],
    budget: TokenBudget,
    sources: PromptSources,
    system: str = "",
    note: str = "",
    examples: bool = True,
) -> ComposedPrompt:
    """The prompt for an answer to the last of `messages`, whose ids are `ids`.

    `count` gives the tokens of a chat prompt; `note` always stands behind the card. Raises EngineError
    when the newest message and the card do not fit the context by themselves.
    """
    builder = _PromptBuilder(character, messages, ids, count, budget)
    return builder.build(sources, system, note, examples)


def detect_language(text: str) -> str:
    """zh or en: the language in which a character is spoken to beside the conversation itself.

    >>> detect_language("你好 Tom"), detect_language("hello")
    ('zh', 'en')
    """
    return "zh" if HAN_PATTERN.search(text) else "en"


class PromptSection(ABC):
    """A part of the prompt behind the card, with its share of the room that the card leaves."""

    share: float

    def __init__(self, titles: dict[str, str]) -> None:
        self.titles = titles
        # Items with the tokens of each.
        self.entered: list[tuple[Any, int]] = []
        self.dropped: list[tuple[Any, int]] = []

    @property
    def tokens(self) -> int:
        """What has entered takes, about."""
        return sum(tokens for _, tokens in self.entered)

    def fill(self, items: Sequence[tuple[Any, int]], budget: int) -> None:
        """Take in (item, tokens), the best first, as far as they fit `budget` tokens."""
        used = 0
        for item, tokens in items:
            if used + tokens <= budget:
                self.entered.append((item, tokens))
                used += tokens
            else:
                self.dropped.append((item, tokens))

    @abstractmethod
    def render(self, names: dict[str, str]) -> list[str]:
        """The section's lines; none when nothing entered. `names` holds `char` and `user`."""


class SummarySection(PromptSection):
    """What was said before the history that still fits."""

    share = 0.10

    @property
    def text(self) -> str:
        return self.entered[0][0] if self.entered else ""

    def render(self, names: dict[str, str]) -> list[str]:
        return [self.titles["summary"], self.text] if self.text else []


class MemorySection(PromptSection):
    """What the character remembers of the user."""

    share = 0.15

    def render(self, names: dict[str, str]) -> list[str]:
        if not self.entered:
            return []
        lines = [self.titles["memory"].format(**names)]
        for hit, _ in self.entered:
            outdated = "" if hit.memory.current else self.titles["outdated"]
            lines.append(
                f"- ({_format_day(hit.memory.at)}) {_join_lines(hit.memory.text)}{outdated}"
            )
        return lines


class DocumentSection(PromptSection):
    """Passages that were looked up, numbered for citations."""

    share = 0.25

    def render(self, names: dict[str, str]) -> list[str]:
        if not self.entered:
            return []
        passages = [
            f"[{number}] {_join_lines(hit.name)}: {hit.text.strip()}"
            for number, (hit, _) in enumerate(self.entered, 1)
        ]
        return [self.titles["documents"], *passages]


class _PromptBuilder:
    """The steps of `build_prompt` over one conversation."""

    def __init__(
        self,
        character: CharacterState,
        messages: Sequence[Message],
        ids: Sequence[str],
        count: Callable[[Sequence[Message]], int],
        budget: TokenBudget,
    ) -> None:
        self.character, self.messages, self.ids = character, messages, ids
        self.count, self.budget = count, budget
        self.empty = count([Message("user", "")])
        self.costs = [self.count_text(message.text) + self.empty for message in messages]
        titles = SECTION_TITLES[detect_language(messages[-1].text)]
        self.summary = SummarySection(titles)
        self.memories = MemorySection(titles)
        self.documents = DocumentSection(titles)
        # As they stand behind the card.
        self.sections: list[PromptSection] = [self.summary, self.memories, self.documents]

    def count_text(self, text: str) -> int:
        """Tokens of a text alone: what it adds to an empty message."""
        return max(self.count([Message("user", text)]) - self.empty, 0)

    def build(
        self, sources: PromptSources, system: str, note: str, examples: bool
    ) -> ComposedPrompt:
        context = self.budget.context
        frame = self.character.build_frame(self.messages, self.count_text, context, system)
        frame = frame.append(note)
        base = self.count(frame.wrap(self.messages[-1:]))
        if base >= context:
            raise EngineError("chat.card_leaves_no_room", tokens=base, context=context)
        first = self.fill_sections(sources, max(context - self.budget.reply - base, 0))
        names = {"char": self.character.persona.display_name, "user": self.character.user.name}
        frame_with_sections = frame.append(
            "\n".join(line for section in self.sections for line in section.render(names))
        )
        # The counts of the parts do not quite add up to the whole's, so that is counted once more.
        prompt, first, tokens = fit_history(
            frame_with_sections, self.messages, first, self.count, self.budget.prompt,
            self.find_next_start,
        )  # fmt: skip
        shots = self.select_examples(tokens) if examples and first == 0 else []
        if shots:
            place = 1 if prompt and prompt[0].role == "system" else 0
            prompt = [*prompt[:place], *shots, *prompt[place:]]
            tokens = self.count(prompt)
        breakdown = self.describe(frame, frame_with_sections, prompt, first, tokens, len(shots))
        return ComposedPrompt(prompt, breakdown, frame.lore.matched)

    def fill_sections(self, sources: PromptSources, free: int) -> int:
        """Fill every section out of `free` tokens; the number of the first message that then fits."""
        question = self.messages[-1].text
        documents = [
            (hit, self.count_text(hit.text) + ITEM_OVERHEAD) for hit in sources.search(question)
        ]
        self.documents.fill(documents, int(free * DocumentSection.share))
        # What the history holds need not be recalled. It is reckoned as if memories took their whole
        # share, so that nothing falls between the two.
        memory_budget = int(free * MemorySection.share)
        first = self.find_start(free - self.documents.tokens - memory_budget)
        memories = [
            (hit, self.count_text(hit.memory.text) + ITEM_OVERHEAD)
            for hit in sources.recall(question, self.ids[first:])
        ]
        self.memories.fill(memories, memory_budget)
        used = self.documents.tokens + self.memories.tokens
        if first:
            budget = int(free * SummarySection.share)
            if text := sources.summarize(self.ids[:first], budget):
                self.summary.entered = [(text, self.count_text(text))]
        first = self.find_start(free - used - self.summary.tokens)
        # Memories took less than their share: messages that they were recalled from may fit after all.
        in_history = set(self.ids[first:])
        self.memories.entered = [
            pair for pair in self.memories.entered if pair[0].memory.message_id not in in_history
        ]
        return first

    def find_start(self, budget: int) -> int:
        """The first message of the newest that fit `budget`: one of the user's, or the very first."""
        first, used = len(self.messages) - 1, 0  # the newest is counted already
        for number in range(len(self.messages) - 2, -1, -1):
            used += self.costs[number]
            if used > budget:
                break
            if number == 0 or self.messages[number].role == "user":
                first = number
        return first

    def find_next_start(self, first: int) -> int:
        """The next message of the user's behind `first`, else the newest message."""
        last = len(self.messages) - 1
        for number in range(first + 1, last):
            if self.messages[number].role == "user":
                return number
        return last

    def select_examples(self, used: int) -> list[Message]:
        """The card's example dialogue, whole blocks, as far as `used` tokens leave room for them."""
        room = self.budget.prompt - used
        shots: list[Message] = []
        for block in self.character.examples():
            room -= sum(self.count_text(message.text) + self.empty for message in block)
            if room < 0:
                break
            shots += block
        return shots

    def describe(
        self,
        frame: PromptFrame,
        frame_with_sections: PromptFrame,
        prompt: Sequence[Message],
        first: int,
        tokens: int,
        shots: int,
    ) -> dict[str, Any]:
        """The breakdown, as it is stored with the reply."""
        memories, documents = self.memories, self.documents
        return {
            "lore": [_describe_lore(entry) for entry in frame.lore.inserted],
            "lore_dropped": [_describe_lore(entry) for entry in frame.lore.dropped],
            "memories": [_describe_memory(*pair) for pair in memories.entered],
            "memories_dropped": [_describe_memory(*pair) for pair in memories.dropped],
            "documents": [_describe_document(n, *pair) for n, pair in enumerate(documents.entered, 1)],
            "documents_dropped": [_describe_document(0, *pair) for pair in documents.dropped],
            "summary": self.summary.text,
            "left_out": first,
            "examples": shots,
            "tokens": {
                "prompt": tokens, "context": self.budget.context,
                "reply": self.budget.reply, "system": self.count_text(frame_with_sections.system),
                "lore": sum(entry.tokens for entry in frame.lore.inserted),
                "memories": memories.tokens, "documents": documents.tokens,
                "summary": self.summary.tokens, "talk": sum(self.costs[first:]),
            },
            "prompt": [{"role": message.role, "text": message.text} for message in prompt],
        }  # fmt: skip


def _describe_lore(entry: ActivatedEntry) -> dict[str, Any]:
    return {
        "name": entry.entry.label, "why": entry.why, "place": entry.place, "tokens": entry.tokens,
        "text": entry.text,
    }  # fmt: skip


def _describe_memory(hit: MemoryHit, tokens: int) -> dict[str, Any]:
    memory = hit.memory
    return {
        "id": memory.id, "kind": memory.kind, "text": memory.text, "at": memory.at,
        "message_id": memory.message_id, "current": memory.current,
        "score": round(hit.score, 4), **_describe_reasons(hit), "tokens": tokens,
    }  # fmt: skip


def _describe_document(number: int, hit: SearchHit, tokens: int) -> dict[str, Any]:
    return {
        "number": number, "name": hit.name, "document_id": hit.document_id, "start": hit.start,
        "end": hit.end, "heading": hit.heading, "page": hit.page, "score": round(hit.score, 4),
        **_describe_reasons(hit), "tokens": tokens, "text": hit.text,
    }  # fmt: skip


def _describe_reasons(hit: MemoryHit | SearchHit) -> dict[str, Any]:
    # The English sentence is what versions before stored; a page shows the codes in its own language.
    explanation = hit.explanation
    return {"why": str(explanation), "reasons": pack_text(explanation)}


def _format_day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))


def _join_lines(text: str) -> str:
    return " ".join(text.split())
