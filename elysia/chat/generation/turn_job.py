"""A round: the replies to one message, one after the other; each recalled, composed, streamed, kept.

Runs in a worker's thread. Knows nothing of pages, nor of which engine answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elysia.chat.characters import CharacterEntry
from elysia.chat.chat_model import ChatModel
from elysia.chat.conversation_store import ConversationStore
from elysia.chat.generation import speaker_selection
from elysia.chat.generation.priority import PriorityGate
from elysia.chat.generation.reply_stream import ReplyStream, SpeakerPrefixStripper
from elysia.chat.message_tree import FAILED, STOPPED, WHOLE, WRITING, ChatMessage, Conversation
from elysia.chat.prompt.builder import ComposedPrompt
from elysia.chat.prompt.context import ContextBuilder, ContextProviders
from elysia.chat.settings import ConversationSettings
from elysia.core.errors import ElysiaError
from elysia.engines.base import GenerationRequest

log = logging.getLogger(__name__)

SAVE_INTERVAL = 0.5  # seconds between writes of a growing reply


@dataclass
class TurnJob:
    """The replies to one message. `place` keeps the first one's place, `run` writes them."""

    user: str
    conversation: Conversation
    members: Mapping[str, CharacterEntry]
    model: ChatModel
    store: ConversationStore
    providers: ContextProviders
    slots: threading.BoundedSemaphore
    live: MutableMapping[str, ReplyStream]
    calm: PriorityGate
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.settings = ConversationSettings.of(self.conversation.settings)
        self.guests = [member.guest for member in self.members.values()]
        self._stopped = threading.Event()
        self._single = False
        self._reply = ""
        self._receipt: Mapping[str, Any] | None = None  # of the reply, until it is kept
        self._ear = ContextBuilder(
            self.user, self.conversation, self.members, self.model, self.providers, self.settings
        )

    def stop(self) -> None:
        """End the reply that is being written, and the round with it."""
        self._stopped.set()
        if live := self.live.get(self._reply):
            live.cancel.set()

    def place(
        self,
        above: Sequence[ChatMessage],
        lines: Sequence[Mapping[str, Any]],
        speaker: str | None = None,
    ) -> str:
        """Keep `lines` below what is `above` and an empty reply behind them; the reply's id. With a
        `speaker` there is one reply, hers; else the director chooses.
        """
        said = [*above, *(_draft_message(line) for line in lines)]
        choice = (
            speaker_selection.SpeakerChoice(speaker, "asked to answer anew")
            if speaker
            else self._next(said, [])
        )
        self._single = speaker is not None
        chosen = choice or speaker_selection.SpeakerChoice(self.guests[0].key, "the only one")
        return self._place(lines, above[-1].id if above else None, chosen)

    def _place(
        self,
        lines: Sequence[Mapping[str, Any]],
        parent: str | None,
        choice: speaker_selection.SpeakerChoice,
    ) -> str:
        details = {"present": list(self.members), "reason": choice.reason}
        reply = {
            "role": "assistant", "speaker": choice.key, "text": "", "state": WRITING,
            "details": details,
        }  # fmt: skip
        made = self.store.add(self.user, self.conversation.id, [*lines, reply], parent=parent)
        self.live[made[-1]] = ReplyStream()
        self._reply = made[-1]
        return made[-1]

    def run(self) -> None:
        """Write the reply that has its place, then those of whoever the director lets speak."""
        spoken: list[str] = []
        while True:
            lines = self._above(self._reply)
            if not lines or lines[-1].id != self._reply:
                self.live.pop(self._reply, None)
                return  # deleted meanwhile
            spoken.append(str(lines[-1].speaker))
            whole = self._write(lines)
            if not whole or self._single or self._stopped.is_set() or len(self.guests) == 1:
                return
            choice = self._next(self._above(self._reply), spoken)
            if choice is None:
                return
            self._place([], self._reply, choice)

    def _above(self, message: str | None) -> list[ChatMessage]:
        return self.store.path(self.user, self.conversation.id, message)

    def _next(
        self, lines: Sequence[ChatMessage], spoken: Sequence[str]
    ) -> speaker_selection.SpeakerChoice | None:
        talk = [speaker_selection.GroupMessage(line.speaker, line.text) for line in lines]
        return speaker_selection.select_speaker(talk, self.guests, spoken, self.settings.round)

    # One reply

    def _write(self, lines: Sequence[ChatMessage]) -> bool:
        """Write the last of `lines`; whether it came to its own end."""
        line, live = lines[-1], self.live[lines[-1].id]
        details: dict[str, Any] = dict(line.details)
        state, fault = FAILED, None
        self._receipt = None
        try:
            began = time.monotonic()
            with self.calm.broken():
                composed = self._ear.compose(lines[:-1], str(line.speaker))
            details["prepared"] = round(time.monotonic() - began, 4)
            details["lore"] = sorted(composed.matched)
            if self._ear.summary:
                details["summary"] = self._ear.summary
            self._receipt = composed.receipt
            with self.slots:
                details["waited"] = round(time.monotonic() - began, 4)
                state = self._stream(line, live, composed, details)
        except ElysiaError as error:
            fault = str(error)
        except Exception as error:
            fault = f"The reply failed by a mistake of ours: {type(error).__name__}: {error}."
            log.exception("A reply failed")
        try:
            self.store.finish(line.id, live.text, state, fault, details, self._receipt)
        finally:
            # Watchers are told last: who then looks into the store finds the end there.
            live.end(state)
            self.live.pop(line.id, None)
        return state == WHOLE

    def _stream(
        self,
        line: ChatMessage,
        live: ReplyStream,
        composed: ComposedPrompt,
        details: dict[str, Any],
    ) -> str:
        if self._stopped.is_set() or live.cancel.is_set():
            return STOPPED
        member = self.members[str(line.speaker)]
        user = self.settings.persona().name
        stop = (
            *self.model.stop,
            *speaker_selection.build_name_stops(self.guests, member.key, user),
        )
        request = GenerationRequest(
            composed.messages, self.model.template, stop, self.settings.sampling(line.number)
        )
        words = SpeakerPrefixStripper(member.guest.names)
        kept, finish = time.monotonic(), None
        for delta in self.model.engine.stream(request, live.cancel):
            finish = delta.finish
            if text := words.push(delta.text):
                live.write(text)
            if delta.usage is not None:
                details["tokens"] = delta.usage.reply_tokens
            if time.monotonic() - kept > SAVE_INTERVAL:
                kept = time.monotonic()
                if self.store.write(line.id, live.text, self._receipt):
                    self._receipt = None
                else:
                    live.cancel.set()
        if text := words.rest():
            live.write(text)
        details["finish"] = finish
        return STOPPED if finish == "cancelled" else WHOLE


def _draft_message(line: Mapping[str, Any]) -> ChatMessage:
    return ChatMessage("", None, line["role"], line.get("speaker"), line["text"])
