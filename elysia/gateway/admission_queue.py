"""A bounded queue in front of an engine's slots: who generates now, and who waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from elysia.gateway.api_errors import rate_limit_error

SMOOTHING = 0.2  # weight of the newest reply in the mean duration


class AdmissionQueue:
    """`size` slots to generate in, and at most `max_waiting` requests that wait for one, in order.

    Belongs to one event loop.
    """

    def __init__(self, size: int, max_waiting: int) -> None:
        self.size = size
        self.max_waiting = max_waiting
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._mean_seconds = 1.0  # of a reply, smoothed

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    async def take(self) -> None:
        """Wait for a slot; ApiError 429 with Retry-After when too many wait already."""
        if self.running < self.size and not self._waiting:
            self.running += 1
            return
        self.refuse_if_full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # the slot came in the moment in which the client left
            else:
                self._waiting.remove(turn)
            raise

    def refuse_if_full(self) -> None:
        """Raise what `take` would raise now, before any work is done in vain."""
        busy = self.running >= self.size or self._waiting
        if busy and len(self._waiting) >= self.max_waiting:
            # A guess of when there is room: the queue ahead at the mean duration of a reply.
            wait = self._mean_seconds * (1 + self.waiting / self.size)
            raise rate_limit_error("gateway.queue_full", wait, waiting=self.waiting)

    def release(self, began: float) -> None:
        """Give back a slot that was used since `began` (time.monotonic)."""
        self._mean_seconds += SMOOTHING * (time.monotonic() - began - self._mean_seconds)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
