"""The turns under way, at most one in each conversation, and the worker threads that run them."""

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
    """Runs turns. `on_end` is called with the user and the conversation of each, of a failed one too."""

    def __init__(self, workers: int, slots: int, on_end: Callable[[str, str], None]) -> None:
        """`workers` turns at once, `slots` of them in the engine."""
        self.slots = threading.BoundedSemaphore(slots)
        self.streams: dict[str, ReplyStream] = {}  # replies that are being written, by message
        self._on_end = on_end
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="reply")
        self._running: dict[str, TurnJob] = {}  # by conversation
        # By conversation: the same lock, once for everybody who holds it or waits for it.
        self._locks: dict[str, list[threading.Lock]] = {}
        self._lock = threading.Lock()

    def submit(self, job: TurnJob) -> None:
        """Hand a turn that was begun to a worker."""
        with self._lock:
            self._running[job.conversation.id] = job
        self._workers.submit(self._run, job)

    def get_running(self, id: str) -> TurnJob | None:
        """The turn under way in a conversation."""
        with self._lock:
            return self._running.get(id)

    def stop_running(self, id: str) -> bool:
        """Stop the turn of a conversation and wait for its end; whether there was one.

        StoreError when it does not end.
        """
        job = self.get_running(id)
        if job is None:
            return False
        job.stop()
        if not job.finished.wait(STOP_TIMEOUT):
            raise StoreError("chat.still_writing")
        return True

    @contextmanager
    def lock(self, id: str) -> Iterator[None]:
        """Exclusive use of a conversation in this process. Nothing is kept of it behind the block."""
        with self._lock:
            claims = self._locks.setdefault(id, [])
            claims.append(claims[0] if claims else threading.Lock())
            lock = claims[0]
        try:
            with lock:
                yield
        finally:
            with self._lock:
                claims.pop()
                if not claims:
                    del self._locks[id]

    def close(self) -> None:
        """Stop every reply and wait for its end."""
        with self._lock:
            jobs = list(self._running.values())
        for job in jobs:
            job.stop()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: TurnJob) -> None:
        try:
            job.run()
        except Exception:  # a bug must not take the worker down; it is in the log
            log.exception("A reply failed")
        finally:
            self._on_end(job.user, job.conversation.id)
            with self._lock:
                if self._running.get(job.conversation.id) is job:
                    del self._running[job.conversation.id]
            job.finished.set()
