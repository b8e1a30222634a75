"""What every voice is: a sentence goes in, pieces of sound come out.

Knows nothing of any implementation, of sentences in a stream, or of who listens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from elysia.core.errors import VoiceError

MIN_SPEED, MAX_SPEED = 0.25, 4.0  # OpenAI's range of speed
MAX_TEXT_CHARS = 2000  # characters of one call; longer texts are cut into sentences first


@dataclass(frozen=True)
class AudioChunk:
    """A piece of mono sound: 16-bit little-endian samples, `rate` of them a second."""

    data: bytes
    rate: int

    def __post_init__(self) -> None:
        if len(self.data) % 2 or self.rate < 1:
            raise VoiceError(f"{len(self.data)} bytes at {self.rate} Hz are no 16-bit sound.")

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return len(self.data) / 2 / self.rate


class TTSEngine(Protocol):
    """A voice behind a door. Implementations: one file each in this folder."""

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """Sound of `text` as it comes, all at one rate; nothing when there is nothing to say.

        Closing the iterator stops the work. Speeds from SLOWEST to FASTEST. Raises VoiceError with
        a sentence.
        """

    def close(self) -> None:
        """Let go of processes and memory; a closed voice may be asked again and starts anew."""


def check_request(text: str, speed: float) -> None:
    """VoiceError for a text too long for one call, or a speed out of range."""
    if len(text) > MAX_TEXT_CHARS:
        raise VoiceError(
            f"{len(text)} characters are too many for one call; cut them into sentences of at most "
            f"{MAX_TEXT_CHARS}."
        )
    if not MIN_SPEED <= speed <= MAX_SPEED:  # NaN is refused, too
        raise VoiceError(f"A speed of {speed:g} is out of range; it is {MIN_SPEED} to {MAX_SPEED}.")
