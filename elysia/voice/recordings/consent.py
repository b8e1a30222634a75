"""The consent file: who speaks in the recordings, and what they allow. Without one nothing is made."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from elysia.core.errors import VoiceError
from elysia.core.files import sha256_of

NAMES = ("consent.toml", "consent.txt")
LARGEST = 100_000  # bytes
_LINE = re.compile(r"\s*(speaker|allows|date)\s*[:：=]\s*(.+?)\s*$", re.I)

EXAMPLE = (
    'speaker = "Li Hua"\n'
    'allows = "Train a voice on these recordings and use it in this project."\n'
    'date = "2026-11-21"'
)


def find(given: str | None, folder: Path) -> Path:
    """The file that was named, or the one beside the recordings. VoiceError says what to write."""
    candidates = [Path(given)] if given else [folder / name for name in NAMES]
    for path in candidates:
        if path.is_file():
            return path
    raise VoiceError(
        f"There is no consent at {' or '.join(map(str, candidates))}. A voice belongs to a person: write "
        f"down whose it is and what they allow, then prepare again. For example:\n{EXAMPLE}"
    )


def read(path: Path) -> dict[str, Any]:
    """speaker, allows, date (where given), file and sha256 of a consent file.

    TOML, or a plain text with a line `speaker: …` and a line `allows: …`. VoiceError otherwise.
    """
    if path.stat().st_size > LARGEST:
        raise VoiceError(f"{path} is larger than {LARGEST} bytes: it is no consent.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text) if path.suffix == ".toml" else _lines(text)
    except UnicodeDecodeError:
        raise VoiceError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise VoiceError(f"{path} is not TOML ({error}). For example:\n{EXAMPLE}") from None
    found = {name: _said(values.get(name)) for name in ("speaker", "allows", "date")}
    for name, what in (("speaker", "whose voice it is"), ("allows", "what they allow")):
        if not found[name]:
            raise VoiceError(f"{path} does not say {what} ('{name}'). For example:\n{EXAMPLE}")
    return {**found, "file": path.name, "sha256": sha256_of(path)}


def _lines(text: str) -> dict[str, str]:
    matches = filter(None, map(_LINE.match, text.splitlines()))
    return {match[1].lower(): match[2] for match in matches}


def _said(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(str(part).strip() for part in value)
    return "" if value is None else str(value).strip()
