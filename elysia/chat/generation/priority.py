"""Whether replies are being prepared: work that can wait lets them go first, for a while.

Knows nothing of either.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PriorityGate:
    """Broken while somebody is hurried; shared by the hurried and those who can wait."""

    def __init__(self) -> None:
        self._hurried = 0
        self._changed = threading.Condition()

    @contextmanager
    def broken(self) -> Iterator[None]:
        """In a hurry until the block ends."""
        with self._changed:
            self._hurried += 1
        try:
            yield
        finally:
            with self._changed:
                self._hurried -= 1
                self._changed.notify_all()

    def wait(self, patience: float) -> bool:
        """Until nobody is hurried, `patience` seconds at most; whether it is calm."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._hurried, patience)
