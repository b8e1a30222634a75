"""API keys and their limits: where keys come from, who uses one, and how much each may ask for.

A key is compared by its hash, in the same time whatever it is. It appears in no log and no error.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from elysia.core.errors import UsageError
from elysia.gateway.api_errors import ApiError, rate_limit_error

KEYS_VARIABLE = "ELYSIA_API_KEYS"  # one key, or several separated by commas
MIN_KEY_CHARS = 16  # shorter keys can be guessed


def load_keys(file: Path | None, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The keys of a file (one per line, # begins a comment) and of $ELYSIA_API_KEYS.

    Raises UsageError for a key that is too short, without showing it, and for a file without keys.
    """
    environment = os.environ if environment is None else environment
    lines: list[str] = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("gateway.keys_unreadable", path=file, error=str(error)) from error
    keys = [line.split("#")[0].strip() for line in lines]
    keys += [key.strip() for key in environment.get(KEYS_VARIABLE, "").split(",")]
    keys = [key for key in dict.fromkeys(keys) if key]
    if file is not None and not keys:
        raise UsageError("gateway.no_keys", path=file, least=MIN_KEY_CHARS)
    if any(len(key) < MIN_KEY_CHARS or not key.isascii() for key in keys):
        raise UsageError("gateway.weak_key", least=MIN_KEY_CHARS)
    return tuple(keys)


@dataclass
class KeyUsage:
    """What the requests of one key use now."""

    running: int = 0
    allowance: float = 0.0  # requests that may still come at once
    updated: float = field(default_factory=time.monotonic)  # when `allowance` was last refilled


class RateLimiter:
    """Admits requests by key: at most `rate` per minute and `concurrent` at once for each.

    None means no limit. Without keys everybody shares one usage. A token bucket; not thread-safe, for one
    event loop.
    """

    def __init__(
        self, keys: Sequence[str] = (), *, rate: int | None = None, concurrent: int | None = None
    ) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._rate = rate
        self._concurrent = concurrent
        self._usages = {h: KeyUsage(allowance=float(rate or 0)) for h in (self._hashes or [b""])}

    def identify(self, header: str | None) -> KeyUsage:
        """The usage of the key in an Authorization header; ApiError 401 for an unknown one."""
        if not self._hashes:
            return self._usages[b""]
        scheme, _, key = (header or "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        match = None
        for known in self._hashes:  # always to the end: the time must not show which one matched
            if hmac.compare_digest(known, digest):
                match = known
        if match is None or scheme.lower() != "bearer":
            raise ApiError(
                "gateway.wrong_key" if header else "gateway.key_needed", 401,
                api_code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        return self._usages[match]

    @contextmanager
    def admitted(self, usage: KeyUsage) -> Iterator[None]:
        """Count a request while it runs; ApiError 429 above a limit."""
        self._refill(usage)
        if self._rate and usage.allowance < 1:
            wait = (1 - usage.allowance) * 60 / self._rate
            raise rate_limit_error("gateway.rate_exceeded", wait, limit=self._rate)
        if self._concurrent and usage.running >= self._concurrent:
            raise rate_limit_error("gateway.too_many_at_once", 1.0, limit=self._concurrent)
        usage.allowance -= 1
        usage.running += 1
        try:
            yield
        finally:
            usage.running -= 1

    def _refill(self, usage: KeyUsage) -> None:
        if not self._rate:
            return
        now = time.monotonic()
        allowance = usage.allowance + (now - usage.updated) * self._rate / 60
        usage.allowance, usage.updated = min(float(self._rate), allowance), now
