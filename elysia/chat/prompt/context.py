"""What a turn may draw from, and what each guest at a table heard of it.

Nothing of one user or character reaches another: shelves and scopes are made here. Knows nothing of
prompts or engines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elysia.chat.characters import CharacterEntry
from elysia.chat.chat_model import ChatModel
from elysia.chat.message_tree import CUT, STOPPED, WHOLE, ChatMessage, Conversation
from elysia.chat.prompt.builder import (
    ComposedPrompt,
    PromptSources,
    TokenBudget,
    build_prompt,
    detect_language,
)
from elysia.chat.prompt.character_state import CharacterState
from elysia.chat.prompt.greetings import get_seed
from elysia.chat.settings import ConversationSettings
from elysia.core.errors import ElysiaError
from elysia.core.messages import Message
from elysia.knowledge.base import KnowledgeBase, SearchHit
from elysia.memory import summary
from elysia.memory.base import MemoryHit, MemoryInput, MemoryScope, MemoryStore


@dataclass(frozen=True)
class ContextProviders:
    """What a turn may draw from. None: there is none."""

    memory: MemoryStore | None = None
    knowledge: KnowledgeBase | None = None

    def shelves(self, user: str, character: str) -> list[str]:
        """Whose documents a reply of `character` to `user` may show."""
        return [f"character/{character}", f"user/{user}/{character}"]

    def remember(
        self,
        user: str,
        conversation: Conversation,
        members: Mapping[str, CharacterEntry],
        lines: Sequence[ChatMessage],
    ) -> None:
        """Hand to each guest's memory what she heard."""
        if self.memory is None:
            return
        name = ConversationSettings.of(conversation.settings).persona().name
        for key in members:
            heard = [
                build_memory_input(line, conversation, members, name)
                for line in lines
                if line.state in (WHOLE, STOPPED, CUT) and line.text and was_present(line, key)
            ]
            self.memory.remember(MemoryScope(user, key), heard)

    def close(self) -> None:
        """Let go of memory and knowledge."""
        for part in (self.memory, self.knowledge):
            if part is not None:
                part.close()

    def forget(self, user: str, guests: Sequence[str], messages: Sequence[str]) -> None:
        """Take back what was remembered of messages."""
        if self.memory is not None:
            for key in guests:
                self.memory.forget_messages(MemoryScope(user, key), messages)


def was_present(line: ChatMessage, key: str) -> bool:
    """Whether a guest heard a line."""
    present = line.details.get("present")
    return not isinstance(present, list) or key in present


def get_speaker_name(line: ChatMessage, members: Mapping[str, CharacterEntry], user: str) -> str:
    """Who said it, as it is shown. Somebody who has left the table is 'somebody'."""
    if line.speaker is None:
        return user
    return members[line.speaker].name if line.speaker in members else "?"


def build_memory_input(
    line: ChatMessage, conversation: Conversation, members: Mapping[str, CharacterEntry], user: str
) -> MemoryInput:
    """A line in memory's terms."""
    return MemoryInput(
        line.id,
        conversation.id,
        line.role,
        get_speaker_name(line, members, user),
        line.text,
        line.created,
    )


log = logging.getLogger(__name__)

GROUP_NOTES = {
    "zh": "在座的还有：{others}。只说{char}自己的话。",
    "en": "Also at the table: {others}. Speak for {char} only.",
}


class ContextBuilder:
    """Composes prompts in one conversation. `summary` is what the last one summed up, to be kept."""

    def __init__(
        self,
        user: str,
        conversation: Conversation,
        members: Mapping[str, CharacterEntry],
        model: ChatModel,
        providers: ContextProviders,
        settings: ConversationSettings,
    ) -> None:
        self.user, self.conversation, self.members = user, conversation, members
        self.model, self.providers, self.settings = model, providers, settings
        self.summary: dict[str, str] = {}

    def compose(self, lines: Sequence[ChatMessage], speaker: str) -> ComposedPrompt:
        """The prompt for `speaker`, who heard what was said while she was there."""
        self.summary = {}
        heard = [line for line in lines if was_present(line, speaker) and line.text]
        member = self.members[speaker]
        first = lines[0] if lines else None
        matched = {
            entry for line in heard if line.speaker == speaker
            for entry in line.details.get("lore", ())
        }  # fmt: skip
        character = CharacterState(
            member.card,
            self.settings.persona(),
            greeting=int(first.details.get("greeting", 0)) if first else 0,
            seed=get_seed(self.conversation.id),
            turn=len(lines),
            matched=matched,
        )
        messages = [self._as_heard(line, speaker) for line in heard]
        if not messages or messages[-1].role == "assistant":
            messages.append(Message("user", ""))
        table = self._table(speaker, messages[-1].text) if len(self.members) > 1 else ""
        return build_prompt(
            character,
            messages,
            [line.id for line in heard],
            count=self.model.count,
            limits=TokenBudget(self.model.engine.context_length, self.settings.max_new_tokens),
            sources=self._sources(speaker, lines),
            system=self.settings.system or self.model.system,
            note=table,
            examples=self.settings.examples,
        )

    def _as_heard(self, line: ChatMessage, speaker: str) -> Message:
        """A line as `speaker` heard it: her own is a reply, others' are told with their names."""
        if line.speaker == speaker:
            return Message("assistant", line.text)
        if len(self.members) == 1:
            return Message("user", line.text)
        name = self._name(line)
        mark = "：" if detect_language(line.text) == "zh" else ": "
        return Message("user", f"{name}{mark}{line.text}")

    def _name(self, line: ChatMessage) -> str:
        return get_speaker_name(line, self.members, self.settings.persona().name)

    def _table(self, speaker: str, newest: str) -> str:
        others = [self.settings.persona().name]
        others += [m.name for key, m in self.members.items() if key != speaker]
        words = GROUP_NOTES[detect_language(newest)]
        return words.format(others="、".join(others), char=self.members[speaker].name)

    def _sources(self, speaker: str, lines: Sequence[ChatMessage]) -> PromptSources:
        around, settings = self.providers, self.settings
        memory, knowledge = around.memory, around.knowledge
        question = next((line.text for line in reversed(lines) if line.role == "user"), "")
        scope = MemoryScope(self.user, speaker)

        def recall(_: str, without: Sequence[str]) -> list[MemoryHit]:
            if memory is None or not settings.memory or not question:
                return []
            found: list[MemoryHit] = self._tried(
                lambda: memory.recall(scope, question, k=8, without=without), "memory"
            )
            there = set(without)
            # The same words of another day, a greeting for instance, are in the prompt, too.
            said = {line.text.strip() for line in lines if line.id in there}
            return [one for one in found if one.memory.text.strip() not in said]

        def look_up(_: str) -> list[SearchHit]:
            if knowledge is None or not settings.knowledge or not question:
                return []
            shelves = around.shelves(self.user, speaker)
            return self._tried(lambda: knowledge.search(shelves, question, k=4), "knowledge")

        def summarize(left_out: Sequence[str], budget: int) -> str:
            if not settings.memory or budget < 16:
                return ""
            return self._summed(speaker, lines, left_out, budget)

        return PromptSources(recall, look_up, summarize)

    def _summed(
        self, speaker: str, lines: Sequence[ChatMessage], left_out: Sequence[str], budget: int
    ) -> str:
        """What no longer fits, summed up: the summary of her last reply and what left since."""
        before, upto = "", -1
        for line in reversed(lines):
            kept = line.details.get("summary") if line.speaker == speaker else None
            if kept and kept["upto"] in left_out:
                before, upto = kept["text"], list(left_out).index(kept["upto"])
                break
        name = self.settings.persona().name
        by_id = {line.id: line for line in lines}
        newer = [
            build_memory_input(by_id[id], self.conversation, self.members, name)
            for id in left_out[upto + 1 :]
        ]
        count = self.model.count
        empty = count([Message("user", "")])
        made = summary.format_summary(
            summary.summarize(
                summary.parse_summary(before), newer, budget=budget,
                count=lambda text: count([Message("user", text)]) - empty,
            )
        )  # fmt: skip
        self.summary = {"upto": left_out[-1], "text": made} if made else {}
        return made

    def _tried(self, search: Callable[[], list[Any]], what: str) -> list[Any]:
        """A search that fails costs the reply nothing but what it would have found."""
        try:
            return search()
        except ElysiaError as error:
            log.warning("She answers without %s: %s", what, error)
        except Exception:
            log.exception("She answers without %s", what)
        return []
