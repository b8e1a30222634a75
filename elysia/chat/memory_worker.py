"""Memory in the background: conversations that memory has to follow, one after the other.

Work for memory may come faster than it is done. What waits is therefore not a queue of messages but at
most one `PendingUpdate` for each conversation, which says what memory has to look at; the messages
themselves are read when its turn comes.
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

MESSAGES_PER_TURN = 8  # newest messages that memory is shown; it recognises those it has
MAX_IDLE_WAIT = 0.1  # seconds that an update waits, at most, for replies that are being prepared
MAX_KNOWN_CONVERSATIONS = 1_000  # of which this process remembers that memory was shown the whole


@dataclass
class PendingUpdate:
    """What memory has to look at in one conversation."""

    turns: int = 0  # that ended
    branch_changed: bool = False
    deleted: list[tuple[Sequence[str], Sequence[str]]] = field(default_factory=list)
    """Pairs of characters and the ids of deleted messages, which they may remember."""


class MemoryWorker:
    """Pending updates, and the thread that carries them out. Its errors are logged and harm nobody."""

    def __init__(
        self,
        store: ConversationStore,
        characters: CharacterRegistry,
        providers: ContextProviders,
        gate: PriorityGate,
    ) -> None:
        self._store, self._characters, self._providers = store, characters, providers
        self._gate = gate
        # By user and conversation, the oldest first.
        self._updates: dict[tuple[str, str], PendingUpdate] = {}
        self._known: dict[str, None] = {}
        self._working = self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="remember", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """How many conversations wait."""
        return len(self._updates)

    def record_turn(self, user: str, id: str) -> None:
        """A turn ended."""
        with self._update(user, id) as update:
            update.turns += 1

    def record_branch_change(self, user: str, id: str) -> None:
        """Another branch is shown: what is not on it counts as not said."""
        with self._update(user, id) as update:
            update.branch_changed = True

    def record_deletion(
        self, user: str, id: str, guests: Sequence[str], messages: Sequence[str], *, whole: bool
    ) -> None:
        """Messages were deleted, which these characters may remember; with `whole`, everything, so that
        nothing else of the conversation is to be looked at.
        """
        with self._update(user, id) as update:
            if whole:
                update.turns, update.branch_changed = 0, False
            update.deleted.append((tuple(guests), tuple(messages)))

    def wait_for_memory(self, timeout: float) -> None:
        """Wait until nothing is pending; TimeoutError after `timeout` seconds."""
        with self._change:
            if not self._change.wait_for(lambda: not self._updates and not self._working, timeout):
                raise TimeoutError(f"Memory is not up to date after {timeout:g} seconds.")

    def close(self) -> None:
        """Carry out what is pending, and end."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    @contextmanager
    def _update(self, user: str, id: str) -> Iterator[PendingUpdate]:
        with self._change:
            yield self._updates.setdefault((user, id), PendingUpdate())
            self._change.notify_all()

    def _work(self) -> None:
        while True:
            with self._change:
                self._working = False
                self._change.notify_all()
                self._change.wait_for(lambda: self._updates or self._closed)
            # Replies first; and more turns of a conversation may end meanwhile.
            self._gate.wait_idle(MAX_IDLE_WAIT)
            with self._change:
                if not self._updates:
                    return
                key = next(iter(self._updates))
                update = self._updates.pop(key)
                self._working = True
            try:
                self._apply(*key, update)
            except ElysiaError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("Memory could not follow a conversation")

    def _apply(self, user: str, id: str, update: PendingUpdate) -> None:
        if self._providers.memory is None:
            return
        for guests, ids in update.deleted:
            self._providers.forget(user, guests, ids)
        if not update.turns and not update.branch_changed:
            return
        conversation = self._store.get(user, id)
        # A process that was killed may have stored messages that memory has not seen: the first time,
        # and on another branch, memory is shown everything.
        if update.branch_changed or id not in self._known:
            messages = self._store.get_branch(user, id)
        else:
            messages = self._store.get_newest(user, id, MESSAGES_PER_TURN * update.turns)
        if update.branch_changed:
            hidden = set(self._store.get_ids(user, id)) - {message.id for message in messages}
            self._providers.forget(user, conversation.guests, list(hidden))
        # Those who have left the group since were present all the same.
        present = [key for message in messages for key in message.details.get("present", ())]
        members: dict[str, CharacterEntry] = {}
        for key in dict.fromkeys([*conversation.guests, *present]):
            with suppress(PersonaError):  # the card was removed
                members[key] = self._characters.get(user, key)
        self._providers.remember(user, conversation, members, messages)
        self._known[id] = None
        while len(self._known) > MAX_KNOWN_CONVERSATIONS:
            del self._known[next(iter(self._known))]
