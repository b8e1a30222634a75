"""A persona: what a character card (Tavern card V1, V2 or V3) says of a character.

Cards: https://github.com/malfoyslastname/character-card-spec-v2 and
https://github.com/kwaroran/character-card-spec-v3. Knows the macros {{char}} and {{user}} and, in
a system prompt, {{original}}. Knows nothing of what carries a card, of lorebooks, or of how a model
is spoken to.
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
DEFAULT_SYSTEM = "你是{{char}}，正在和{{user}}说话。"  # where a card brings no system prompt


@dataclass(frozen=True)
class Persona:
    """A character. Texts are as written on the card, macros unfilled: see `fill`.

    `extra` holds the card's other fields (of V1: any beyond the six), as they were read.
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
            raise PersonaError("A persona needs a name.")

    @classmethod
    def load(cls, path: str | Path) -> Persona:
        """The persona of a card file: JSON, PNG or CHARX. PersonaError, with file and key, when it
        is not a card.
        """
        return cls.from_card(read_card(path).document, where=str(path))

    @classmethod
    def from_card(cls, card: object, where: str = "the card") -> Persona:
        """The persona of a parsed card; `where` names its source in errors."""
        data, version = get_card_fields(card, where)
        if not isinstance(data.get("name"), str) or not data["name"].strip():
            raise PersonaError(f"{where}: the card has no 'name'; every character needs one.")
        texts = {key: _get_text(data, key, where) for key in TEXT_FIELDS}
        extensions = data.get("extensions") or {}
        if not isinstance(extensions, dict):
            raise PersonaError(
                f"{where}, key 'extensions': must be an object, not {describe_json_kind(extensions)}."
            )
        known = {"name", "extensions", *TEXT_FIELDS}
        extra = {key: value for key, value in data.items() if key not in known}
        return cls(data["name"], **texts, extensions=extensions, extra=extra, version=version)

    @property
    def display_name(self) -> str:
        """What {{char}} becomes: the nickname where there is one (V3), else the name."""
        return self.nickname.strip() or self.name.strip()

    @property
    def elysia_extensions(self) -> Mapping[str, Any]:
        """What the card says to this project under `extensions.elysia`; {} when nothing."""
        found = self.extensions.get("elysia")
        return found if isinstance(found, dict) else {}

    @property
    def voice(self) -> str | None:
        """The name of her voice (`extensions.elysia.voice`), a file of tts/voices; None without."""
        name = self.elysia_extensions.get("voice")
        return name if isinstance(name, str) and name.strip() else None

    def fill(self, text: str, user: str = "你") -> str:
        """`text` with {{char}} and {{user}}, in any case, replaced; other macros stay."""
        values = {"char": self.display_name, "user": user}
        return re.sub(
            r"\{\{\s*(char|user)\s*\}\}", lambda m: values[m.group(1).lower()], text, flags=re.I
        )

    def system_line(self, user: str = "你") -> str:
        """The card's own system prompt alone, filled: short, for tiny models. Never empty."""
        line = self.system_prompt.strip() or DEFAULT_SYSTEM
        line = re.sub(r"\{\{\s*original\s*\}\}", lambda _: DEFAULT_SYSTEM, line, flags=re.I)
        return self.fill(line, user).strip()

    def system_text(self, user: str = "你") -> str:
        """The whole SYSTEM: system prompt, description, personality, scenario, one a paragraph."""
        parts = (self.description, self.personality, self.scenario)
        filled = (self.fill(part, user).strip() for part in parts)
        return "\n".join([self.system_line(user), *(part for part in filled if part)])


def _get_text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PersonaError(f"{where}, key '{key}': must be text, not {describe_json_kind(value)}.")
    if "\N{REPLACEMENT CHARACTER}" in value:
        raise PersonaError(
            f"{where}, key '{key}': holds U+FFFD, a character lost in some conversion; repair it."
        )
    return value


@dataclass(frozen=True)
class UserPersona:
    """What {{user}} becomes, and a text that the character is told of the user ('' for none)."""

    name: str = "你"
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise PersonaError("A user persona needs a name.")

    @classmethod
    def load(cls, path: str | Path) -> UserPersona:
        """From a JSON file: {"name": "...", "description": "..."}; other keys are left alone."""
        path = Path(path)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise PersonaError(f"{path} cannot be read: {error.strerror or error}.") from error
        found = card_json.loads(raw, str(path))
        fields = found if isinstance(found, dict) else {}
        name, description = fields.get("name"), fields.get("description", "")
        if not isinstance(name, str) or not isinstance(description, str) or not name.strip():
            raise PersonaError(
                f"{path}: a user persona is an object with the texts 'name' and 'description'."
            )
        return cls(name, description)
