"""The text of a reply while it is being written: anybody in this process who knows its id may watch it grow.

A reply belongs to the worker that writes it, not to a page: a watcher that leaves changes nothing, and
one that comes late reads from the first word.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from elysia.chat.message_tree import MessageState


class ReplyStream:
    """One growing reply. Its worker calls `write` and `end`; watchers iterate over `iter_chunks`.

    `cancel` asks the worker, and the engine below it, to stop.
    """

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self._changed = threading.Condition()
        self._text = ""
        self._state = MessageState.WRITING

    @property
    def text(self) -> str:
        """The text so far."""
        return self._text

    def write(self, chunk: str) -> None:
        """Append to the reply."""
        with self._changed:
            self._text += chunk
            self._changed.notify_all()

    def end(self, state: MessageState) -> None:
        """Nothing more comes."""
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def iter_chunks(self, timeout: float | None = None) -> Iterator[str]:
        """The reply from its first word to its end.

        Gives '' after `timeout` seconds of silence, so that a watcher can look whether anybody is
        still there.
        """
        position = 0
        while True:
            with self._changed:
                if len(self._text) == position and self._state == MessageState.WRITING:
                    self._changed.wait(timeout)
                chunk, state = self._text[position:], self._state
            position += len(chunk)
            if chunk or state == MessageState.WRITING:
                yield chunk
            else:
                return


class SpeakerPrefixStripper:
    """Takes a reply's chunks and drops the character's own name and a colon from its beginning.

    Models that were shown a conversation with names write their own before a reply.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._prefixes = [f"{name}{mark}" for name in names for mark in ("：", ":")]
        self._held: str | None = ""  # None: the beginning is decided

    def push(self, chunk: str) -> str:
        """What of the reply may be shown after this chunk.

        >>> stripper = SpeakerPrefixStripper(["爱莉"])
        >>> stripper.push("爱"), stripper.push("莉：你"), stripper.push("好")
        ('', '你', '好')
        """
        if self._held is None:
            return chunk
        self._held += chunk
        beginning = self._held.lstrip()
        if not beginning or any(
            prefix.startswith(beginning) and prefix != beginning for prefix in self._prefixes
        ):
            return ""
        for prefix in self._prefixes:
            if beginning.startswith(prefix):
                beginning = beginning.removeprefix(prefix).lstrip()
                if not beginning:
                    return ""  # leading spaces of what follows are dropped, too
                break
        self._held = None
        return beginning

    def flush(self) -> str:
        """What was held back, at the end of the reply; a name and a colon alone are no reply."""
        held, self._held = self._held, None
        if held is None or held.lstrip() in self._prefixes:
            return ""
        return held
