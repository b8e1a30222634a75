"""Replies that are being written in this process: whoever knows a reply's id may watch it grow.

A reply belongs to its writer, not to a page: a watcher that leaves changes nothing, one that comes
late reads from the first word. Knows nothing of databases or engines.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from elysia.chat.tree import WRITING


class Live:
    """One reply. Its writer calls `write` and `end`, watchers iterate over `pieces`."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self._changed = threading.Condition()
        self._text = ""
        self._state = WRITING

    @property
    def text(self) -> str:
        """So far."""
        return self._text

    @property
    def state(self) -> str:
        """One of tree's states."""
        return self._state

    def write(self, piece: str) -> None:
        """More of the reply."""
        with self._changed:
            self._text += piece
            self._changed.notify_all()

    def end(self, state: str) -> None:
        """Nothing more comes."""
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def pieces(self, patience: float | None = None) -> Iterator[str]:
        """The reply from its first word to its end. Gives '' after `patience` seconds of silence,
        so that a watcher can look whether anybody is still there.
        """
        seen = 0
        while True:
            with self._changed:
                if len(self._text) == seen and self._state == WRITING:
                    self._changed.wait(patience)
                piece, state = self._text[seen:], self._state
            seen += len(piece)
            if piece or state == WRITING:
                yield piece
            else:
                return
