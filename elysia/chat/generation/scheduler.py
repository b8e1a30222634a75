"""The rounds that are under way, at most one in each conversation, and the workers that run them.

Knows nothing of what is asked of a conversation, nor of memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from elysia.chat.generation.reply_stream import ReplyStream
from elysia.chat.generation.turn_job import TurnJob
from elysia.core.errors import StoreError

log = logging.getLogger(__name__)

STOP_TIMEOUT = 15.0  # seconds that a reply has to end once it was asked to stop


class TurnScheduler:
    """Runs rounds. `ended` is told of each one's user and conversation; of one that failed, too."""

    def __init__(self, workers: int, slots: int, ended: Callable[[str, str], None]) -> None:
        """`workers` rounds at once, `slots` of them in the engine."""
        self.slots = threading.BoundedSemaphore(slots)
        self.live: dict[str, ReplyStream] = {}  # replies that are being written, by message
        self._ended = ended
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="reply")
        self._running: dict[str, TurnJob] = {}  # by conversation
        self._turns: dict[str, list[threading.Lock]] = {}  # by conversation: one lock, once a claim
        self._lock = threading.Lock()

    def begin(self, made: TurnJob) -> None:
        """Hand a round that has its place to a worker."""
        with self._lock:
            self._running[made.conversation.id] = made
        self._workers.submit(self._run, made)

    def running(self, id: str) -> TurnJob | None:
        """The round of a conversation."""
        with self._lock:
            return self._running.get(id)

    def quiet(self, id: str) -> bool:
        """End the round of a conversation, if there is one; StoreError when it does not end."""
        running = self.running(id)
        if running is None:
            return False
        running.stop()
        if not running.over.wait(STOP_TIMEOUT):
            raise StoreError("She is still writing and does not stop; try again in a moment.")
        return True

    @contextmanager
    def turn(self, id: str) -> Iterator[None]:
        """Alone with a conversation in this process. Nothing is kept of it behind the block."""
        with self._lock:
            claims = self._turns.setdefault(id, [])
            claims.append(claims[0] if claims else threading.Lock())
            turn = claims[0]
        try:
            with turn:
                yield
        finally:
            with self._lock:
                claims.pop()
                if not claims:
                    del self._turns[id]

    def close(self) -> None:
        """Stop every reply and wait for its end."""
        with self._lock:
            running = list(self._running.values())
        for one in running:
            one.stop()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _run(self, begun: TurnJob) -> None:
        try:
            begun.run()
        except Exception:  # a mistake of ours must not take the worker, and is in the log
            log.exception("A reply failed")
        finally:
            self._ended(begun.user, begun.conversation.id)
            with self._lock:
                if self._running.get(begun.conversation.id) is begun:
                    del self._running[begun.conversation.id]
            begun.over.set()
