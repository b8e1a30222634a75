"""Replies that are being written in this process: whoever knows a reply's id may watch it grow.

A reply belongs to its writer, not to a page: a watcher that leaves changes nothing, one that comes
late reads from the first word. Knows nothing of databases or engines.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from elysia.chat.message_tree import WRITING


class ReplyStream:
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


class SpeakerPrefixStripper:
    """Takes a reply's pieces, gives what may be shown."""

    def __init__(self, names: Sequence[str]) -> None:
        self._prefixes = [f"{name}{mark}" for name in names for mark in ("：", ":")]
        self._held: str | None = ""  # None: the beginning is decided

    def push(self, piece: str) -> str:
        """More of the reply.

        >>> words = SpeakerPrefixStripper(["爱莉"])
        >>> words.push("爱"), words.push("莉：你"), words.push("好")
        ('', '你', '好')
        """
        if self._held is None:
            return piece
        self._held += piece
        begun = self._held.lstrip()
        if not begun or any(one.startswith(begun) and one != begun for one in self._prefixes):
            return ""
        for prefix in self._prefixes:
            if begun.startswith(prefix):
                begun = begun[len(prefix) :].lstrip()
                if not begun:
                    return ""
                break
        self._held = None
        return begun

    def rest(self) -> str:
        """What was held back when the reply ended."""
        held, self._held = self._held, None
        if held is None or held.lstrip() in self._prefixes:
            return ""
        return held
