"""Voices by name: each is a file tts/voices/<name>.toml that names an engine and its settings.

An engine's module is imported only when a file asks for it.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.core.errors import VoiceError, nearest
from elysia.core.i18n import Text
from elysia.core.paths import get_voices_folder
from elysia.voice.base import MAX_SPEED, MIN_SPEED, TTSEngine

# Each module offers `build(settings, folder) -> TTSEngine`; `folder` is where the voice file lies.
ENGINES = {
    "silent": "elysia.voice.engines.silent",
    "espeak": "elysia.voice.engines.espeak",
    "vits": "elysia.voice.engines.vits",
    "http": "elysia.voice.engines.http",
}
_NUMBER = (int, float)
ENGINE_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "silent": {},
    "espeak": {"variant": str, "pitch": int, "languages": dict},
    "vits": {
        "model": str, "speaker": (str, int), "noise": _NUMBER, "noise_duration": _NUMBER,
        "threads": int, "backend": str, "seed": int, "sandhi": bool,
    },
    "http": {
        "url": str, "dialect": str, "rate": int, "timeout": _NUMBER, "key_env": str, "body": dict,
    },
}  # fmt: skip
_COMMON_KEYS = {"engine", "description", "speed"}
_VALID_NAME = re.compile(r"[\w-]{1,64}\Z")


@dataclass(frozen=True)
class VoiceFile:
    """A voice as its file describes it. `speed` is multiplied by the speed of each request."""

    name: str
    engine: str
    path: Path
    description: str = ""
    speed: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> VoiceFile:
        """Read and check a voice file. Raises VoiceError, which names the file and the key."""
        path = Path(path)
        data = _read_toml(path)
        engine = data.get("engine")
        if engine not in ENGINES:
            raise VoiceError(
                "voice.unknown_engine", path=path, engine=repr(engine), known=[*ENGINES],
                hint=nearest(str(engine), ENGINES),
            )  # fmt: skip
        types = ENGINE_KEYS[engine]
        for key, value in data.items():
            if key not in types and key not in _COMMON_KEYS:
                hint = nearest(key, {*types, *_COMMON_KEYS})
                raise VoiceError("voice.unknown_key", path=path, key=key, hint=hint)
            if key in types and not isinstance(value, types[key]):
                raise VoiceError("voice.wrong_type", path=path, key=key, value=repr(value))
        speed = data.get("speed", 1.0)
        if not isinstance(speed, int | float) or not MIN_SPEED <= speed <= MAX_SPEED:
            raise VoiceError("voice.bad_speed", path=path, value=repr(speed))
        settings = {key: value for key, value in data.items() if key in types}
        return cls(path.stem, engine, path, str(data.get("description", "")), speed, settings)

    def open(self) -> TTSEngine:
        """Build the engine. Raises VoiceError, which says what is missing."""
        build = importlib.import_module(ENGINES[self.engine]).build
        try:
            engine: TTSEngine = build(self.settings, self.path.parent)
        except VoiceError as error:
            raise VoiceError("voice.in_file", path=self.path, error=error) from error
        return engine


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise VoiceError("voice.no_such_file", path=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VoiceError("voice.not_toml", path=path, error=str(error)) from None
    except OSError as error:
        raise VoiceError(
            "voice.unreadable", path=path, reason=error.strerror or str(error)
        ) from None


def list_voices(folder: Path | None = None) -> list[str]:
    """The names of all voices, sorted."""
    return sorted(path.stem for path in (folder or get_voices_folder()).glob("*.toml"))


def find_voice(name: str, folder: Path | None = None) -> VoiceFile:
    """The voice file of a name, or of a path to one. Raises VoiceError, which suggests the nearest name."""
    if name.endswith(".toml"):
        return VoiceFile.load(name)
    folder = folder or get_voices_folder()
    path = folder / f"{name}.toml"
    if not _VALID_NAME.match(name) or not path.is_file():
        known = list_voices(folder)
        raise VoiceError(
            "voice.no_such_voice", name=name, folder=folder, known=known or Text("voice.none"),
            hint=nearest(name, known),
        )  # fmt: skip
    return VoiceFile.load(path)
