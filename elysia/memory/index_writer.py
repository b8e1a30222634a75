"""An index written behind its owner's back: one thread, every change in its order.

A write costs about as much for many texts as for one, so texts wait a moment for others. What was
added and is not written yet is known by its id, so that its owner need not wait to find it. A change
that takes something away can be waited for. Knows nothing of memories.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from elysia.core.errors import StoreError
from elysia.retrieval.index import HybridIndex

log = logging.getLogger(__name__)

BATCH_DELAY = 0.3  # seconds that texts wait for others
MAX_PENDING = 2_000  # changes that may wait; who brings more waits until there is room

# What is done (add, remove, clear), in which scope, with which (id, text).
IndexChange = tuple[str, str, Sequence[tuple[str, str]]]


class BackgroundIndexWriter:
    """Changes to an index, from several threads. `failed` is told of a scope whose change was lost."""

    def __init__(self, index: HybridIndex, failed: Callable[[str], None]) -> None:
        self._index = index
        self._failed = failed
        self._waiting: list[IndexChange] = []
        self._doing: list[IndexChange] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._hurried = 0  # how many wait for everything to be written
        self._closed = False

    def add(self, scope: str, items: Sequence[tuple[str, str]]) -> None:
        """Write (id, text) soon."""
        if items:
            self._put("add", scope, items)

    def remove(self, scope: str, ids: Sequence[str]) -> None:
        """Take texts out; they are out when this returns."""
        self._put("remove", scope, [(identity, "") for identity in ids])
        self.flush()

    def remove_scope(self, scope: str) -> None:
        """Take a scope out; it is out when this returns."""
        self._put("clear", scope, ())
        self.flush()

    def pending_ids(self, scope: str) -> list[str]:
        """Ids that were added and that a search may not find yet, oldest first."""
        with self._changed:
            return [
                identity
                for kind, of, items in [*self._doing, *self._waiting]
                if kind == "add" and of == scope
                for identity, _ in items
            ]

    def flush(self) -> None:
        """Wait until everything is written."""
        with self._changed:
            self._hurried += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._doing)
            self._hurried -= 1

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread:
            thread.join()

    def _put(self, kind: str, scope: str, items: Sequence[tuple[str, str]]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < MAX_PENDING or self._closed)
            if self._closed:
                raise StoreError("The memory was closed; open it anew.")
            self._waiting.append((kind, scope, items))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._write, name="memory-index", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(lambda: self._hurried or self._closed, BATCH_DELAY)
                if not self._waiting:
                    return
                self._doing = self._next()
            try:
                self._apply(self._doing)
            except Exception as error:
                log.warning(
                    "The index of memories was not written (%s); it is mended later.", error
                )
                for _, scope, _ in self._doing:
                    self._failed(scope)
            with self._changed:
                self._doing = []
                self._changed.notify_all()

    def _next(self) -> list[IndexChange]:
        """The first change, and those after it that can be made with it in one write."""
        kind, many = self._waiting[0][0], 1
        while kind == "add" and many < len(self._waiting) and self._waiting[many][0] == kind:
            many += 1
        taken, self._waiting = self._waiting[:many], self._waiting[many:]
        return taken

    def _apply(self, changes: Sequence[IndexChange]) -> None:
        kind, scope, items = changes[0]
        if kind == "add":
            self._index.add_all([(of, texts) for _, of, texts in changes])
        elif kind == "remove":
            self._index.remove(scope, [identity for identity, _ in items])
        else:
            self._index.remove_scope(scope)
