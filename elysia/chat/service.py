"""The chat service: everything that a page or a terminal does with conversations, for one user at a time.

A reply is written by a worker and stored as it grows, while pages come and go. Every method takes the
user's id and finds nothing of another user's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from elysia.chat.characters import CharacterEntry, CharacterRegistry
from elysia.chat.chat_model import ChatModel
from elysia.chat.conversation_store import ConversationStore
from elysia.chat.generation.priority import PriorityGate
from elysia.chat.generation.scheduler import TurnScheduler
from elysia.chat.generation.turn_job import TurnJob, TurnResources
from elysia.chat.memory_worker import MemoryWorker
from elysia.chat.message_tree import ChatMessage, Conversation, MessageState
from elysia.chat.prompt.character_state import CharacterState
from elysia.chat.prompt.context import ContextProviders
from elysia.chat.settings import ConversationSettings
from elysia.core.errors import UsageError
from elysia.store.database import Database

log = logging.getLogger(__name__)

MAX_MESSAGE_LENGTH = 100_000  # characters of one message
POLL_INTERVAL = 0.3  # seconds between looks at a reply that another process writes


class ChatService:
    """Conversations of every user with every character, over one model."""

    def __init__(
        self,
        database: Database,
        characters: CharacterRegistry,
        model: ChatModel,
        providers: ContextProviders | None = None,
        *,
        workers: int | None = None,
    ) -> None:
        """`workers` turns at once; by default a few more than the engine has slots, so that one
        prepares its prompt while others generate.
        """
        self.characters = characters
        self.model = model
        self.providers = providers or ContextProviders()
        self.store = ConversationStore(database)
        self.database = database
        gate = PriorityGate()
        self._memory_worker = MemoryWorker(self.store, characters, self.providers, gate)
        slots = max(model.engine.slots, 1)
        self._scheduler = TurnScheduler(
            workers or slots + 4, slots, self._memory_worker.record_turn
        )
        self._resources = TurnResources(
            model, self.store, self.providers, self._scheduler.slots, self._scheduler.streams, gate
        )
        if interrupted := self.store.recover_interrupted():
            log.info("%d replies had been cut short when a program ended.", interrupted)

    def close(self) -> None:
        """Stop every reply, store what was written, release everything but the database."""
        self._scheduler.close()
        self._memory_worker.close()
        self.providers.close()
        self.model.engine.close()

    # Conversations

    def create(
        self,
        user: str,
        guests: Sequence[str],
        settings: Mapping[str, Any] | None = None,
        *,
        greeting: int = 0,
        title: str = "",
    ) -> Conversation:
        """A new conversation with one character or several, given by their keys.

        The greetings stand as branches of the first message, the `greeting`-th shown. PersonaError for
        a character that the user does not have.
        """
        members = self.characters.get_many(user, list(dict.fromkeys(guests)))
        if not members:
            raise UsageError("chat.choose_characters")
        checked = ConversationSettings.load(settings or {})
        conversation = self.store.create(
            user,
            [member.key for member in members],
            title or "、".join(member.name for member in members),
            checked.dump(),
        )
        id = conversation.id
        greetings = build_greetings(members, checked, conversation.seed)
        for message in greetings:
            self.store.add(user, id, [message], parent=None)
        if greetings:
            branches = self.store.get_branch(user, id)[0].siblings
            shown = branches[min(max(greeting, 0), len(branches) - 1)]
            self.store.rewind(user, id, shown)
        return self.store.get(user, id)

    def update_settings(self, user: str, id: str, /, **values: Any) -> Conversation:
        """Change settings of a conversation; UsageError for one that is out of range."""
        settings = ConversationSettings.load({**self.store.get(user, id).settings, **values})
        return self.store.update(user, id, settings=settings.dump())

    def set_guests(self, user: str, id: str, guests: Sequence[str]) -> Conversation:
        """Set the characters of a conversation. One that comes later does not know what was said
        before.
        """
        members = self.characters.get_many(user, list(dict.fromkeys(guests)))
        if not members:
            raise UsageError("chat.nobody_left")
        return self.store.update(user, id, guests=[member.key for member in members])

    def delete_conversation(self, user: str, id: str) -> None:
        """Delete a conversation and what was remembered of it."""
        with self._exclusive(user, id) as conversation:
            ids = self.store.delete_conversation(user, id)
        self._memory_worker.record_deletion(user, id, conversation.guests, ids, whole=True)

    def get_messages(self, user: str, id: str) -> list[ChatMessage]:
        """The branch that is shown, with what is being written as far as it is."""
        messages = []
        for message in self.store.get_branch(user, id):
            stream = self._scheduler.streams.get(message.id)
            messages.append(replace(message, text=stream.text) if stream else message)
        return messages

    # Turns

    def send(self, user: str, id: str, text: str) -> str:
        """Store the user's message and begin the reply; the reply's id.

        What is being written in the conversation is stopped first. Once this returns, the message
        cannot be lost any more.
        """
        text = _clean_text(text)
        with self._exclusive(user, id) as conversation:
            above = self.store.get_branch(user, id)
            if not any(message.role == "user" for message in above):
                title = f"{conversation.title}: {' '.join(text.split())}"
                conversation = self.store.update(user, id, title=title)
            details = {"present": list(conversation.guests)}
            draft = {"role": "user", "text": text, "details": details}
            return self._begin(user, conversation, above, [draft])

    def regenerate(self, user: str, id: str, message: str) -> str:
        """Write another reply on a branch beside the one with this id; its id."""
        with self._exclusive(user, id) as conversation:
            reply = self.store.get_message(user, id, message)
            if reply.role != "assistant":
                raise UsageError("chat.only_replies_are_regenerated")
            if reply.parent is None:
                raise UsageError("chat.greeting_is_not_regenerated")
            above = self.store.get_path(user, id, reply.parent)
            new_reply = self._begin(user, conversation, above, [], speaker=reply.speaker)
            self._memory_worker.record_branch_change(user, id)
            return new_reply

    def edit(self, user: str, id: str, message: str, text: str) -> str | None:
        """Put another text beside a message, on a branch of its own.

        The id of the reply to a user's message; None for a reply, which is only rewritten.
        """
        text = _clean_text(text)
        with self._exclusive(user, id) as conversation:
            old = self.store.get_message(user, id, message)
            details: dict[str, Any] = {"edited": True}
            if "present" in old.details:
                details["present"] = old.details["present"]
            draft = {"role": old.role, "speaker": old.speaker, "text": text, "details": details}
            reply = None
            if old.role == "user":
                above = self.store.get_path(user, id, old.parent)
                reply = self._begin(user, conversation, above, [draft])
            else:
                self.store.add(user, id, [draft], parent=old.parent)
            self._memory_worker.record_branch_change(user, id)
            return reply

    def swipe(self, user: str, id: str, message: str, step: int) -> str:
        """Show the branch `step` places on from a message; its id. UsageError at the end."""
        with self._exclusive(user, id):
            siblings = self.store.get_message(user, id, message).siblings
            place = siblings.index(message) + step
            if not 0 <= place < len(siblings):
                raise UsageError("chat.no_further_branch")
            self.store.show_branch(user, id, siblings[place])
            self._memory_worker.record_branch_change(user, id)
            return siblings[place]

    def undo(self, user: str, id: str) -> str:
        """Go back to before the user's last message, and return its text. It stays in the tree."""
        with self._exclusive(user, id):
            branch = self.store.get_branch(user, id)
            last = next((m for m in reversed(branch) if m.role == "user"), None)
            if last is None:
                raise UsageError("chat.nothing_to_undo")
            self.store.rewind(user, id, last.parent)
            self._memory_worker.record_branch_change(user, id)
            return last.text

    def delete_message(self, user: str, id: str, message: str) -> None:
        """Delete a message and everything after it, and what was remembered of it."""
        with self._exclusive(user, id) as conversation:
            ids = self.store.delete_message(user, id, message)
            self._memory_worker.record_deletion(user, id, conversation.guests, ids, whole=False)
            self._memory_worker.record_branch_change(user, id)

    def stop(self, user: str, id: str) -> None:
        """Stop what is being written; it is stored as far as it came."""
        self.store.request_stop(user, id)  # refuses other users, and reaches other processes
        if job := self._scheduler.get_running(id):
            job.stop()

    def is_busy(self, user: str, id: str) -> bool:
        """Whether a reply is being written, or about to be."""
        return self.store.is_busy(user, id) or self._scheduler.get_running(id) is not None

    def follow(self, user: str, id: str, message: str) -> Iterator[str]:
        """A reply's text chunk by chunk, from its first word to its end, whichever process writes it.

        A chunk may be ''. The state at the end is in `get_messages`.
        """
        self.store.get_message(user, id, message)  # refuses other users
        if stream := self._scheduler.streams.get(message):
            yield from stream.iter_chunks(POLL_INTERVAL)
            return
        position = 0
        while True:
            reply = self.store.get_message(user, id, message)
            yield reply.text[position:]
            position = max(position, len(reply.text))
            if reply.state != MessageState.WRITING:
                return
            time.sleep(POLL_INTERVAL)

    def get_prompt_breakdown(self, user: str, id: str, message: str) -> dict[str, Any]:
        """What entered the prompt of a reply; {} for a message without one."""
        return self.store.get_prompt_breakdown(user, id, message)

    def wait_for_memory(self, timeout: float = 30.0) -> None:
        """Wait until everything said so far is remembered. For tests and exports."""
        self._memory_worker.wait_for_memory(timeout)

    def _begin(
        self,
        user: str,
        conversation: Conversation,
        above: Sequence[ChatMessage],
        drafts: Sequence[Mapping[str, Any]],
        speaker: str | None = None,
    ) -> str:
        """Store `drafts` and the reply's place in one transaction, and hand the turn to a worker."""
        members = {m.key: m for m in self.characters.get_many(user, conversation.guests)}
        job = TurnJob(user, conversation, members, self._resources)
        reply = job.begin(above, drafts, speaker)
        self._scheduler.submit(job)
        return reply

    @contextmanager
    def _exclusive(self, user: str, id: str) -> Iterator[Conversation]:
        """Exclusive use of a conversation, with nothing being written in it."""
        with self._scheduler.lock(id):
            conversation = self.store.get(user, id)  # refuses other users
            if self._scheduler.stop_running(id):
                conversation = self.store.get(user, id)
            yield conversation


def build_greetings(
    members: Sequence[CharacterEntry], settings: ConversationSettings, seed: int
) -> list[dict[str, Any]]:
    """The first character's greetings as messages; in a group its group greetings, if there are any."""
    first, is_group = members[0], len(members) > 1
    greetings = []
    for number in range(len(first.card.greetings)):
        character = CharacterState(first.card, settings.persona(), greeting=number, seed=seed)
        greetings += [(number, message.text) for message in character.begin()]
    if is_group and first.card.group_greetings:
        character = CharacterState(first.card, settings.persona(), seed=seed)
        greetings = [(0, character.fill(text)) for text in first.card.group_greetings]
    present = [member.key for member in members]
    return [
        {
            "role": "assistant", "speaker": first.key, "text": text,
            "details": {"greeting": number, "present": present},
        }
        for number, text in greetings
        if text.strip()
    ]  # fmt: skip


def _clean_text(text: str) -> str:
    # What databases cannot hold: NUL, and halves of surrogate pairs.
    text = text.replace("\x00", "").encode("utf-8", "replace").decode().strip()
    if not text:
        raise UsageError("chat.empty_message")
    if len(text) > MAX_MESSAGE_LENGTH:
        raise UsageError("chat.message_too_long", length=len(text), limit=MAX_MESSAGE_LENGTH)
    return text
