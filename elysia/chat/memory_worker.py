"""Memory behind the replies: conversations whose memory is to follow them, one after the other.

Work for memory may come faster than it is done. What waits is therefore no list of work but a note on
each conversation, at most one, that says what memory has to look at; the words themselves are read
when its turn comes. Knows nothing of how a reply is made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from elysia.chat.characters import CharacterEntry, CharacterRegistry
from elysia.chat.conversation_store import ConversationStore
from elysia.chat.generation.priority import PriorityGate
from elysia.chat.prompt.context import ContextProviders
from elysia.core.errors import ElysiaError, PersonaError

log = logging.getLogger(__name__)

MESSAGES_PER_TURN = 8  # newest messages of a round that memory is shown; it knows those it has
MAX_IDLE_WAIT = 0.1  # seconds that a note waits, at most, for replies that are being prepared
MAX_KNOWN_CONVERSATIONS = (
    1_000  # conversations of which this process knows that memory was shown the whole
)


@dataclass
class PendingUpdate:
    """What memory has to look at in one conversation."""

    rounds: int = 0  # that ended
    changed: bool = False  # another branch is shown
    gone: list[tuple[Sequence[str], Sequence[str]]] = field(
        default_factory=list
    )  # guests, messages


class MemoryWorker:
    """Notes and the thread that follows them. A fault is told in the log and harms nobody."""

    def __init__(
        self,
        store: ConversationStore,
        characters: CharacterRegistry,
        providers: ContextProviders,
        calm: PriorityGate,
    ) -> None:
        self._store, self._cast, self._providers = store, characters, providers
        self._calm = calm
        self._notes: dict[
            tuple[str, str], PendingUpdate
        ] = {}  # by user and conversation, the oldest first
        self._met: dict[str, None] = {}
        self._working = self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="remember", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Notes that are not followed yet."""
        return len(self._notes)

    def said(self, user: str, id: str) -> None:
        """A round ended."""
        with self._noted(user, id) as note:
            note.rounds += 1

    def changed(self, user: str, id: str) -> None:
        """Another branch is shown: what stands on none was not said."""
        with self._noted(user, id) as note:
            note.changed = True

    def deleted(self, user: str, id: str, guests: Sequence[str], messages: Sequence[str]) -> None:
        """Messages are gone, which these guests may remember."""
        with self._noted(user, id) as note:
            note.gone.append((tuple(guests), tuple(messages)))

    def removed(self, user: str, id: str, guests: Sequence[str], messages: Sequence[str]) -> None:
        """A whole conversation is gone; nothing else of it is to be looked at."""
        with self._noted(user, id) as note:
            note.rounds, note.changed = 0, False
            note.gone.append((tuple(guests), tuple(messages)))

    def wait_for_memory(self, timeout: float) -> None:
        """Wait until every note is followed; TimeoutError after `timeout` seconds."""
        with self._change:
            if not self._change.wait_for(lambda: not self._notes and not self._working, timeout):
                raise TimeoutError(f"Not all is remembered after {timeout:g} seconds.")

    def close(self) -> None:
        """Follow what was noted, and end."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    @contextmanager
    def _noted(self, user: str, id: str) -> Iterator[PendingUpdate]:
        with self._change:
            yield self._notes.setdefault((user, id), PendingUpdate())
            self._change.notify_all()

    def _work(self) -> None:
        while True:
            with self._change:
                self._working = False
                self._change.notify_all()
                self._change.wait_for(lambda: self._notes or self._closed)
            self._calm.wait(MAX_IDLE_WAIT)  # more rounds of a conversation may end meanwhile, too
            with self._change:
                if not self._notes:
                    return
                key = next(iter(self._notes))
                note = self._notes.pop(key)
                self._working = True
            try:
                self._follow(*key, note)
            except ElysiaError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("Remembering failed")

    def _follow(self, user: str, id: str, note: PendingUpdate) -> None:
        if self._providers.memory is None:
            return
        for guests, messages in note.gone:
            self._providers.forget(user, guests, messages)
        if not note.rounds and not note.changed:
            return
        conversation = self._store.get(user, id)
        # A process that was killed may have kept words that memory has not seen.
        if note.changed or id not in self._met:
            lines = self._store.branch(user, id)
        else:
            lines = self._store.newest(user, id, MESSAGES_PER_TURN * note.rounds)
        if note.changed:
            aside = set(self._store.ids(user, id)) - {line.id for line in lines}
            self._providers.forget(user, conversation.guests, list(aside))
        # Who has left the table since heard it all the same.
        heard = [key for line in lines for key in line.details.get("present", ())]
        members: dict[str, CharacterEntry] = {}
        for key in dict.fromkeys([*conversation.guests, *heard]):
            with suppress(PersonaError):  # her card was removed
                members[key] = self._cast.get(user, key)
        self._providers.remember(user, conversation, members, lines)
        self._met[id] = None
        while len(self._met) > MAX_KNOWN_CONVERSATIONS:
            del self._met[next(iter(self._met))]
