"""Who the user is to a character: a name and, where wanted, a description. Plain data.

Knows nothing of cards or prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elysia.core import card_json
from elysia.core.errors import PersonaError


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
