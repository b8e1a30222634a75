"""Who may use the pages: on this machine alone everybody; else by password, by OpenID, or all.

A login is a cookie that scripts cannot read: user, end, and a signature that a new password voids. A
ticket opens the audio of one reply for an hour or two.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from elysia.chat.accounts import AccountStore, UserAccount
from elysia.core.errors import UsageError, nearest
from elysia.core.i18n import Text

ACCESS_VARIABLE, ALLOW_LIST_VARIABLE = "ELYSIA_ACCESS", "ELYSIA_OPENID_ALLOWED"
SESSION_SECONDS = 30 * 24 * 3600.0  # that a login lasts
TICKET_SECONDS = 3600  # a ticket is good for one to two of these, and the same within one
MAX_NAME_LENGTH = 255  # characters of a user's name
MAX_TRIES, MAX_TOTAL_TRIES = 5, 60  # wrong passwords for one name and for all, within the window
TRY_WINDOW = 60.0  # seconds
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


class AccessMode(StrEnum):
    """How people come in; the values are those of ELYSIA_ACCESS."""

    LOCAL = "local"  # one user, on this machine alone: what there is without a setting
    PASSWORD = "password"
    OPENID = "openid"
    OPEN = "open"  # everybody, as one user


def get_access_mode(environ: Mapping[str, str], accounts: AccountStore) -> AccessMode:
    """The mode that ELYSIA_ACCESS names; without it, passwords where any user has one, else the one
    local user. UsageError for an unknown name.
    """
    value = environ.get(ACCESS_VARIABLE, "").strip().lower()
    if not value:
        return AccessMode.PASSWORD if accounts.has_passwords() else AccessMode.LOCAL
    choices = [AccessMode.PASSWORD.value, AccessMode.OPENID.value, AccessMode.OPEN.value]
    if value not in choices:
        raise UsageError(
            "web.unknown_access", variable=ACCESS_VARIABLE, value=value, choices=choices,
            hint=nearest(value, choices),
        )  # fmt: skip
    return AccessMode(value)


def parse_allow_list(environ: Mapping[str, str], access: AccessMode) -> tuple[str, ...]:
    """Who may come in by OpenID, as ELYSIA_OPENID_ALLOWED lists them; empty for everybody whom the
    provider vouches for. UsageError when there is a list but another access mode.
    """
    entries = (entry.strip() for entry in environ.get(ALLOW_LIST_VARIABLE, "").split(","))
    allow_list = tuple(entry for entry in entries if entry)
    if allow_list and access != AccessMode.OPENID:
        raise UsageError(
            "web.allow_list_without_openid", variable=ALLOW_LIST_VARIABLE, access=access,
            setting=ACCESS_VARIABLE,
        )  # fmt: skip
    return allow_list


def is_admitted(allow_list: Sequence[str], claims: Mapping[str, Any]) -> bool:
    """Whether a list admits somebody with these OpenID claims: by e-mail, by its domain, or by the
    provider's own name of them (`sub`). An e-mail counts only where the provider has verified it.

    >>> anna = {"sub": "a1", "email": "Anna@example.org", "email_verified": True}
    >>> [is_admitted([entry], anna) for entry in ("anna@example.org", "@EXAMPLE.org", "a1", "@ample.org")]
    [True, True, True, False]
    >>> is_admitted(["@example.org"], {**anna, "email_verified": False})
    False
    """
    if not allow_list:
        return True
    email = str(claims.get("email") or "").casefold()
    if claims.get("email_verified") is not True or "@" not in email:
        email = "@"
    names = {email, email[email.rindex("@") :]} - {"@"}
    return any(
        entry.casefold() in names if "@" in entry else entry == claims.get("sub")
        for entry in allow_list
    )


def build_openid_name(claims: Mapping[str, Any]) -> str:
    """The user name of somebody with an OpenID. UsageError when the provider gives no identity."""
    if not (claims.get("iss") and claims.get("sub")):
        raise UsageError("web.openid_without_name")
    # With a colon, which no name with a password may have: nobody is taken for somebody else.
    name = f"openid:{claims['iss']}:{claims['sub']}"
    if len(name) > MAX_NAME_LENGTH:
        name = f"openid:{hashlib.sha256(name.encode()).hexdigest()}"
    return name


def refuse_open_access(access: AccessMode, address: str | None) -> None:
    """UsageError when a page without a login would be served to other machines."""
    if access == AccessMode.LOCAL and address not in LOOPBACK:
        shown = address or Text("web.any_address")
        raise UsageError("web.open_to_strangers", address=shown, setting=ACCESS_VARIABLE)


class SessionAuth:
    """Cookies of logged-in users, tickets, and a limit to guessing; for several threads."""

    def __init__(
        self, accounts: AccountStore, key: bytes, clock: Callable[[], float] = time.time
    ) -> None:
        self._accounts = accounts
        self._key = key
        self._clock = clock
        self._failed: dict[str, deque[float]] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(4)  # each check of a password takes 16 MB

    def log_in(self, name: str, password: str) -> str | None:
        """The cookie's value, or None for a wrong password. UsageError after too many of those."""
        name = name.strip()[:100]
        self._refuse_guessing(name)
        with self._slots:
            user = self._accounts.authenticate(name, password)
        if user is None:
            with self._lock:
                for key in (name, ""):  # "" counts all names together
                    self._failed.setdefault(key, deque(maxlen=1000)).append(self._clock())
            return None
        return self._sign_cookie(user.id, int(self._clock() + SESSION_SECONDS))

    def get_user(self, cookie: str | None) -> UserAccount | None:
        """The user of a cookie; None for no cookie, an expired or a forged one."""
        user, _, rest = (cookie or "").partition(".")
        end, _, _ = rest.partition(".")
        if not (user.isalnum() and end.isascii() and end.isdigit() and len(end) < 15):
            return None
        if int(end) < self._clock():
            return None
        valid = self._sign_cookie(user, int(end))
        if not hmac.compare_digest(valid.encode(), str(cookie).encode()):
            return None
        return self._accounts.get(user)

    def issue_ticket(self, user: str, path: str) -> str:
        """A ticket that opens the audio of one reply, by its path, to one user."""
        end = (int(self._clock()) // TICKET_SECONDS + 2) * TICKET_SECONDS
        return f"{user}.{end}.{self._sign_ticket(user, end, path)}"

    def check_ticket(self, ticket: str | None, path: str) -> UserAccount | None:
        """The user of a ticket for this path; None for no ticket, an expired or a forged one."""
        user, end, signature = [*(ticket or "").split("."), "", ""][:3]
        if not (end.isascii() and end.isdigit() and len(end) < 15) or int(end) < self._clock():
            return None
        valid = self._sign_ticket(user, int(end), path)
        if not hmac.compare_digest(valid.encode(), signature.encode()):
            return None
        return self._accounts.get(user)

    def _sign_ticket(self, user: str, end: int, path: str) -> str:
        content = f"ticket\n{user}\n{end}\n{path}"
        return hmac.new(self._key, content.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def _sign_cookie(self, user: str, end: int) -> str:
        content = f"{user}.{end}"
        # The password's digest makes a new password end every login. A user without one has none: the
        # signature is then one that fits nothing.
        digest = self._accounts.get_password_digest(user) or secrets.token_hex()
        signature = hmac.new(self._key, f"{content}.{digest}".encode(), hashlib.sha256)
        return f"{content}.{signature.hexdigest()}"

    def _refuse_guessing(self, name: str) -> None:
        now = self._clock()
        with self._lock:
            for key, times in [*self._failed.items()]:
                while times and times[0] < now - TRY_WINDOW:
                    times.popleft()
                if not times:
                    del self._failed[key]
            tries, total = (len(self._failed.get(key, ())) for key in (name, ""))
        if tries >= MAX_TRIES or total >= MAX_TOTAL_TRIES:
            raise UsageError("web.too_many_tries")


def load_signing_key(file: Path) -> bytes:
    """The key that signs logins: made at first use, and readable by its owner alone."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = file.read_bytes()
        if len(key) >= 32:
            return key
        raise UsageError("web.bad_key_file", file=file) from None
    except OSError as error:
        raise UsageError("web.key_file_unwritable", file=file, error=error.strerror) from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(key := secrets.token_bytes(32))
    return key
