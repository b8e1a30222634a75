"""Voices are files, tts/voices/<name>.toml: which engine, and what it needs.

Knows the names of the engines and imports one when a file asks for it.
"""

from __future__ import annotations

import importlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.core.errors import VoiceError, nearest
from elysia.voice.base import TTSEngine

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
    """A voice as its file describes it; `speed` is its own, multiplied by what is asked for."""

    name: str
    engine: str
    path: Path
    description: str = ""
    speed: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> VoiceFile:
        """Read and check a voice file. VoiceError, with file and key, when it is none."""
        path = Path(path)
        data = _read_toml(path)
        engine = data.get("engine")
        if engine not in ENGINES:
            raise VoiceError(
                f"{path}, key 'engine': {engine!r} is none of {', '.join(ENGINES)}."
                f"{nearest(str(engine), ENGINES)}"
            )
        known = ENGINE_KEYS[engine]
        for key, value in data.items():
            if key not in known and key not in _COMMON_KEYS:
                raise VoiceError(
                    f"{path}: an unknown key '{key}'.{nearest(key, {*known, *_COMMON_KEYS})}"
                )
            if key in known and not isinstance(value, known[key]):
                raise VoiceError(f"{path}, key '{key}': {value!r} is of a wrong type.")
        speed = data.get("speed", 1.0)
        if not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
            raise VoiceError(f"{path}, key 'speed': {speed!r} is not a number from 0.25 to 4.")
        settings = {key: value for key, value in data.items() if key in ENGINE_KEYS[engine]}
        return cls(path.stem, engine, path, str(data.get("description", "")), speed, settings)

    def open(self) -> TTSEngine:
        """The voice itself; loads what the engine needs. VoiceError says what is missing."""
        build = importlib.import_module(ENGINES[self.engine]).build
        try:
            voice: TTSEngine = build(self.settings, self.path.parent)
        except VoiceError as error:
            raise VoiceError(f"{self.path}: {error}") from error
        return voice


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise VoiceError(f"There is no voice file at {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VoiceError(f"{path} is not TOML: {error}.") from None
    except OSError as error:
        raise VoiceError(f"{path} cannot be read: {error.strerror or error}.") from None


def voices_folder() -> Path:
    """Where voice files are: ELYSIA_VOICES, else ./tts/voices, else the repository's."""
    if asked := os.environ.get("ELYSIA_VOICES"):
        return Path(asked)
    here = Path("tts") / "voices"
    return here if here.is_dir() else Path(__file__).resolve().parents[2] / "tts" / "voices"


def list_voices(where: Path | None = None) -> list[str]:
    """Every voice there is, sorted."""
    return sorted(path.stem for path in (where or voices_folder()).glob("*.toml"))


def find_voice(name: str, where: Path | None = None) -> VoiceFile:
    """The voice file of a name (or of a path to one). VoiceError names the nearest."""
    if name.endswith(".toml"):
        return VoiceFile.load(name)
    where = where or voices_folder()
    path = where / f"{name}.toml"
    if not _VALID_NAME.match(name) or not path.is_file():
        known = list_voices(where)
        raise VoiceError(
            f"There is no voice '{name}' in {where}, only {', '.join(known) or 'none'}."
            f"{nearest(name, known)}"
        )
    return VoiceFile.load(path)
