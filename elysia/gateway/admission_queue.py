"""Who generates now and who waits: a bounded queue in front of an engine's slots.

Knows nothing of HTTP beyond the 429 that it raises.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from elysia.gateway.api_errors import ApiError
from elysia.gateway.keys import rate_limit_error


class AdmissionQueue:
    """`size` places to generate in, and at most `queue` waiting for one, first come first served.

    Belongs to one event loop.
    """

    def __init__(self, size: int, queue: int) -> None:
        self.size = size
        self.queue = queue
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lasted = 1.0  # seconds that a reply takes, smoothed

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    async def take(self) -> None:
        """Wait for a slot; ApiError 429 with Retry-After when too many wait already."""
        if self.running < self.size and not self._waiting:
            self.running += 1
            return
        self.refuse_full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # the slot came in the same moment as the client left
            else:
                self._waiting.remove(turn)
            raise

    def refuse_full(self) -> None:
        """The ApiError 429 that `take` would raise now: told before anything is done for nothing."""
        taken = self.running >= self.size or self._waiting
        if taken and len(self._waiting) >= self.queue:
            raise self.full()

    def release(self, began: float) -> None:
        """Give a slot back that was used since `began` (time.monotonic)."""
        self._lasted += 0.2 * (time.monotonic() - began - self._lasted)
        self._pass_on()

    def full(self) -> ApiError:
        """The refusal when the queue is full, with a guess of when it is not."""
        wait = self._lasted * (1 + self.waiting / self.size)
        return rate_limit_error(
            f"All slots are taken and {self.waiting} requests wait. Try again.", wait
        )

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
