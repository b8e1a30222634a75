"""Whether replies are being prepared: work that can wait lets them go first, for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PriorityGate:
    """Shared by urgent work, which enters `foreground`, and by work that can wait, which calls
    `wait_idle`.
    """

    def __init__(self) -> None:
        self._urgent = 0
        self._changed = threading.Condition()

    @contextmanager
    def foreground(self) -> Iterator[None]:
        """Urgent until the block ends."""
        with self._changed:
            self._urgent += 1
        try:
            yield
        finally:
            with self._changed:
                self._urgent -= 1
                self._changed.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is urgent, `timeout` seconds at most; whether nothing is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._urgent, timeout)
