"""Who may come in: nobody is asked on this machine alone; else a password, an OpenID, or all may.

A login is a cookie that scripts cannot read: user, end and a signature that a new password voids. A
ticket is good for the sound of one reply and a few hours. Knows nothing of pages.
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
from pathlib import Path
from typing import Any

from elysia.chat.accounts import AccountStore, UserAccount
from elysia.core.errors import UsageError, nearest

LOCAL, PASSWORD, OPENID, OPEN = "local", "password", "openid", "open"
ACCESS_VARIABLE, ALLOW_LIST_VARIABLE = "ELYSIA_ACCESS", "ELYSIA_OPENID_ALLOWED"
SESSION_SECONDS = 30 * 24 * 3600.0  # seconds of a login
TICKET_SECONDS = 3600  # seconds; a ticket is good for one to two of these, and the same within one
MAX_NAME_LENGTH = 255  # characters of a user's name
MAX_TRIES, MAX_TOTAL_TRIES, TRY_WINDOW = (
    5,
    60,
    60.0,
)  # failed tries in so many seconds: of a name, of all
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def get_access_mode(environ: Mapping[str, str], accounts: AccountStore) -> str:
    """How people come in: as ELYSIA_ACCESS says; by password where anybody has one; else as the one
    local user. UsageError for another word.
    """
    asked = environ.get(ACCESS_VARIABLE, "").strip().lower()
    if not asked:
        return PASSWORD if accounts.any_password() else LOCAL
    if asked not in (PASSWORD, OPENID, OPEN):
        raise UsageError(
            f"{ACCESS_VARIABLE} is '{asked}'; it may be {PASSWORD}, {OPENID} or {OPEN}."
            f"{nearest(asked, (PASSWORD, OPENID, OPEN))}"
        )
    return asked


def parse_allow_list(environ: Mapping[str, str], access: str) -> tuple[str, ...]:
    """Who may come in by OpenID, as ELYSIA_OPENID_ALLOWED lists them; none listed: everybody whom the
    provider vouches for. UsageError when there is a list and people come in another way.
    """
    listed = tuple(
        one.strip() for one in environ.get(ALLOW_LIST_VARIABLE, "").split(",") if one.strip()
    )
    if listed and access != OPENID:
        raise UsageError(
            f"{ALLOW_LIST_VARIABLE} says who may come in by OpenID, but people come in by '{access}' here. "
            f"Set {ACCESS_VARIABLE}={OPENID}, or take the list away."
        )
    return listed


def is_admitted(allowed: Sequence[str], vouched: Mapping[str, Any]) -> bool:
    """Whether a list names her of whom an OpenID provider says `vouched`: by e-mail, by its domain, or
    by the provider's own name of her (`sub`). An e-mail counts where the provider has verified it.

    >>> anna = {"sub": "a1", "email": "Anna@example.org", "email_verified": True}
    >>> [is_admitted([one], anna) for one in ("anna@example.org", "@EXAMPLE.org", "a1", "@ample.org")]
    [True, True, True, False]
    >>> is_admitted(["@example.org"], {**anna, "email_verified": False})
    False
    """
    if not allowed:
        return True
    email = str(vouched.get("email") or "").casefold()
    if vouched.get("email_verified") is not True or "@" not in email:
        email = "@"
    names = {email, email[email.rindex("@") :]} - {"@"}
    return any(
        one.casefold() in names if "@" in one else one == vouched.get("sub") for one in allowed
    )


def build_openid_name(vouched: Mapping[str, Any]) -> str:
    """The name under which somebody with an OpenID is kept. UsageError when the provider gives none."""
    if not (vouched.get("iss") and vouched.get("sub")):
        raise UsageError("The OpenID provider does not say who this is (iss and sub are wanted).")
    # A colon, which no name with a password may have: nobody is taken for somebody else.
    name = f"openid:{vouched['iss']}:{vouched['sub']}"
    if len(name) > MAX_NAME_LENGTH:
        name = f"openid:{hashlib.sha256(name.encode()).hexdigest()}"
    return name


def explain_refusal(access: str, address: str | None) -> str | None:
    """Why a page may not be served at an address; None when it may."""
    if access != LOCAL or address in LOOPBACK:
        return None
    return (
        f"This page would be open to everybody who reaches {address or 'any address'} of this "
        f"machine. Give people passwords (elysia user add NAME), or set {ACCESS_VARIABLE}={OPENID}, or, if "
        f"all may come in as one user, {ACCESS_VARIABLE}={OPEN}."
    )


class SessionAuth:
    """Cookies of logged-in users, and a limit to guessing. May be used from several threads."""

    def __init__(
        self, accounts: AccountStore, key: bytes, clock: Callable[[], float] = time.time
    ) -> None:
        self._accounts = accounts
        self._key = key
        self._clock = clock
        self._failed: dict[str, deque[float]] = {}
        self._lock = threading.Lock()
        self._at_once = threading.BoundedSemaphore(4)  # each try takes 16 MB

    def enter(self, name: str, password: str) -> str | None:
        """The cookie's value when the password is hers. UsageError after too many failures."""
        name = name.strip()[:100]
        self._refuse_guessing(name)
        with self._at_once:
            user = self._accounts.authenticate(name, password)
        if user is None:
            with self._lock:
                for whose in (name, ""):
                    self._failed.setdefault(whose, deque(maxlen=1000)).append(self._clock())
            return None
        return self._signed(user.id, int(self._clock() + SESSION_SECONDS))

    def user(self, cookie: str | None) -> UserAccount | None:
        """Whose cookie it is; None for none, an old or a forged one."""
        user, _, rest = (cookie or "").partition(".")
        end, _, _ = rest.partition(".")
        if not (user.isalnum() and end.isascii() and end.isdigit() and len(end) < 15):
            return None
        if int(end) < self._clock():
            return None
        good = self._signed(user, int(end))
        if not hmac.compare_digest(good.encode(), str(cookie).encode()):
            return None
        return self._accounts.get(user)

    def ticket(self, user: str, reply: str) -> str:
        """What opens the sound of one reply, by its path, to one user, for an hour or two."""
        end = (int(self._clock()) // TICKET_SECONDS + 2) * TICKET_SECONDS
        return f"{user}.{end}.{self._stamped(user, end, reply)}"

    def bearer(self, ticket: str | None, reply: str) -> UserAccount | None:
        """Whose ticket to this reply it is; None for none, an old or a forged one."""
        user, end, mark = [*(ticket or "").split("."), "", ""][:3]
        if not (end.isascii() and end.isdigit() and len(end) < 15) or int(end) < self._clock():
            return None
        if not hmac.compare_digest(self._stamped(user, int(end), reply).encode(), mark.encode()):
            return None
        return self._accounts.get(user)

    def _stamped(self, user: str, end: int, reply: str) -> str:
        said = f"ticket\n{user}\n{end}\n{reply}"
        return hmac.new(self._key, said.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def _signed(self, user: str, end: int) -> str:
        said = f"{user}.{end}"
        stamp = (
            self._accounts.get_password_digest(user) or secrets.token_hex()
        )  # none: fits nothing
        made = hmac.new(self._key, f"{said}.{stamp}".encode(), hashlib.sha256)
        return f"{said}.{made.hexdigest()}"

    def _refuse_guessing(self, name: str) -> None:
        now = self._clock()
        with self._lock:
            for whose in [*self._failed]:
                while self._failed[whose] and self._failed[whose][0] < now - TRY_WINDOW:
                    self._failed[whose].popleft()
                if not self._failed[whose]:
                    del self._failed[whose]
            mine, all_ = (len(self._failed.get(whose, ())) for whose in (name, ""))
        if mine >= MAX_TRIES or all_ >= MAX_TOTAL_TRIES:
            raise UsageError("Too many wrong passwords; wait a minute.")


def load_signing_key(file: Path) -> bytes:
    """The key that signs logins, made at first use and readable by its owner alone."""
    try:
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = file.read_bytes()
        if len(key) >= 32:
            return key
        raise UsageError(f"{file} is no key; delete it, and everybody logs in once more.") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error
    with os.fdopen(made, "wb") as stream:
        stream.write(key := secrets.token_bytes(32))
    return key
