"""One reply's prompt: the card, what is recalled and looked up, and as much of the talk as fits.

The newest message and the card always stay. Behind them the talk's newest turns come first, then what
was recalled, then example dialogue; what finds no room is named in the receipt. Knows nothing of
engines beyond a count of tokens, nor of where recalled things are kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from elysia.chat.prompt.character_state import CharacterState, PromptFrame
from elysia.core.errors import EngineError
from elysia.core.lorebook_activation import ActivatedEntry
from elysia.core.messages import Message
from elysia.knowledge.base import SearchHit
from elysia.memory.base import MemoryHit

# Parts of what the prompt may take, at most.
MEMORY_SHARE, DOCUMENT_SHARE, SUMMARY_SHARE = 0.15, 0.25, 0.10
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


@dataclass(frozen=True)
class PromptSources:
    """Where a reply's prompt may draw from. Each is asked once, with the newest words."""

    recall: Callable[[str, Sequence[str]], list[MemoryHit]] = lambda _question, _without: []
    look_up: Callable[[str], list[SearchHit]] = lambda _question: []
    summarize: Callable[[Sequence[str], int], str] = lambda _left_out, _budget: ""


@dataclass(frozen=True)
class TokenBudget:
    """Tokens: the model's context, and how many of them are kept for the reply."""

    context: int
    reply: int

    @property
    def room(self) -> int:
        """For the reply; never more than half of the context."""
        return min(self.reply, self.context // 2)


@dataclass(frozen=True)
class ComposedPrompt:
    """A prompt, and its receipt: plain values that say what entered it, why, and what did not."""

    messages: list[Message]
    receipt: dict[str, Any] = field(default_factory=dict)
    matched: frozenset[str] = frozenset()


def build_prompt(
    character: CharacterState,
    messages: Sequence[Message],
    ids: Sequence[str],
    *,
    count: Callable[[Sequence[Message]], int],
    limits: TokenBudget,
    sources: PromptSources,
    system: str = "",
    note: str = "",
    examples: bool = True,
) -> ComposedPrompt:
    """The prompt for an answer to the last of `messages`, whose ids are `ids`.

    `count` gives the tokens of a chat prompt; `note` always stands behind the card. EngineError
    when the newest message and the card do not fit the context by themselves.
    """
    return _PromptBuilder(character, messages, ids, count, limits).run(
        sources, system, note, examples
    )


def detect_language(text: str) -> str:
    """zh or en: the language in which the character is told things.

    >>> detect_language("你好 Tom"), detect_language("hello")
    ('zh', 'en')
    """
    return "zh" if HAN_PATTERN.search(text) else "en"


def append_system(staging: PromptFrame, words: str) -> PromptFrame:
    """The same with more words behind the card."""
    system = "\n".join(filter(None, [staging.system, words]))
    return PromptFrame(system, staging.lore, staging.closing)


class _PromptBuilder:
    """The steps of `build_prompt`, over one message each."""

    def __init__(
        self,
        character: CharacterState,
        messages: Sequence[Message],
        ids: Sequence[str],
        count: Callable[[Sequence[Message]], int],
        limits: TokenBudget,
    ) -> None:
        self.character, self.messages, self.ids = character, messages, ids
        self.count, self.limits = count, limits
        self.empty = count([Message("user", "")])
        self.costs = [self.tokens(message.text) + self.empty for message in messages]
        self.words = SECTION_TITLES[detect_language(messages[-1].text)]

    def tokens(self, text: str) -> int:
        return max(self.count([Message("user", text)]) - self.empty, 0)

    def run(self, sources: PromptSources, system: str, note: str, examples: bool) -> ComposedPrompt:
        staging = self.character.stage(self.messages, self.tokens, self.limits.context, system)
        staging = append_system(staging, note)
        base = self.count(staging.around(self.messages[-1:]))
        if base >= self.limits.context:
            raise EngineError(
                f"The message with the character's card has {base} tokens and the model's context "
                f"is {self.limits.context}: there is no room for a reply. Shorten the message, or "
                "choose a shorter card or a model with a longer context."
            )
        free = max(self.limits.context - self.limits.room - base, 0)
        question = self.messages[-1].text
        documents, no_documents = self.within(
            [(one, one.text) for one in sources.look_up(question)], int(free * DOCUMENT_SHARE)
        )
        told = int(free * MEMORY_SHARE)
        used = sum(tokens for _, tokens in documents)
        first = self.first_kept(free - used - told)
        memories, no_memories = self.within(
            [(one, one.memory.text) for one in sources.recall(question, self.ids[first:])], told
        )
        used += sum(tokens for _, tokens in memories)
        summary = sources.summarize(self.ids[:first], int(free * SUMMARY_SHARE)) if first else ""
        used += self.tokens(summary)
        first = self.first_kept(free - used)
        kept_ids = set(self.ids[first:])
        memories = [pair for pair in memories if pair[0].memory.message_id not in kept_ids]
        extra = self.told(summary, memories, documents)
        shown = append_system(staging, extra)
        prompt, first, tokens = self.fitted(shown, first)
        shots = self.examples(tokens) if examples and first == 0 else []
        if shots:
            at = 1 if prompt and prompt[0].role == "system" else 0
            prompt = [*prompt[:at], *shots, *prompt[at:]]
            tokens = self.count(prompt)
        receipt = {
            "lore": [_describe_lore(one) for one in staging.lore.inserted],
            "lore_dropped": [_describe_lore(one) for one in staging.lore.dropped],
            "memories": [_describe_memory(*pair) for pair in memories],
            "memories_dropped": [_describe_memory(*pair) for pair in no_memories],
            "documents": [_describe_document(n, *pair) for n, pair in enumerate(documents, 1)],
            "documents_dropped": [_describe_document(0, *pair) for pair in no_documents],
            "summary": summary,
            "left_out": first,
            "examples": len(shots),
            "tokens": {
                "prompt": tokens, "context": self.limits.context,
                "reply": self.limits.room, "system": self.tokens(shown.system),
                "lore": sum(one.tokens for one in staging.lore.inserted),
                "memories": sum(tokens for _, tokens in memories),
                "documents": sum(tokens for _, tokens in documents),
                "summary": self.tokens(summary), "talk": sum(self.costs[first:]),
            },
            "prompt": [{"role": one.role, "text": one.text} for one in prompt],
        }  # fmt: skip
        return ComposedPrompt(prompt, receipt, staging.lore.matched)

    def within(
        self, found: Sequence[tuple[Any, str]], budget: int
    ) -> tuple[list[tuple[Any, int]], list[tuple[Any, int]]]:
        """Those that fit the budget, the best first, and the rest; each with its tokens."""
        kept: list[tuple[Any, int]] = []
        dropped: list[tuple[Any, int]] = []
        for one, text in found:
            cost = self.tokens(text) + 12  # its number, name or date
            fits = sum(tokens for _, tokens in kept) + cost <= budget
            (kept if fits else dropped).append((one, cost))
        return kept, dropped

    def first_kept(self, budget: int) -> int:
        """Where the talk begins that fits; a user's message, or the very first."""
        first, used = len(self.messages) - 1, 0  # the newest is counted already
        for number in range(len(self.messages) - 2, -1, -1):
            used += self.costs[number]
            if used > budget:
                break
            if number == 0 or self.messages[number].role == "user":
                first = number
        return first

    def told(
        self, summary: str, memories: list[tuple[Any, int]], documents: list[tuple[Any, int]]
    ) -> str:
        """What is put behind the card: plain lines, in the language of the newest message."""
        names = {"char": self.character.persona.display_name, "user": self.character.user.name}
        parts: list[str] = []
        if summary:
            parts += [self.words["summary"], summary]
        if memories:
            parts.append(self.words["memory"].format(**names))
            for one, _ in memories:
                since = "" if one.memory.current else self.words["outdated"]
                parts.append(
                    f"- ({_format_day(one.memory.at)}) {_join_lines(one.memory.text)}{since}"
                )
        if documents:
            parts.append(self.words["documents"])
            parts += [
                f"[{number}] {_join_lines(one.name)}: {one.text.strip()}"
                for number, (one, _) in enumerate(documents, 1)
            ]
        return "\n".join(parts)

    def fitted(self, staging: PromptFrame, first: int) -> tuple[list[Message], int, int]:
        """The prompt from message `first` and its tokens; the counts of parts are not quite the
        whole's.
        """
        prompt = staging.around(self.messages[first:])
        limit = self.limits.context - self.limits.room
        while (tokens := self.count(prompt)) > limit and first < len(self.messages) - 1:
            first += 1
            while first < len(self.messages) - 1 and self.messages[first].role != "user":
                first += 1
            prompt = staging.around(self.messages[first:])
        return prompt, first, tokens

    def examples(self, used: int) -> list[Message]:
        """The card's example dialogue, whole blocks, as far as room is left behind `used` tokens."""
        room = self.limits.context - self.limits.room - used
        kept: list[Message] = []
        for block in self.character.examples():
            room -= sum(self.tokens(message.text) + self.empty for message in block)
            if room < 0:
                break
            kept += block
        return kept


def _describe_lore(one: ActivatedEntry) -> dict[str, Any]:
    return {
        "name": one.entry.label, "why": one.why, "place": one.place, "tokens": one.tokens, "text": one.text,
    }  # fmt: skip


def _describe_memory(one: MemoryHit, tokens: int) -> dict[str, Any]:
    memory = one.memory
    return {
        "id": memory.id, "kind": memory.kind, "text": memory.text, "at": memory.at,
        "message_id": memory.message_id, "current": memory.current,
        "score": round(one.score, 4), "why": str(one.explanation), "tokens": tokens,
    }  # fmt: skip


def _describe_document(number: int, one: SearchHit, tokens: int) -> dict[str, Any]:
    return {
        "number": number, "name": one.name, "document_id": one.document_id, "start": one.start,
        "end": one.end, "heading": one.heading, "page": one.page, "score": round(one.score, 4),
        "why": str(one.explanation), "tokens": tokens, "text": one.text,
    }  # fmt: skip


def _format_day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))


def _join_lines(text: str) -> str:
    return " ".join(text.split())
