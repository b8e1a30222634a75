"""manifest.json: the clips of a prepared folder, how they were cut, and who allowed what.

Knows nothing of how clips are made or used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from elysia.core.errors import VoiceError
from elysia.core.files import write_atomic
from elysia.voice.dataset.spectrogram import SpectrogramConfig

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 256 * 1024 * 1024  # bytes


@dataclass(frozen=True)
class AudioClip:
    """One clip: its files inside the folder, what is said, and its length; `source` is where it
    came from."""

    file: str
    spectrogram: str
    text: str
    seconds: float
    frames: int
    source: str = ""

    def __post_init__(self) -> None:
        for name in (self.file, self.spectrogram):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{name!r} leads out of the folder")
        if not self.text or self.frames < 1:
            raise ValueError(f"{self.file!r} has no text, or no sound")


@dataclass(frozen=True)
class ClipManifest:
    """What `voice prepare` wrote."""

    clips: tuple[AudioClip, ...]
    shape: SpectrogramConfig
    consent: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """Of all clips."""
        return sum(clip.seconds for clip in self.clips)

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        data = {
            "version": 1, "shape": self.shape.to_dict(), "consent": dict(self.consent),
            "clips": [asdict(clip) for clip in self.clips],
        }  # fmt: skip
        write_atomic(folder / MANIFEST_FILE, json.dumps(data, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> ClipManifest:
        """The manifest of a folder. VoiceError when there is none, or it is damaged."""
        path = folder / MANIFEST_FILE
        if not path.is_file():
            raise VoiceError(
                f"{folder} has no {MANIFEST_FILE}: make it with 'elysia voice prepare RECORDINGS --out {folder}'."
            )
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise VoiceError(
                f"{path} is larger than {MAX_MANIFEST_BYTES} bytes: it is no manifest."
            )
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            clips = tuple(AudioClip(**clip) for clip in data["clips"])
            manifest = cls(clips, SpectrogramConfig(**data["shape"]), data["consent"])
            if not clips or not manifest.consent.get("speaker"):
                raise ValueError("no clips, or no consent")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise VoiceError(
                f"{path} is damaged ({error}): prepare the recordings again."
            ) from None
        return manifest
