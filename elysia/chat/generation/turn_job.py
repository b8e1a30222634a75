"""A turn: the replies to one message, one after the other, written in a worker's thread.

`TurnJob` decides who replies and stores each reply's place; `ReplyGenerator` writes one reply.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from elysia.chat.characters import CharacterEntry
from elysia.chat.chat_model import ChatModel
from elysia.chat.conversation_store import ConversationStore
from elysia.chat.generation.priority import PriorityGate
from elysia.chat.generation.reply_stream import ReplyStream, SpeakerPrefixStripper
from elysia.chat.generation.speaker_selection import (
    GroupMessage,
    SelectionReason,
    SpeakerChoice,
    build_name_stops,
    select_speaker,
)
from elysia.chat.message_tree import ChatMessage, Conversation, MessageState, pack_text
from elysia.chat.prompt.builder import ComposedPrompt
from elysia.chat.prompt.context import ContextBuilder, ContextProviders
from elysia.chat.settings import ConversationSettings
from elysia.core.errors import ElysiaError, EngineError
from elysia.engines.base import GenerationRequest

log = logging.getLogger(__name__)

SAVE_INTERVAL = 0.5  # seconds between writes of a growing reply to the database


@dataclass(frozen=True)
class TurnResources:
    """What the turns of a service share.

    `slots` are the engine's: a reply waits for one when its prompt is ready. `streams` are the replies
    that are being written, by message id.
    """

    model: ChatModel
    store: ConversationStore
    providers: ContextProviders
    slots: threading.BoundedSemaphore
    streams: MutableMapping[str, ReplyStream]
    gate: PriorityGate


class TurnJob:
    """The replies to one message. `begin` stores the first one's place, `run` writes them all.

    `finished` is set by the scheduler when the worker is through.
    """

    def __init__(
        self,
        user: str,
        conversation: Conversation,
        members: Mapping[str, CharacterEntry],
        resources: TurnResources,
    ) -> None:
        self.user, self.conversation, self.members = user, conversation, members
        self.store, self.streams = resources.store, resources.streams
        self.settings = ConversationSettings.load(conversation.settings)
        self.guests = [member.group_member for member in members.values()]
        self.finished = threading.Event()
        self._stopped = threading.Event()
        self._single = False
        self._reply = ""
        self._generator = ReplyGenerator(user, conversation, members, self.settings, resources)

    def stop(self) -> None:
        """End the reply that is being written, and the turn with it."""
        self._stopped.set()
        if stream := self.streams.get(self._reply):
            stream.cancel.set()

    def begin(
        self,
        above: Sequence[ChatMessage],
        messages: Sequence[Mapping[str, Any]],
        speaker: str | None = None,
    ) -> str:
        """Store `messages` below those `above`, and an empty reply behind them; the reply's id.

        With a `speaker` there is one reply, from that character; else the director's rules choose.
        """
        self._single = speaker is not None
        if speaker is not None:
            choice = SpeakerChoice(speaker, SelectionReason.REGENERATE)
        else:
            drafts = (
                ChatMessage("", None, m["role"], m.get("speaker"), m["text"]) for m in messages
            )
            choice = self._select([*above, *drafts], []) or SpeakerChoice(
                self.guests[0].key, SelectionReason.ONLY_ONE
            )
        return self._add_reply(messages, above[-1].id if above else None, choice)

    def _add_reply(
        self, messages: Sequence[Mapping[str, Any]], parent: str | None, choice: SpeakerChoice
    ) -> str:
        details = {
            "present": list(self.members),
            # The sentence is what versions before wrote; a program reads `selection`.
            "reason": str(choice.text),
            "selection": pack_text(choice.text),
        }
        reply = {
            "role": "assistant", "speaker": choice.key, "text": "", "state": MessageState.WRITING,
            "details": details,
        }  # fmt: skip
        ids = self.store.add(self.user, self.conversation.id, [*messages, reply], parent=parent)
        self._reply = ids[-1]
        self.streams[self._reply] = ReplyStream()
        return self._reply

    def run(self) -> None:
        """Write the reply that was begun, then those of every character that is chosen after it."""
        spoken: list[str] = []
        while True:
            messages = self._load_path()
            if not messages or messages[-1].id != self._reply:
                self.streams.pop(self._reply, None)
                return  # deleted meanwhile
            spoken.append(str(messages[-1].speaker))
            state = self._generator.write(messages, self.streams[self._reply], self._stopped)
            is_last = self._single or self._stopped.is_set() or len(self.guests) == 1
            if state != MessageState.COMPLETE or is_last:
                return
            choice = self._select(self._load_path(), spoken)
            if choice is None:
                return
            self._add_reply([], self._reply, choice)

    def _load_path(self) -> list[ChatMessage]:
        return self.store.get_path(self.user, self.conversation.id, self._reply)

    def _select(
        self, messages: Sequence[ChatMessage], spoken: Sequence[str]
    ) -> SpeakerChoice | None:
        group = [GroupMessage(message.speaker, message.text) for message in messages]
        return select_speaker(group, self.guests, spoken, self.settings.round)


class ReplyGenerator:
    """Writes replies of one conversation: composes the prompt, streams the engine's text, stores both."""

    def __init__(
        self,
        user: str,
        conversation: Conversation,
        members: Mapping[str, CharacterEntry],
        settings: ConversationSettings,
        resources: TurnResources,
    ) -> None:
        self.members, self.settings, self.resources = members, settings, resources
        self.guests = [member.group_member for member in members.values()]
        self._breakdown: Mapping[str, Any] | None = None  # of the reply, until it is stored
        self._context = ContextBuilder(
            user, conversation, members, resources.model, resources.providers, settings
        )

    def write(
        self, messages: Sequence[ChatMessage], stream: ReplyStream, stopped: threading.Event
    ) -> MessageState:
        """Write the last of `messages`; the state in which it ended. Errors are stored with the reply."""
        message = messages[-1]
        details: dict[str, Any] = dict(message.details)
        state, error = MessageState.FAILED, None
        self._breakdown = None
        try:
            began = time.monotonic()
            with self.resources.gate.foreground():
                prompt = self._context.build(messages[:-1], str(message.speaker))
            details["prepared"] = round(time.monotonic() - began, 4)
            details["lore"] = sorted(prompt.matched)
            if self._context.summary:
                details["summary"] = self._context.summary
            self._breakdown = prompt.breakdown
            with self.resources.slots:
                details["waited"] = round(time.monotonic() - began, 4)
                if stopped.is_set() or stream.cancel.is_set():
                    state = MessageState.STOPPED
                else:
                    state = self._generate(message, stream, prompt, details)
        except ElysiaError as raised:
            error = raised
        except Exception as bug:
            log.exception("A reply failed")
            error = EngineError("chat.internal_error", type=type(bug).__name__, error=str(bug))
        if error is not None:
            details["error"] = pack_text(error)
        fault = None if error is None else str(error)
        try:
            self.resources.store.finish(
                message.id, stream.text, state, fault, details, self._breakdown
            )
        finally:
            # Watchers are told last: whoever then looks into the store sees the end there.
            stream.end(state)
            self.resources.streams.pop(message.id, None)
        return state

    def _generate(
        self,
        message: ChatMessage,
        stream: ReplyStream,
        prompt: ComposedPrompt,
        details: dict[str, Any],
    ) -> MessageState:
        model, member = self.resources.model, self.members[str(message.speaker)]
        user = self.settings.persona().name
        stop = (*model.stop, *build_name_stops(self.guests, member.key, user))
        sampling = self.settings.sampling(message.number)
        request = GenerationRequest(prompt.messages, model.template, stop, sampling)
        stripper = SpeakerPrefixStripper(member.group_member.names)
        saved, finish = time.monotonic(), None
        for delta in model.engine.stream(request, stream.cancel):
            finish = delta.finish
            if text := stripper.push(delta.text):
                stream.write(text)
            if delta.usage is not None:
                details["tokens"] = delta.usage.reply_tokens
            if time.monotonic() - saved > SAVE_INTERVAL:
                saved = time.monotonic()
                self._save(message.id, stream)
        if text := stripper.flush():
            stream.write(text)
        details["finish"] = finish
        return MessageState.STOPPED if finish == "cancelled" else MessageState.COMPLETE

    def _save(self, message: str, stream: ReplyStream) -> None:
        """Store the reply so far; where it was asked to stop, in whichever process, stop the engine."""
        if self.resources.store.save_text(message, stream.text, self._breakdown):
            self._breakdown = None
        else:
            stream.cancel.set()
