"""Writes an index in the background: one thread applies every change in order.

A write costs about as much for many texts as for one, so additions wait a moment for others. The ids
of what is not written yet are known, so that its owner can search them too. Removals can be waited for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from elysia.core.errors import StoreError
from elysia.retrieval.index import HybridIndex

log = logging.getLogger(__name__)

BATCH_DELAY = 0.3  # seconds that additions wait for others
MAX_PENDING = 2_000  # changes that may wait; a caller with more waits until there is room


class ChangeKind(Enum):
    """What happens to an index."""

    ADD = auto()
    REMOVE = auto()
    CLEAR = auto()


@dataclass(frozen=True)
class IndexChange:
    """A change of one scope: (id, text) pairs to add, ids to remove (the texts are empty), or all."""

    kind: ChangeKind
    scope: str
    items: Sequence[tuple[str, str]] = ()


class BackgroundIndexWriter:
    """Changes to an index, from several threads. `on_failure` gets a scope whose change was lost."""

    def __init__(self, index: HybridIndex, on_failure: Callable[[str], None]) -> None:
        self._index = index
        self._on_failure = on_failure
        self._pending: list[IndexChange] = []
        self._in_progress: list[IndexChange] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._flushing = 0  # how many threads wait for everything to be written
        self._closed = False

    def add(self, scope: str, items: Sequence[tuple[str, str]]) -> None:
        """Write (id, text) pairs soon."""
        if items:
            self._put(IndexChange(ChangeKind.ADD, scope, items))

    def remove(self, scope: str, ids: Sequence[str]) -> None:
        """Remove texts, and return when they are gone."""
        self._put(IndexChange(ChangeKind.REMOVE, scope, [(identity, "") for identity in ids]))
        self.flush()

    def remove_scope(self, scope: str) -> None:
        """Remove a scope, and return when it is gone."""
        self._put(IndexChange(ChangeKind.CLEAR, scope))
        self.flush()

    def pending_ids(self, scope: str) -> list[str]:
        """Ids that were added and that a search may not find yet, oldest first."""
        with self._changed:
            return [
                identity
                for change in [*self._in_progress, *self._pending]
                if change.kind is ChangeKind.ADD and change.scope == scope
                for identity, _ in change.items
            ]

    def flush(self) -> None:
        """Wait until everything is written."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pending and not self._in_progress)
            self._flushing -= 1

    def close(self) -> None:
        """Write what is pending, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread:
            thread.join()

    def _put(self, change: IndexChange) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._pending) < MAX_PENDING or self._closed)
            if self._closed:
                raise StoreError("memory.closed")
            self._pending.append(change)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="memory-index", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                self._changed.wait_for(lambda: self._flushing or self._closed, BATCH_DELAY)
                if not self._pending:
                    return
                self._in_progress = self._take_batch()
            try:
                self._apply(self._in_progress)
            except Exception as error:
                log.warning("The memory index was not written (%s); it is repaired later.", error)
                for change in self._in_progress:
                    self._on_failure(change.scope)
            with self._changed:
                self._in_progress = []
                self._changed.notify_all()

    def _take_batch(self) -> list[IndexChange]:
        """The first change, and the additions after it if it is one: they are one write together."""
        count = 1
        if self._pending[0].kind is ChangeKind.ADD:
            while count < len(self._pending) and self._pending[count].kind is ChangeKind.ADD:
                count += 1
        batch, self._pending = self._pending[:count], self._pending[count:]
        return batch

    def _apply(self, changes: Sequence[IndexChange]) -> None:
        first = changes[0]
        if first.kind is ChangeKind.ADD:
            self._index.add_all([(change.scope, change.items) for change in changes])
        elif first.kind is ChangeKind.REMOVE:
            self._index.remove(first.scope, [identity for identity, _ in first.items])
        else:
            self._index.remove_scope(first.scope)
