"""Users: one local user, or many with passwords or with a name that an OpenID provider vouches for.

Passwords are stored as scrypt hashes, each with its own salt.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from elysia.core.errors import UsageError
from elysia.store.database import Database
from elysia.store.tables import new_id, users

LOCAL_USER = "local"  # the user where nobody logs in
SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES = 2**14, 8, 1  # 16 MB and some 50 ms a try
MIN_PASSWORD_LENGTH, MAX_PASSWORD_LENGTH = 8, 1_000  # characters


@dataclass(frozen=True)
class UserAccount:
    """A user: conversations, cards, memories and documents belong to one."""

    id: str
    name: str


class AccountStore:
    """The table `users`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def local(self) -> UserAccount:
        """The one user of a page without a login."""
        return self.get_or_create(LOCAL_USER)

    def get_or_create(self, name: str) -> UserAccount:
        """The user of a name that somebody else vouches for; created when there is none yet."""
        for _ in range(2):
            with self._database.read() as connection:
                row = connection.execute(select(users).where(users.c.name == name)).first()
            if row is not None:
                return UserAccount(row.id, row.name)
            self._insert(name, None)
        raise UsageError("chat.no_user", name=name)

    def add(self, name: str, password: str) -> UserAccount:
        """A new user with a password. UsageError when the name is taken, or either is not allowed."""
        name = name.strip()
        if (
            not name
            or len(name) > 100
            or not name.isprintable()
            or name == LOCAL_USER
            or ":" in name
        ):
            raise UsageError("chat.bad_user_name")
        if not self._insert(name, _hash_password(password)):
            raise UsageError("chat.user_exists", name=name)
        return self.get_or_create(name)

    def set_password(self, name: str, password: str) -> None:
        """Set another password, which ends the user's logins."""
        hashed = _hash_password(password)
        with self._database.write() as connection:
            result = connection.execute(
                update(users).where(users.c.name == name).values(password=hashed)
            )
        if not result.rowcount:
            raise UsageError("chat.no_user", name=name)

    def authenticate(self, name: str, password: str) -> UserAccount | None:
        """The user when the password is right. A name that does not exist takes as long, so that the
        time does not tell which names do.
        """
        with self._database.read() as connection:
            row = connection.execute(select(users).where(users.c.name == name.strip())).first()
        stored = row.password if row is not None and row.password else None
        is_right = _matches_hash(password, stored or _DUMMY_HASH)
        return UserAccount(row.id, row.name) if row is not None and stored and is_right else None

    def get(self, id: str) -> UserAccount | None:
        """The user of an id; None when it has been removed."""
        with self._database.read() as connection:
            row = connection.execute(select(users).where(users.c.id == id)).first()
        return UserAccount(row.id, row.name) if row is not None else None

    def get_password_digest(self, id: str) -> str | None:
        """A text that changes with the user's password, so that logins end with it; None without a
        password.
        """
        with self._database.read() as connection:
            query = select(users.c.password).where(users.c.id == id)
            stored = connection.execute(query).scalar()
        return hashlib.sha256(stored.encode()).hexdigest() if stored else None

    def all(self) -> list[UserAccount]:
        """All users, by name."""
        with self._database.read() as connection:
            return [
                UserAccount(row.id, row.name)
                for row in connection.execute(select(users).order_by(users.c.name))
            ]

    def has_passwords(self) -> bool:
        """Whether any user has a password: then a page asks for it."""
        with self._database.read() as connection:
            query = select(users.c.id).where(users.c.password.is_not(None)).limit(1)
            return connection.execute(query).first() is not None

    def remove(self, name: str) -> None:
        """Delete a user with all conversations, cards and memories."""
        with self._database.write() as connection:
            if not connection.execute(delete(users).where(users.c.name == name)).rowcount:
                raise UsageError("chat.no_user", name=name)

    def _insert(self, name: str, password: str | None) -> bool:
        row: dict[str, object] = {
            "id": new_id(), "name": name, "password": password, "settings": {},
            "created": time.time(),
        }  # fmt: skip
        try:
            with self._database.write() as connection:
                connection.execute(insert(users).values(row))
        except IntegrityError:
            return False
        return True


def _hash_password(password: str) -> str:
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise UsageError(
            "chat.bad_password", shortest=MIN_PASSWORD_LENGTH, longest=MAX_PASSWORD_LENGTH
        )
    salt = os.urandom(16)
    digest = base64.b64encode(_scrypt(password, salt)).decode()
    return f"{_SCHEME}:{base64.b64encode(salt).decode()}:{digest}"


def _matches_hash(password: str, stored: str) -> bool:
    # A hash carries its parameters, so that those of another version are still checked.
    _, cost, block, lanes, salt, digest = stored.split(":")
    candidate = _scrypt(
        password[:MAX_PASSWORD_LENGTH], base64.b64decode(salt), int(cost), int(block), int(lanes)
    )
    return hmac.compare_digest(candidate, base64.b64decode(digest))


def _scrypt(
    password: str,
    salt: bytes,
    cost: int = SCRYPT_COST,
    block: int = SCRYPT_BLOCK,
    lanes: int = SCRYPT_LANES,
) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=cost, r=block, p=lanes, maxmem=64 << 20, dklen=32
    )


_SCHEME = f"scrypt:{SCRYPT_COST}:{SCRYPT_BLOCK}:{SCRYPT_LANES}"
_DUMMY_HASH = f"{_SCHEME}:{base64.b64encode(b'0' * 16).decode()}:{'A' * 43}="
