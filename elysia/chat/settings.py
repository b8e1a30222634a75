"""The settings of one conversation: sampling, what enters the prompt, who the user is, the voice.

They are stored as JSON beside the conversation, under the names of the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from elysia.core.errors import UsageError, nearest
from elysia.core.persona import UserPersona
from elysia.engines.base import Sampling

# The names are those of the demo page that InternLM's users know, and its values.
PRESETS: Mapping[str, Mapping[str, float]] = {
    "faithful": {"temperature": 0.1, "top_p": 0.75, "max_new_tokens": 512},
    "balanced": {"temperature": 0.7, "top_p": 0.8, "max_new_tokens": 512},
    "lively": {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 512},
}
SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "max_new_tokens", "repetition_penalty", "seed")
MAX_TEXT_LENGTH = 20_000  # characters of `system`, and of `user`


@dataclass(frozen=True)
class ConversationSettings:
    """The settings of one conversation; UsageError for a value out of range."""

    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 40
    max_new_tokens: int = 512
    repetition_penalty: float = 1.0
    seed: int | None = None  # None: other draws each time
    memory: bool = True
    knowledge: bool = True
    examples: bool = True  # the card's example dialogue
    round: int = 2  # replies to one message in a group, at most
    system: str = ""
    user: Mapping[str, str] = field(default_factory=dict)  # name, description
    voice: bool = False
    voice_name: str = ""  # of tts/voices; "": each character's own
    speed: float = 1.0  # of speech

    def __post_init__(self) -> None:
        self.sampling()  # refuses what is out of range
        if not 1 <= self.round <= 6:
            raise UsageError("chat.round_out_of_range", value=self.round)
        if not 0.25 <= self.speed <= 4:
            raise UsageError("chat.speed_out_of_range", value=self.speed)
        if len(self.system) > MAX_TEXT_LENGTH or len(str(self.user)) > MAX_TEXT_LENGTH:
            raise UsageError("chat.setting_too_long")

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> ConversationSettings:
        """From stored values; UsageError for an unknown name or a value out of range."""
        known = [setting.name for setting in fields(cls)]
        for name in values:
            if name not in known:
                raise UsageError("chat.unknown_setting", name=name, hint=nearest(name, known))
        return cls(**values)

    def dump(self) -> dict[str, Any]:
        """The values to store."""
        return asdict(self)

    def sampling(self, number: int = 0) -> Sampling:
        """The sampling of the message with this number: with a seed, the same one draws the same."""
        values = {name: getattr(self, name) for name in SAMPLING_FIELDS}
        if self.seed is not None:
            values["seed"] = self.seed + number
        return Sampling(**values)

    def persona(self) -> UserPersona:
        """Who the user is to the characters."""
        name = str(self.user.get("name") or "").strip()
        return UserPersona(name or "你", str(self.user.get("description") or ""))
