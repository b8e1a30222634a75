"""A voice that says nothing, for as long as a person would take: tests, and pages without sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elysia.voice.base import AudioChunk, check_request
from elysia.voice.frontend.pipeline import normalize_text

SAMPLE_RATE = 16_000
SECONDS_PER_LETTER = 0.15


class SilentEngine:
    """Zeros, in pieces of half a second."""

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """As long as `text` would last."""
        check_request(text, speed)
        letters = sum(char.isalnum() for char in normalize_text(text))
        left = int(letters * SECONDS_PER_LETTER * SAMPLE_RATE / speed)
        while left > 0:
            piece = min(left, SAMPLE_RATE // 2)
            left -= piece
            yield AudioChunk(bytes(2 * piece), SAMPLE_RATE)

    def close(self) -> None:
        """Nothing to let go of."""


def build(settings: Mapping[str, Any], folder: Path) -> SilentEngine:
    """A silent voice; no settings."""
    return SilentEngine()
