"""Regular expressions of strangers, with an end: each search has a time limit, and all together.

The `regex` package stops a search that runs too long, which the standard library cannot. A pattern
that was stopped is not tried again. Knows nothing of lorebooks.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import regex

log = logging.getLogger(__name__)

MAX_PATTERN = 1_000  # characters
FLAGS = {"i": regex.I, "m": regex.M, "s": regex.S, "u": 0, "g": 0, "v": 0, "y": 0}
REGEX_LITERAL = regex.compile(r"/(.+)/([a-z]*)", regex.S)  # as JavaScript writes them


class TimeLimitedRegex:
    """Searches; one of these per conversation and turn budget. Not for two threads at once."""

    def __init__(self, limit: float = 0.05, turn_limit: float = 0.5) -> None:
        """Seconds for one search, and for all between two calls of `new_turn`."""
        self.limit = limit
        self.turn_limit = turn_limit
        self._spent = 0.0
        self._compiled: dict[tuple[str, bool], Any] = {}

    def new_turn(self) -> None:
        """Give the next turn its whole time."""
        self._spent = 0.0

    def search(self, pattern: str, text: str, case_sensitive: bool) -> bool | None:
        """Whether `pattern` (or /pattern/flags) is found; None when invalid, stopped or out of time."""
        key = (pattern, case_sensitive)
        began = time.monotonic()
        try:
            if key not in self._compiled:
                self._compiled[key] = _compile(pattern, case_sensitive)
            compiled = self._compiled[key]
            room = min(self.limit, self.turn_limit - self._spent)
            if compiled is None or room <= 0:
                return None
            return compiled.search(text, timeout=room) is not None
        except TimeoutError:
            log.warning("A lorebook's pattern takes too long and is not used: %.80s", pattern)
            self._compiled[key] = None
            return None
        finally:
            self._spent += time.monotonic() - began


def _compile(pattern: str, case_sensitive: bool) -> Any:
    if len(pattern) > MAX_PATTERN:
        return None
    flags = 0 if case_sensitive else regex.I
    if written := REGEX_LITERAL.fullmatch(pattern):
        if not set(written[2]) <= set(FLAGS):
            return None
        pattern = written[1]
        for letter in written[2]:
            flags |= FLAGS[letter]
    try:
        return regex.compile(pattern, flags)
    except (regex.error, ValueError, OverflowError, RecursionError):
        return None
