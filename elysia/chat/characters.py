"""The characters to talk to: the bundled cards, and those that a user has added, which only they see."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, delete, insert, select

from elysia.chat.generation.speaker_selection import GroupMember
from elysia.core.card_file import CharacterCard, parse_card, read_card
from elysia.core.errors import ElysiaError, PersonaError
from elysia.core.persona import Persona
from elysia.core.png import SIGNATURE
from elysia.store.database import Database
from elysia.store.tables import characters, new_id

MAX_CARDS = 200  # of one user


@dataclass(frozen=True)
class CharacterEntry:
    """A character with its card. `owner` is the id of the user who added it, None for a bundled one."""

    key: str
    card: CharacterCard
    persona: Persona
    owner: str | None = None
    file: str = ""

    @property
    def name(self) -> str:
        """The name to display."""
        return self.persona.display_name

    @property
    def picture(self) -> bytes | None:
        """The PNG that carried the card, or a CHARX's main icon; None without either."""
        if self.card.picture is not None:
            return self.card.picture.to_bytes()
        icons = [
            body
            for name, body in self.card.members.items()
            if name.startswith("assets/icon/") and body.startswith(SIGNATURE)
        ]
        return icons[0] if icons else None

    @property
    def group_member(self) -> GroupMember:
        """Its names in a group: nickname, name, and the aliases of cards with our extensions."""
        extension = self.persona.elysia_extensions.get("aliases")
        aliases = (
            [alias for alias in extension if isinstance(alias, str)]
            if isinstance(extension, list)
            else []
        )
        names = (self.name, self.persona.name.strip(), *aliases)
        return GroupMember(self.key, tuple(dict.fromkeys(name for name in names if name)))


class CharacterRegistry:
    """Bundled characters from a folder of cards, and users' own from the database."""

    def __init__(self, database: Database, folder: Path) -> None:
        """PersonaError when a bundled card cannot be read."""
        self._database = database
        self._bundled = {
            file.stem: _build_entry(file.stem, read_card(file), None, file.name)
            for file in sorted(folder.glob("*"))
            if file.suffix.lower() in (".json", ".png", ".charx")
        }

    def all(self, user: str) -> list[CharacterEntry]:
        """The bundled characters, then the user's own, the newest first."""
        query = (
            select(characters)
            .where(characters.c.user_id == user)
            .order_by(characters.c.created.desc())
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [*self._bundled.values(), *map(_parse_row, rows)]

    def get(self, user: str, key: str) -> CharacterEntry:
        """A character that the user may talk to; PersonaError for any other key."""
        if key in self._bundled:
            return self._bundled[key]
        query = select(characters).where(characters.c.id == key, characters.c.user_id == user)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise PersonaError("chat.no_character")
        return _parse_row(row)

    def get_many(self, user: str, keys: Sequence[str]) -> list[CharacterEntry]:
        """Several characters, in the order of `keys`."""
        return [self.get(user, key) for key in keys]

    def add(self, user: str, file: str, content: bytes) -> CharacterEntry:
        """Add a card: JSON, PNG or CHARX. PersonaError when it cannot be used or there are too many."""
        file = Path(file.replace("\\", "/")).name[:200] or "card"
        member = _build_entry("new", parse_card(content, file), user, file)
        if len(self.all(user)) - len(self._bundled) >= MAX_CARDS:
            raise PersonaError("chat.too_many_cards", limit=MAX_CARDS)
        key = new_id()
        with self._database.write() as connection:
            connection.execute(
                insert(characters).values(
                    id=key, user_id=user, name=member.name[:255], file=file, card=content,
                    created=time.time(),
                )
            )  # fmt: skip
        return self.get(user, key)

    def remove(self, user: str, key: str) -> None:
        """Remove one of the user's own characters; PersonaError for any other."""
        if key in self._bundled:
            raise PersonaError("chat.character_is_bundled")
        query = delete(characters).where(characters.c.id == key, characters.c.user_id == user)
        with self._database.write() as connection:
            if not connection.execute(query).rowcount:
                raise PersonaError("chat.no_character")


def _parse_row(row: Row[Any]) -> CharacterEntry:
    return _build_entry(row.id, parse_card(bytes(row.card), row.file), row.user_id, row.file)


def _build_entry(key: str, card: CharacterCard, owner: str | None, file: str) -> CharacterEntry:
    try:
        return CharacterEntry(key, card, Persona.from_card(card.document, where=file), owner, file)
    except PersonaError:
        raise
    except (ElysiaError, ValueError, TypeError) as error:
        raise PersonaError("chat.card_unusable", file=file, error=error) from error
