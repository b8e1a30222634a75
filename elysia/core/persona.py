"""A persona: what a character card (Tavern card V1, V2 or V3, as JSON) says of a character.

Cards: https://github.com/malfoyslastname/character-card-spec-v2 and
https://github.com/kwaroran/character-card-spec-v3. Knows the macros {{char}} and {{user}} and, in
a system prompt, {{original}}. Knows nothing of cards inside pictures, of lorebooks, or of how a
model is spoken to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.core.errors import PersonaError, nearest

SPECS = {"chara_card_v2": 2, "chara_card_v3": 3}
TEXTS = (
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
        """The persona of a card file. PersonaError, with file and key, when it is not a card."""
        path = Path(path)
        return cls.from_card(_read_json(path), where=str(path))

    @classmethod
    def from_card(cls, card: object, where: str = "the card") -> Persona:
        """The persona of a parsed card; `where` names its source in errors."""
        data, version = _data_of(card, where)
        if not isinstance(data.get("name"), str) or not data["name"].strip():
            raise PersonaError(f"{where}: the card has no 'name'; every character needs one.")
        texts = {key: _text(data, key, where) for key in TEXTS}
        extensions = data.get("extensions") or {}
        if not isinstance(extensions, dict):
            raise PersonaError(
                f"{where}, key 'extensions': must be an object, not {_kind(extensions)}."
            )
        known = {"name", "extensions", *TEXTS}
        extra = {key: value for key, value in data.items() if key not in known}
        return cls(data["name"], **texts, extensions=extensions, extra=extra, version=version)

    @property
    def called(self) -> str:
        """What {{char}} becomes: the nickname where there is one (V3), else the name."""
        return self.nickname.strip() or self.name.strip()

    @property
    def ours(self) -> Mapping[str, Any]:
        """What the card says to this project under `extensions.elysia`; {} when nothing."""
        found = self.extensions.get("elysia")
        return found if isinstance(found, dict) else {}

    @property
    def voice(self) -> str | None:
        """The name of her voice (`extensions.elysia.voice`), a file of tts/voices; None without."""
        name = self.ours.get("voice")
        return name if isinstance(name, str) and name.strip() else None

    def fill(self, text: str, user: str = "你") -> str:
        """`text` with {{char}} and {{user}}, in any case, replaced; other macros stay."""
        values = {"char": self.called, "user": user}
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


def _read_json(path: Path) -> object:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise PersonaError(f"There is no character card at {path}.") from None
    except OSError as error:
        raise PersonaError(f"{path} cannot be read: {error.strerror or error}.") from error
    if raw.startswith(b"\x89PNG") or raw.startswith(b"PK"):
        raise PersonaError(
            f"{path} is a {'PNG picture' if raw[1:4] == b'PNG' else 'zip (CHARX)'}: "
            "give the card as JSON; export it so from the program that made it."
        )
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise PersonaError(f"{path} is not UTF-8 text: save the card as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise PersonaError(
            f"{path}, line {error.lineno}: the card is not JSON ({error.msg})."
        ) from None
    except RecursionError:
        raise PersonaError(f"{path}: the card is nested too deeply to be one.") from None


def _data_of(card: object, where: str) -> tuple[dict[str, Any], int]:
    """The object that holds the fields, and the card's version."""
    if not isinstance(card, dict):
        raise PersonaError(f"{where}: a character card is an object, and this is {_kind(card)}.")
    spec = card.get("spec")
    if spec is None:
        if isinstance(card.get("data"), dict):
            raise PersonaError(
                f"{where}: the card has 'data' but no 'spec'; write \"spec\": \"chara_card_v2\"."
            )
        return card, 1
    if not isinstance(spec, str) or spec not in SPECS:
        raise PersonaError(
            f"{where}, key 'spec': {spec!r} is no card version we know ({', '.join(SPECS)})."
            f"{nearest(str(spec), SPECS)}"
        )
    if not isinstance(card.get("data"), dict):
        raise PersonaError(
            f"{where}: a {spec} card keeps its fields in the object 'data', and it is missing."
        )
    return card["data"], SPECS[spec]


def _text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PersonaError(f"{where}, key '{key}': must be text, not {_kind(value)}.")
    if "\N{REPLACEMENT CHARACTER}" in value:
        raise PersonaError(
            f"{where}, key '{key}': holds U+FFFD, a character lost in some conversion; repair it."
        )
    return value


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "null" if value is None else kinds.get(type(value), "a number")
