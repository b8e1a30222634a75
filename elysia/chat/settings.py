"""What may be set of one conversation: sampling, what enters the prompt, who the user is.

Plain data, kept as JSON beside the conversation. Knows nothing of pages.
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


@dataclass(frozen=True)
class ConversationSettings:
    """Of one conversation. `seed` None draws anew each time; `round` is replies a round in a group."""

    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 40
    max_new_tokens: int = 512
    repetition_penalty: float = 1.0
    seed: int | None = None
    memory: bool = True
    knowledge: bool = True
    examples: bool = True
    round: int = 2
    system: str = ""
    user: Mapping[str, str] = field(default_factory=dict)
    voice: bool = False
    voice_name: str = ""  # of tts/voices; "": each character's own
    speed: float = 1.0

    def __post_init__(self) -> None:
        self.sampling()  # refuses what is out of range
        if not 1 <= self.round <= 6:
            raise UsageError(f"round is {self.round}; it must be 1 to 6.")
        if not 0.25 <= self.speed <= 4:
            raise UsageError(f"speed is {self.speed}; it must be 0.25 to 4.")
        if len(self.system) > 20_000 or len(str(self.user)) > 20_000:
            raise UsageError("system and user may have 20,000 characters.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ConversationSettings:
        """From what was kept; UsageError for an unknown name or a value out of range."""
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                raise UsageError(f"There is no setting '{name}'.{nearest(name, known)}")
        return cls(**values)

    def values(self) -> dict[str, Any]:
        """As they are kept."""
        return asdict(self)

    def sampling(self, turn: int = 0) -> Sampling:
        """For the reply of that number: with a seed, the same turn draws the same."""
        values = {name: getattr(self, name) for name in SAMPLING_FIELDS}
        if self.seed is not None:
            values["seed"] = self.seed + turn
        return Sampling(**values)

    def persona(self) -> UserPersona:
        """Who the user is to the characters."""
        name = str(self.user.get("name") or "").strip()
        return UserPersona(name or "你", str(self.user.get("description") or ""))
