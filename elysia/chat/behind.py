"""Work behind the replies: one thing after the other, in a thread of its own, harming nobody by a fault.

Knows nothing of what the work is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from elysia.core.errors import ElysiaError

log = logging.getLogger(__name__)


class Behind:
    """A queue and its thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="remember")

    def later(self, work: Callable[[], None]) -> None:
        """Do it after what was asked before. A fault is told in the log."""

        def run() -> None:
            try:
                work()
            except ElysiaError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("Remembering failed")

        try:
            self._thread.submit(run)
        except RuntimeError:  # closing: the branch is taken in at the next turn
            log.debug("Closed before a branch was remembered")

    def settled(self, timeout: float) -> None:
        """Wait until everything that was asked so far is done."""
        self._thread.submit(lambda: None).result(timeout)

    def close(self) -> None:
        """Finish what was asked."""
        self._thread.shutdown(wait=True)
