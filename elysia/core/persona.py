"""`Persona`, what a character card (V1, V2 or V3) says about its character, and `UserPersona`, what the
character is told about the user.

Here the macros {{char}} and {{user}} are filled, and {{original}} in a system prompt; `macros` has the
rest. The card specifications are linked in `card_file`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.core import card_json
from elysia.core.card_file import SPECS as SPECS
from elysia.core.card_file import describe_json_kind, get_card_fields, read_card
from elysia.core.errors import PersonaError

TEXT_FIELDS = (
    "nickname",
    "description",
    "personality",
    "scenario",
    "first_mes",
    "mes_example",
    "system_prompt",
)
DEFAULT_SYSTEM = "你是{{char}}，正在和{{user}}说话。"  # for a card without a system prompt


@dataclass(frozen=True)
class Persona:
    """A character. The texts are as written on the card, with their macros: see `fill`.

    `extra` holds the card's other fields (of V1: any beyond the six) unchanged.
    """

    name: str
    nickname: str = ""
    description: str = ""
    personality: str = ""
    scenario: str = ""
    first_mes: str = ""
    mes_example: str = ""
    system_prompt: str = ""
    extensions: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    version: int = 2

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise PersonaError("core.persona_unnamed")

    @classmethod
    def load(cls, path: str | Path) -> Persona:
        """The persona of a card file: JSON, PNG or CHARX.

        Raises PersonaError, naming file and key, when it is not a card.
        """
        return cls.from_card(read_card(path).document, where=str(path))

    @classmethod
    def from_card(cls, card: object, where: str = "the card") -> Persona:
        """The persona of a parsed card; `where` names its source in errors."""
        data, version = get_card_fields(card, where)
        if not isinstance(data.get("name"), str) or not data["name"].strip():
            raise PersonaError("core.card_without_name", where=where)
        texts = {key: _get_text(data, key, where) for key in TEXT_FIELDS}
        extensions = data.get("extensions") or {}
        if not isinstance(extensions, dict):
            kind = describe_json_kind(extensions)
            raise PersonaError("core.extensions_not_object", where=where, kind=kind)
        known = {"name", "extensions", *TEXT_FIELDS}
        extra = {key: value for key, value in data.items() if key not in known}
        return cls(data["name"], **texts, extensions=extensions, extra=extra, version=version)

    @property
    def display_name(self) -> str:
        """What {{char}} becomes: the nickname where there is one (V3), else the name."""
        return self.nickname.strip() or self.name.strip()

    @property
    def elysia_extensions(self) -> Mapping[str, Any]:
        """This project's own fields, which a card keeps under `extensions.elysia`; {} without any."""
        fields = self.extensions.get("elysia")
        return fields if isinstance(fields, dict) else {}

    @property
    def voice(self) -> str | None:
        """The character's voice (`extensions.elysia.voice`), a file's name in tts/voices; None without."""
        name = self.elysia_extensions.get("voice")
        return name if isinstance(name, str) and name.strip() else None

    def fill(self, text: str, user: str = "你") -> str:
        """`text` with {{char}} and {{user}}, in any case, replaced; other macros stay."""
        values = {"char": self.display_name, "user": user}
        return re.sub(
            r"\{\{\s*(char|user)\s*\}\}", lambda m: values[m.group(1).lower()], text, flags=re.I
        )

    def system_line(self, user: str = "你") -> str:
        """The card's own system prompt alone, filled: short enough for tiny models, never empty."""
        line = self.system_prompt.strip() or DEFAULT_SYSTEM
        line = re.sub(r"\{\{\s*original\s*\}\}", lambda _: DEFAULT_SYSTEM, line, flags=re.I)
        return self.fill(line, user).strip()

    def system_text(self, user: str = "你") -> str:
        """The whole system text: system prompt, description, personality and scenario, a paragraph each."""
        parts = (self.description, self.personality, self.scenario)
        filled = (self.fill(part, user).strip() for part in parts)
        return "\n".join([self.system_line(user), *(part for part in filled if part)])


def _get_text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = describe_json_kind(value)
        raise PersonaError("core.card_field_not_text", where=where, key=key, kind=kind)
    if "\N{REPLACEMENT CHARACTER}" in value:
        raise PersonaError("core.card_field_garbled", where=where, key=key)
    return value


@dataclass(frozen=True)
class UserPersona:
    """The user's name ({{user}}) and what the character is told about the user ("" for nothing)."""

    name: str = "你"
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise PersonaError("core.user_persona_unnamed")

    @classmethod
    def load(cls, path: str | Path) -> UserPersona:
        """The persona in a JSON file {"name": "...", "description": "..."}; other keys are ignored."""
        path = Path(path)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise PersonaError(
                "core.file_unreadable", path=path, reason=error.strerror or str(error)
            ) from error
        document = card_json.loads(raw, str(path))
        fields = document if isinstance(document, dict) else {}
        name, description = fields.get("name"), fields.get("description", "")
        if not isinstance(name, str) or not isinstance(description, str) or not name.strip():
            raise PersonaError("core.not_a_user_persona", path=path)
        return cls(name, description)
