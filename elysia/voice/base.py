"""What every voice is: a sentence goes in, pieces of sound come out.

Knows nothing of any implementation, of sentences in a stream, or of who listens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from elysia.core.errors import VoiceError

SLOWEST, FASTEST = 0.25, 4.0  # OpenAI's range of speed
LONGEST_TEXT = 2000  # characters of one call; longer texts are cut into sentences first


@dataclass(frozen=True)
class Pcm:
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


class Voice(Protocol):
    """A voice behind a door. Implementations: one file each in this folder."""

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[Pcm]:
        """Sound of `text` as it comes, all at one rate; nothing when there is nothing to say.

        Closing the iterator stops the work. Speeds from SLOWEST to FASTEST. Raises VoiceError with
        a sentence.
        """

    def close(self) -> None:
        """Let go of processes and memory; a closed voice may be asked again and starts anew."""


def check(text: str, speed: float) -> None:
    """VoiceError for a text too long for one call, or a speed out of range."""
    if len(text) > LONGEST_TEXT:
        raise VoiceError(
            f"{len(text)} characters are too many for one call; cut them into sentences of at most "
            f"{LONGEST_TEXT}."
        )
    if not SLOWEST <= speed <= FASTEST:  # NaN is refused, too
        raise VoiceError(f"A speed of {speed:g} is out of range; it is {SLOWEST} to {FASTEST}.")
