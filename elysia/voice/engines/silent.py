"""Silence, as long as a person would speak: for tests, and for machines without another voice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elysia.voice.base import AudioChunk, check_request
from elysia.voice.frontend.pipeline import normalize_text

SAMPLE_RATE = 16_000
SECONDS_PER_LETTER = 0.15


class SilentEngine:
    """Zeros, in chunks of half a second."""

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """As long as `text` would last."""
        check_request(text, speed)
        letters = sum(char.isalnum() for char in normalize_text(text))
        remaining = int(letters * SECONDS_PER_LETTER * SAMPLE_RATE / speed)
        while remaining > 0:
            count = min(remaining, SAMPLE_RATE // 2)
            remaining -= count
            yield AudioChunk(bytes(2 * count), SAMPLE_RATE)

    def close(self) -> None:
        """Nothing to release."""


def build(settings: Mapping[str, Any], folder: Path) -> SilentEngine:
    """A silent engine; it has no settings."""
    return SilentEngine()
