"""Regular expressions from other people's cards, with a time limit for each search and for all of a turn.

The `regex` package can stop a search that takes too long, which the standard library cannot. A pattern
that was stopped is not tried again.
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
    """Searches within a time budget; one instance per conversation, for one thread at a time."""

    def __init__(self, limit: float = 0.05, turn_limit: float = 0.5) -> None:
        """Seconds for one search, and for all searches between two calls of `new_turn`."""
        self.limit = limit
        self.turn_limit = turn_limit
        self._spent = 0.0
        self._compiled: dict[tuple[str, bool], Any] = {}

    def new_turn(self) -> None:
        """Give the next turn its whole time."""
        self._spent = 0.0

    def search(self, pattern: str, text: str, case_sensitive: bool) -> bool | None:
        """Whether `pattern` (or /pattern/flags) matches; None when invalid, stopped or out of time."""
        key = (pattern, case_sensitive)
        began = time.monotonic()
        try:
            if key not in self._compiled:
                self._compiled[key] = _compile(pattern, case_sensitive)
            compiled = self._compiled[key]
            timeout = min(self.limit, self.turn_limit - self._spent)
            if compiled is None or timeout <= 0:
                return None
            return compiled.search(text, timeout=timeout) is not None
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
    if literal := REGEX_LITERAL.fullmatch(pattern):
        if not set(literal[2]) <= set(FLAGS):
            return None
        pattern = literal[1]
        for letter in literal[2]:
            flags |= FLAGS[letter]
    try:
        return regex.compile(pattern, flags)
    except (regex.error, ValueError, OverflowError, RecursionError):
        return None
