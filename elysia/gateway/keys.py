"""API keys: where they come from, who holds one, and how much each may ask for.

A key is compared by its hash, against every known one, in the same time whatever it is. It is in no
log and no error. Knows nothing of requests' contents.
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
from elysia.gateway.api_errors import ApiError

KEYS_VARIABLE = "ELYSIA_API_KEYS"  # one, or several with commas between
MIN_KEY_CHARS = 16  # characters: shorter ones can be guessed


def load_keys(file: Path | None, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The keys of a file (one a line, # begins a comment) and of ELYSIA_API_KEYS.

    UsageError, without the key, for one that is too short, and for a file without any.
    """
    environment = os.environ if environment is None else environment
    lines: list[str] = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The keys in {file} cannot be read: {error}.") from error
    keys = [line.split("#")[0].strip() for line in lines]
    keys += [key.strip() for key in environment.get(KEYS_VARIABLE, "").split(",")]
    keys = [key for key in dict.fromkeys(keys) if key]
    if file is not None and not keys:
        raise UsageError(
            f"{file} holds no key. Write one a line, of {MIN_KEY_CHARS} characters or more."
        )
    if any(len(key) < MIN_KEY_CHARS or not key.isascii() for key in keys):
        raise UsageError(
            f"A key is shorter than {MIN_KEY_CHARS} characters or not ASCII. Make one with: "
            "python -c 'import secrets; print(secrets.token_urlsafe(24))'"
        )
    return tuple(keys)


@dataclass
class KeyUsage:
    """What one key has asked for lately."""

    running: int = 0
    allowance: float = 0.0  # requests that may come at once
    asked: float = field(default_factory=time.monotonic)


class RateLimiter:
    """Lets requests in by key, at most `rate` a minute and `together` at once for each.

    None is no limit. Without keys, everybody is the same holder. Not for several threads.
    """

    def __init__(
        self, keys: Sequence[str] = (), *, rate: int | None = None, together: int | None = None
    ) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._rate = rate
        self._together = together
        self._holders = {h: KeyUsage(allowance=float(rate or 0)) for h in (self._hashes or [b""])}

    def holder(self, header: str | None) -> KeyUsage:
        """Who sends this Authorization header; ApiError 401 for nobody known."""
        if not self._hashes:
            return self._holders[b""]
        scheme, _, key = (header or "").partition(" ")
        given = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for known in self._hashes:  # to the end: the time must not tell which
            if hmac.compare_digest(known, given):
                found = known
        if found is None or scheme.lower() != "bearer":
            text = "The API key is wrong." if header else "An API key is needed: Bearer KEY."
            raise ApiError(
                401, text, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )
        return self._holders[found]

    @contextmanager
    def admitted(self, holder: KeyUsage) -> Iterator[None]:
        """Count one request of `holder` while it runs; ApiError 429 above a limit."""
        self._refill(holder)
        if self._rate and holder.allowance < 1:
            wait = (1 - holder.allowance) * 60 / self._rate
            raise rate_limit_error(f"This key may ask {self._rate} times a minute.", wait)
        if self._together and holder.running >= self._together:
            raise rate_limit_error(f"This key may have {self._together} requests at once.", 1.0)
        holder.allowance -= 1
        holder.running += 1
        try:
            yield
        finally:
            holder.running -= 1

    def _refill(self, holder: KeyUsage) -> None:
        if not self._rate:
            return
        now = time.monotonic()
        grown = holder.allowance + (now - holder.asked) * self._rate / 60
        holder.allowance, holder.asked = min(float(self._rate), grown), now


def rate_limit_error(message: str, wait: float) -> ApiError:
    """A 429 that says when to come again (whole seconds)."""
    return ApiError(
        429, message, code="rate_limit_exceeded", headers={"Retry-After": str(max(1, round(wait)))}
    )
