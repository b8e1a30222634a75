"""What a character knows of a conversation: `ContextBuilder` makes the prompt of its next reply.

A character is shown only what was said while it was present. `ContextProviders` are memory and knowledge;
what of them a reply may use is decided here, so that nothing of one user or character reaches another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from elysia.chat.characters import CharacterEntry
from elysia.chat.chat_model import ChatModel
from elysia.chat.message_tree import ChatMessage, Conversation, MessageState
from elysia.chat.prompt.builder import ComposedPrompt, PromptSources, build_prompt, detect_language
from elysia.chat.prompt.character_state import CharacterState, TokenBudget
from elysia.chat.settings import ConversationSettings
from elysia.core.errors import ElysiaError
from elysia.core.messages import Message
from elysia.knowledge.base import KnowledgeBase, SearchHit
from elysia.memory import summary
from elysia.memory.base import MemoryHit, MemoryInput, MemoryScope, MemoryStore

log = logging.getLogger(__name__)

# States of messages that memory is shown: what failed, or is still being written, was not said.
SAID = (MessageState.COMPLETE, MessageState.STOPPED, MessageState.CUT)
MAX_MEMORIES, MAX_PASSAGES = 8, 4  # that are asked for, for one reply
MIN_SUMMARY = 16  # tokens; less is no summary
GROUP_NOTES = {
    "zh": "在座的还有：{others}。只说{char}自己的话。",
    "en": "Also at the table: {others}. Speak for {char} only.",
}
T = TypeVar("T")


@dataclass(frozen=True)
class ContextProviders:
    """Memory and knowledge, as far as there are any."""

    memory: MemoryStore | None = None
    knowledge: KnowledgeBase | None = None

    def collections(self, user: str, character: str) -> list[str]:
        """The document collections that a reply of `character` to `user` may quote: the character's own,
        and the user's for this character.
        """
        return [f"character/{character}", f"user/{user}/{character}"]

    def remember(
        self,
        user: str,
        conversation: Conversation,
        members: Mapping[str, CharacterEntry],
        messages: Sequence[ChatMessage],
    ) -> None:
        """Hand each character's memory what was said while it was present."""
        if self.memory is None:
            return
        name = ConversationSettings.load(conversation.settings).persona().name
        for key in members:
            inputs = [
                build_memory_input(message, conversation, members, name)
                for message in messages
                if message.state in SAID and message.text and was_present(message, key)
            ]
            self.memory.remember(MemoryScope(user, key), inputs)

    def forget(self, user: str, guests: Sequence[str], messages: Sequence[str]) -> None:
        """Take back what these characters remember of messages, given by their ids."""
        if self.memory is not None:
            for key in guests:
                self.memory.forget_messages(MemoryScope(user, key), messages)

    def close(self) -> None:
        """Release memory and knowledge."""
        for provider in (self.memory, self.knowledge):
            if provider is not None:
                provider.close()


def was_present(message: ChatMessage, key: str) -> bool:
    """Whether a character was in the conversation when the message was written."""
    present = message.details.get("present")
    return not isinstance(present, list) or key in present


def get_speaker_name(message: ChatMessage, members: Mapping[str, CharacterEntry], user: str) -> str:
    """Who wrote a message, as it is displayed; '?' for a character that has left."""
    if message.speaker is None:
        return user
    return members[message.speaker].name if message.speaker in members else "?"


def build_memory_input(
    message: ChatMessage,
    conversation: Conversation,
    members: Mapping[str, CharacterEntry],
    user: str,
) -> MemoryInput:
    """A message as memory takes it."""
    speaker = get_speaker_name(message, members, user)
    return MemoryInput(
        message.id, conversation.id, message.role, speaker, message.text, message.created
    )


class ContextBuilder:
    """Builds prompts in one conversation.

    `summary` is what the last prompt summed up of the messages that no longer fit: its text, and the id
    of the last message in it. It is stored with the reply, and the next summary starts from it.
    """

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
        self.user_name = settings.persona().name
        self.summary: dict[str, str] = {}

    def build(self, messages: Sequence[ChatMessage], speaker: str) -> ComposedPrompt:
        """The prompt for `speaker`, from what was said while it was present."""
        self.summary = {}
        visible = [m for m in messages if was_present(m, speaker) and m.text]
        prompt = [self._convert(message, speaker) for message in visible]
        if not prompt or prompt[-1].role == "assistant":
            prompt.append(Message("user", ""))
        note = self._build_group_note(speaker, prompt[-1].text) if len(self.members) > 1 else ""
        return build_prompt(
            self._build_character(messages, visible, speaker),
            prompt,
            [message.id for message in visible],
            count=self.model.count,
            budget=TokenBudget(self.model.engine.context_length, self.settings.max_new_tokens),
            sources=self._build_sources(speaker, messages),
            system=self.settings.system or self.model.system,
            note=note,
            examples=self.settings.examples,
        )

    def _build_character(
        self, messages: Sequence[ChatMessage], visible: Sequence[ChatMessage], speaker: str
    ) -> CharacterState:
        matched = {
            entry
            for message in visible
            if message.speaker == speaker
            for entry in message.details.get("lore", ())
        }
        return CharacterState(
            self.members[speaker].card,
            self.settings.persona(),
            greeting=int(messages[0].details.get("greeting", 0)) if messages else 0,
            seed=self.conversation.seed,
            turn=len(messages),
            matched=matched,
        )

    def _convert(self, message: ChatMessage, speaker: str) -> Message:
        """A message from the speaker's side: its own are replies, all others the user's, in a group
        with the name of who wrote them.
        """
        if message.speaker == speaker:
            return Message("assistant", message.text)
        if len(self.members) == 1:
            return Message("user", message.text)
        name = get_speaker_name(message, self.members, self.user_name)
        mark = "：" if detect_language(message.text) == "zh" else ": "
        return Message("user", f"{name}{mark}{message.text}")

    def _build_group_note(self, speaker: str, newest: str) -> str:
        others = [self.user_name]
        others += [member.name for key, member in self.members.items() if key != speaker]
        note = GROUP_NOTES[detect_language(newest)]
        return note.format(others="、".join(others), char=self.members[speaker].name)

    def _build_sources(self, speaker: str, messages: Sequence[ChatMessage]) -> PromptSources:
        settings = self.settings
        memory, knowledge = self.providers.memory, self.providers.knowledge
        question = next((m.text for m in reversed(messages) if m.role == "user"), "")
        scope = MemoryScope(self.user, speaker)

        def recall(_: str, without: Sequence[str]) -> list[MemoryHit]:
            if memory is None or not settings.memory or not question:
                return []
            hits = _try_search(
                lambda: memory.recall(scope, question, k=MAX_MEMORIES, without=without), "memory"
            )
            ids = set(without)
            # A greeting, for instance, is in the prompt already and was said on other days, too.
            in_prompt = {message.text.strip() for message in messages if message.id in ids}
            return [hit for hit in hits if hit.memory.text.strip() not in in_prompt]

        def search(_: str) -> list[SearchHit]:
            if knowledge is None or not settings.knowledge or not question:
                return []
            collections = self.providers.collections(self.user, speaker)
            return _try_search(
                lambda: knowledge.search(collections, question, k=MAX_PASSAGES), "knowledge"
            )

        def summarize(left_out: Sequence[str], budget: int) -> str:
            if not settings.memory or budget < MIN_SUMMARY:
                return ""
            return self._summarize(speaker, messages, left_out, budget)

        return PromptSources(recall, search, summarize)

    def _summarize(
        self, speaker: str, messages: Sequence[ChatMessage], left_out: Sequence[str], budget: int
    ) -> str:
        """A summary of the messages that no longer fit: the one of the speaker's last reply, and what
        has left the prompt since.
        """
        previous, upto = "", -1
        for message in reversed(messages):
            stored = message.details.get("summary") if message.speaker == speaker else None
            if stored and stored["upto"] in left_out:
                previous, upto = stored["text"], list(left_out).index(stored["upto"])
                break
        by_id = {message.id: message for message in messages}
        newer = [
            build_memory_input(by_id[id], self.conversation, self.members, self.user_name)
            for id in left_out[upto + 1 :]
        ]
        count = self.model.count
        empty = count([Message("user", "")])
        text = summary.format_summary(
            summary.summarize(
                summary.parse_summary(previous), newer, budget=budget,
                count=lambda text: count([Message("user", text)]) - empty,
            )
        )  # fmt: skip
        self.summary = {"upto": left_out[-1], "text": text} if text else {}
        return text


def _try_search(search: Callable[[], list[T]], source: str) -> list[T]:
    """The hits of a search, none when it fails: that must not cost the user the reply."""
    try:
        return search()
    except ElysiaError as error:
        log.warning("The reply is written without %s: %s", source, error)
    except Exception:
        log.exception("The reply is written without %s", source)
    return []
