"""manifest.json: the clips of a dataset, how their spectrograms were made, and the speaker's consent."""

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
MAX_MANIFEST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class AudioClip:
    """A clip: its files inside the dataset's folder, its transcript and its length.

    `source` is the file name of the recording it was made from.
    """

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
        """Duration of all clips."""
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
        """The manifest of a folder. Raises VoiceError when there is none, or it is damaged."""
        path = folder / MANIFEST_FILE
        if not path.is_file():
            raise VoiceError("voice.no_manifest", folder=folder, file=MANIFEST_FILE)
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise VoiceError("voice.manifest_too_large", path=path, limit=MAX_MANIFEST_BYTES)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            clips = tuple(AudioClip(**clip) for clip in data["clips"])
            manifest = cls(clips, SpectrogramConfig(**data["shape"]), data["consent"])
            if not clips or not manifest.consent.get("speaker"):
                raise ValueError("no clips, or no consent")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise VoiceError("voice.manifest_damaged", path=path, error=str(error)) from None
        return manifest
