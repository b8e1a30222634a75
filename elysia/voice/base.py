"""The interface of a speech engine: `TTSEngine` turns a sentence into a stream of `AudioChunk`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from elysia.core.errors import VoiceError

MIN_SPEED, MAX_SPEED = 0.25, 4.0  # the range of OpenAI's speech API
MAX_TEXT_CHARS = 2000  # of one call; longer texts are cut into sentences first


@dataclass(frozen=True)
class AudioChunk:
    """A piece of mono audio: 16-bit little-endian samples, `rate` samples per second."""

    data: bytes
    rate: int

    def __post_init__(self) -> None:
        if len(self.data) % 2 or self.rate < 1:
            raise VoiceError("voice.not_pcm16", size=len(self.data), rate=self.rate)

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.data) / 2 / self.rate


class TTSEngine(Protocol):
    """What every engine can do. Each implementation is one file in `voice/engines`."""

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """Yield the audio of `text` as it is made, all at one sample rate; nothing if nothing can be said.

        Closing the iterator stops the work. `speed` is from MIN_SPEED to MAX_SPEED. Raises VoiceError.
        """

    def close(self) -> None:
        """Release processes and memory. A closed engine starts again at the next call."""


def check_request(text: str, speed: float) -> None:
    """Raise VoiceError for a text that is too long for one call, or a speed that is out of range."""
    if len(text) > MAX_TEXT_CHARS:
        raise VoiceError("voice.text_too_long", count=len(text), limit=MAX_TEXT_CHARS)
    if not MIN_SPEED <= speed <= MAX_SPEED:  # written this way so that NaN is refused, too
        raise VoiceError(
            "voice.speed_out_of_range", speed=f"{speed:g}", least=MIN_SPEED, most=MAX_SPEED
        )
