"""The chat service: what a page, a terminal or a test asks for, for one user at a time.

A reply is written by a worker and kept as it grows; pages come and go. Every call takes the user, and
finds nothing of anybody else's. Knows nothing of which engine answers, nor of which page asks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from elysia.chat.characters import CharacterRegistry
from elysia.chat.chat_model import ChatModel
from elysia.chat.conversation_store import ConversationStore
from elysia.chat.generation.priority import PriorityGate
from elysia.chat.generation.scheduler import TurnScheduler
from elysia.chat.generation.turn_job import TurnJob
from elysia.chat.memory_worker import MemoryWorker
from elysia.chat.message_tree import WRITING, ChatMessage, Conversation
from elysia.chat.prompt.context import ContextProviders
from elysia.chat.prompt.greetings import build_greetings, get_seed
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
        """`workers` rounds at once; by default a few more than the engine has slots, so that one
        prepares while others generate.
        """
        self.characters = characters
        self.model = model
        self.providers = providers or ContextProviders()
        self.store = ConversationStore(database)
        self.database = database
        self._calm = PriorityGate()
        self._memory_worker = MemoryWorker(self.store, characters, self.providers, self._calm)
        slots = max(model.engine.slots, 1)
        self._scheduler = TurnScheduler(workers or slots + 4, slots, self._memory_worker.said)
        if mended := self.store.mend():
            log.info("%d replies had been cut short when a program ended.", mended)

    def close(self) -> None:
        """Stop every reply, keep what was written, let go of everything but the database."""
        self._scheduler.close()
        self._memory_worker.close()
        self.providers.close()
        self.model.engine.close()

    # Conversations

    def new(
        self,
        user: str,
        guests: Sequence[str],
        settings: Mapping[str, Any] | None = None,
        *,
        greeting: int = 0,
        title: str = "",
    ) -> Conversation:
        """A conversation with one character or several. Its greetings stand as branches of the first
        message, the `greeting`-th shown. PersonaError for a character the user does not have.
        """
        members = self.characters.guests(user, list(dict.fromkeys(guests)))
        if not members:
            raise UsageError("Choose somebody to talk to.")
        asked = ConversationSettings.of(settings or {})
        made = self.store.new(
            user,
            [m.key for m in members],
            title or "、".join(m.name for m in members),
            asked.values(),
        )
        lines = build_greetings(members, asked, get_seed(made.id))
        for line in lines:
            self.store.add(user, made.id, [line], parent=None)
        if lines:
            first = self.store.branch(user, made.id)[0].siblings
            self.store.rewind(user, made.id, first[min(max(greeting, 0), len(first) - 1)])
        return self.store.get(user, made.id)

    def set(self, user: str, id: str, /, **values: Any) -> Conversation:
        """Change settings of a conversation; UsageError for one that is out of range."""
        settings = ConversationSettings.of({**self.store.get(user, id).settings, **values})
        return self.store.change(user, id, settings=settings.values())

    def invite(self, user: str, id: str, guests: Sequence[str]) -> Conversation:
        """Set who sits at the table. Who comes later has not heard what was said before."""
        members = self.characters.guests(user, list(dict.fromkeys(guests)))
        if not members:
            raise UsageError("Somebody must stay at the table.")
        return self.store.change(user, id, guests=[member.key for member in members])

    def remove(self, user: str, id: str) -> None:
        """Delete a conversation and what was remembered of it."""
        with self._turn(user, id) as conversation:
            gone = self.store.remove(user, id)
        self._memory_worker.removed(user, id, conversation.guests, gone)

    def get_messages(self, user: str, id: str) -> list[ChatMessage]:
        """The branch that is shown, with what is being written as far as it is."""
        return [self._fresh(line) for line in self.store.branch(user, id)]

    def _fresh(self, line: ChatMessage) -> ChatMessage:
        live = self._scheduler.live.get(line.id)
        if live is None:
            return line
        return ChatMessage(**{**line.__dict__, "text": live.text})

    # Turns

    def send(self, user: str, id: str, text: str) -> str:
        """Keep the user's message and begin the answer; the reply's id. What was being written in
        the conversation is stopped first. Once this returns, the message is not lost any more.
        """
        text = _clean_text(text)
        with self._turn(user, id) as conversation:
            above = self.store.branch(user, id)
            if not any(line.role == "user" for line in above):
                title = f"{conversation.title}: {' '.join(text.split())}"
                conversation = self.store.change(user, id, title=title)
            said = {"role": "user", "text": text, "details": {"present": list(conversation.guests)}}
            return self._begin(user, conversation, above, [said])

    def regenerate(self, user: str, id: str, message: str) -> str:
        """Answer anew: another branch beside a reply. Its id."""
        with self._turn(user, id) as conversation:
            line = self.store.line(user, id, message)
            if line.role != "assistant":
                raise UsageError("Only a reply can be made anew.")
            if line.parent is None:
                raise UsageError("A greeting is the card's own; there is nothing to make anew.")
            above = self.store.path(user, id, line.parent)
            reply = self._begin(user, conversation, above, [], speaker=line.speaker)
            self._memory_worker.changed(user, id)
            return reply

    def edit(self, user: str, id: str, message: str, text: str) -> str | None:
        """Put other words beside a message, on a branch of their own. The id of the answer to a user's
        message; None for a reply, which is only rewritten.
        """
        text = _clean_text(text)
        with self._turn(user, id) as conversation:
            line = self.store.line(user, id, message)
            details = {
                "edited": True,
                **({"present": line.details["present"]} if "present" in line.details else {}),
            }
            said = {"role": line.role, "speaker": line.speaker, "text": text, "details": details}
            reply = None
            if line.role == "user":
                above = self.store.path(user, id, line.parent)
                reply = self._begin(user, conversation, above, [said])
            else:
                self.store.add(user, id, [said], parent=line.parent)
            self._memory_worker.changed(user, id)
            return reply

    def swipe(self, user: str, id: str, message: str, step: int) -> str:
        """Show the branch beside a message, `step` places on; its id. UsageError at the end."""
        with self._turn(user, id):
            line = self.store.line(user, id, message)
            place = line.siblings.index(message) + step
            if not 0 <= place < len(line.siblings):
                raise UsageError("There is no further branch.")
            self.store.show(user, id, line.siblings[place])
            self._memory_worker.changed(user, id)
            return line.siblings[place]

    def undo(self, user: str, id: str) -> str:
        """Step back to before the user's last message, and give its text back; it stays in the tree."""
        with self._turn(user, id):
            said = [line for line in self.store.branch(user, id) if line.role == "user"]
            if not said:
                raise UsageError("There is nothing to take back.")
            self.store.rewind(user, id, said[-1].parent)
            self._memory_worker.changed(user, id)
            return said[-1].text

    def delete(self, user: str, id: str, message: str) -> None:
        """Delete a message and everything after it, and what was remembered of it."""
        with self._turn(user, id) as conversation:
            gone = self.store.delete(user, id, message)
            self._memory_worker.deleted(user, id, conversation.guests, gone)
            self._memory_worker.changed(user, id)

    def stop(self, user: str, id: str) -> None:
        """Stop what is being written; it is kept as far as it came."""
        self.store.stop(user, id)  # says whose it is, and reaches other processes
        if running := self._scheduler.running(id):
            running.stop()

    def is_busy(self, user: str, id: str) -> bool:
        """Whether somebody is writing, or about to."""
        return self.store.is_busy(user, id) or self._scheduler.running(id) is not None

    def follow(self, user: str, id: str, message: str) -> Iterator[str]:
        """A reply's text piece by piece, from its first word to its end, whoever writes it. A piece
        may be ''. The end's state is in `lines`.
        """
        self.store.line(user, id, message)  # says whose it is
        if live := self._scheduler.live.get(message):
            yield from live.pieces(POLL_INTERVAL)
            return
        seen = 0
        while True:
            line = self.store.line(user, id, message)
            yield line.text[seen:]
            seen = max(seen, len(line.text))
            if line.state != WRITING:
                return
            time.sleep(POLL_INTERVAL)

    # Receipts

    def get_prompt_breakdown(self, user: str, id: str, message: str) -> dict[str, Any]:
        """What entered the prompt of a reply; {} for a message without one."""
        return self.store.get_prompt_breakdown(user, id, message)

    # What is below the calls

    def _begin(
        self,
        user: str,
        conversation: Conversation,
        above: Sequence[ChatMessage],
        lines: Sequence[Mapping[str, Any]],
        speaker: str | None = None,
    ) -> str:
        """Keep `lines` and the reply's place in one transaction, and hand the round to a worker."""
        begun = TurnJob(
            user=user,
            conversation=conversation,
            members={m.key: m for m in self.characters.guests(user, conversation.guests)},
            model=self.model,
            store=self.store,
            providers=self.providers,
            slots=self._scheduler.slots,
            live=self._scheduler.live,
            calm=self._calm,
        )
        reply = begun.place(above, lines, speaker)
        self._scheduler.begin(begun)
        return reply

    @contextmanager
    def _turn(self, user: str, id: str) -> Iterator[Conversation]:
        """Alone with a conversation, and nothing being written in it."""
        with self._scheduler.turn(id):
            conversation = self.store.get(user, id)  # says whose it is
            if self._scheduler.quiet(id):
                conversation = self.store.get(user, id)
            yield conversation

    def wait_for_memory(self, timeout: float = 30.0) -> None:
        """Wait until everything that was said so far is remembered. For tests and exports."""
        self._memory_worker.wait_for_memory(timeout)


def _clean_text(text: str) -> str:
    # What databases have no place for: NUL, and halves of characters.
    text = text.replace("\x00", "").encode("utf-8", "replace").decode().strip()
    if not text:
        raise UsageError("Write something first.")
    if len(text) > MAX_MESSAGE_LENGTH:
        raise UsageError(
            f"The message has {len(text)} characters; {MAX_MESSAGE_LENGTH} may be sent."
        )
    return text
