"""A voice that says nothing, for as long as a person would take: tests, and pages without sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elysia.voice.base import Pcm, check
from elysia.voice.text.explain import prepare

RATE = 16_000
SECONDS_A_LETTER = 0.15


class SilentVoice:
    """Zeros, in pieces of half a second."""

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[Pcm]:
        """As long as `text` would last."""
        check(text, speed)
        letters = sum(char.isalnum() for char in prepare(text))
        left = int(letters * SECONDS_A_LETTER * RATE / speed)
        while left > 0:
            piece = min(left, RATE // 2)
            left -= piece
            yield Pcm(bytes(2 * piece), RATE)

    def close(self) -> None:
        """Nothing to let go of."""


def build(settings: Mapping[str, Any], folder: Path) -> SilentVoice:
    """A silent voice; no settings."""
    return SilentVoice()
