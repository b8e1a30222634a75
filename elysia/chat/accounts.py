"""Users: one local one, or many with passwords or with a name that an OpenID provider vouches for.

Passwords are kept as scrypt's hash with a salt of their own. Knows nothing of pages or cookies.
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

LOCAL_USER = "local"  # who talks where nobody has to say who they are
SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES = 2**14, 8, 1  # scrypt's; 16 MB and some 50 ms a try
MIN_PASSWORD_LENGTH = 8  # characters of a password


@dataclass(frozen=True)
class UserAccount:
    """Somebody whose things are their own."""

    id: str
    name: str


class AccountStore:
    """The table `users`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def local(self) -> UserAccount:
        """The one user of a page that asks nobody who they are."""
        return self.get_or_create(LOCAL_USER)

    def get_or_create(self, name: str) -> UserAccount:
        """The user of a name that somebody else vouches for; made at first sight."""
        for _ in range(2):
            with self._database.read() as connection:
                row = connection.execute(select(users).where(users.c.name == name)).first()
            if row is not None:
                return UserAccount(row.id, row.name)
            self._insert(name, None)
        raise UsageError(f"There is no user {name}.")

    def add(self, name: str, password: str) -> UserAccount:
        """A new user with a password. UsageError when the name is taken or either is no good."""
        name = name.strip()
        if (
            not name
            or len(name) > 100
            or not name.isprintable()
            or name == LOCAL_USER
            or ":" in name
        ):
            raise UsageError("A user's name has 1 to 100 printable characters and no colon.")
        if not self._insert(name, _hash_password(password)):
            raise UsageError(f"There is a user {name} already.")
        return self.get_or_create(name)

    def set_password(self, name: str, password: str) -> None:
        """Another password."""
        hashed = _hash_password(password)
        with self._database.write() as connection:
            done = connection.execute(
                update(users).where(users.c.name == name).values(password=hashed)
            )
        if not done.rowcount:
            raise UsageError(f"There is no user {name}.")

    def authenticate(self, name: str, password: str) -> UserAccount | None:
        """The user when the password is hers. A name that does not exist takes as long."""
        with self._database.read() as connection:
            row = connection.execute(select(users).where(users.c.name == name.strip())).first()
        known = row.password if row is not None and row.password else None
        right = _matches_hash(password, known or _DUMMY_HASH)
        return UserAccount(row.id, row.name) if row is not None and known and right else None

    def get(self, id: str) -> UserAccount | None:
        """The user of an id; None when there is none any more."""
        with self._database.read() as connection:
            row = connection.execute(select(users).where(users.c.id == id)).first()
        return UserAccount(row.id, row.name) if row is not None else None

    def get_password_digest(self, id: str) -> str | None:
        """A text that changes with the user's password, for logins that end with it; None without
        a password.
        """
        with self._database.read() as connection:
            query = select(users.c.password).where(users.c.id == id)
            kept = connection.execute(query).scalar()
        return hashlib.sha256(kept.encode()).hexdigest() if kept else None

    def all(self) -> list[UserAccount]:
        """Everybody, by name."""
        with self._database.read() as connection:
            return [
                UserAccount(row.id, row.name)
                for row in connection.execute(select(users).order_by(users.c.name))
            ]

    def any_password(self) -> bool:
        """Whether anybody has a password: then a page asks for it."""
        with self._database.read() as connection:
            query = select(users.c.id).where(users.c.password.is_not(None)).limit(1)
            return connection.execute(query).first() is not None

    def remove(self, name: str) -> None:
        """Delete a user with conversations, cards and memories."""
        with self._database.write() as connection:
            if not connection.execute(delete(users).where(users.c.name == name)).rowcount:
                raise UsageError(f"There is no user {name}.")

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
    if not MIN_PASSWORD_LENGTH <= len(password) <= 1000:
        raise UsageError(f"A password has {MIN_PASSWORD_LENGTH} to 1000 characters.")
    salt = os.urandom(16)
    made = base64.b64encode(_scrypt(password, salt)).decode()
    return f"scrypt:{SCRYPT_COST}:{SCRYPT_BLOCK}:{SCRYPT_LANES}:{base64.b64encode(salt).decode()}:{made}"


def _matches_hash(password: str, kept: str) -> bool:
    _, cost, block, lanes, salt, made = kept.split(":")
    tried = _scrypt(password[:1000], base64.b64decode(salt), int(cost), int(block), int(lanes))
    return hmac.compare_digest(tried, base64.b64decode(made))


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


_DUMMY_HASH = (
    f"scrypt:{SCRYPT_COST}:{SCRYPT_BLOCK}:{SCRYPT_LANES}:{base64.b64encode(b'0' * 16).decode()}:"
    + "A" * 43
    + "="
)
