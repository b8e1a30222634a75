"""The consent file: who speaks in the recordings, and what they allow. Without one nothing is made."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from elysia.core.errors import VoiceError
from elysia.core.files import compute_sha256

CONSENT_NAMES = ("consent.toml", "consent.txt")
MAX_CONSENT_BYTES = 100_000  # bytes
_CONSENT_LINE = re.compile(r"\s*(speaker|allows|date)\s*[:：=]\s*(.+?)\s*$", re.I)

CONSENT_EXAMPLE = (
    'speaker = "Li Hua"\n'
    'allows = "Train a voice on these recordings and use it in this project."\n'
    'date = "2026-11-21"'
)


def find_consent(given: str | None, folder: Path) -> Path:
    """The file that was named, or the one beside the recordings. VoiceError says what to write."""
    candidates = [Path(given)] if given else [folder / name for name in CONSENT_NAMES]
    for path in candidates:
        if path.is_file():
            return path
    raise VoiceError(
        f"There is no consent at {' or '.join(map(str, candidates))}. A voice belongs to a person: write "
        f"down whose it is and what they allow, then prepare again. For example:\n{CONSENT_EXAMPLE}"
    )


def read_consent(path: Path) -> dict[str, Any]:
    """speaker, allows, date (where given), file and sha256 of a consent file.

    TOML, or a plain text with a line `speaker: …` and a line `allows: …`. VoiceError otherwise.
    """
    if path.stat().st_size > MAX_CONSENT_BYTES:
        raise VoiceError(f"{path} is larger than {MAX_CONSENT_BYTES} bytes: it is no consent.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text) if path.suffix == ".toml" else _parse_consent_lines(text)
    except UnicodeDecodeError:
        raise VoiceError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise VoiceError(f"{path} is not TOML ({error}). For example:\n{CONSENT_EXAMPLE}") from None
    found = {name: _to_text(values.get(name)) for name in ("speaker", "allows", "date")}
    for name, what in (("speaker", "whose voice it is"), ("allows", "what they allow")):
        if not found[name]:
            raise VoiceError(
                f"{path} does not say {what} ('{name}'). For example:\n{CONSENT_EXAMPLE}"
            )
    return {**found, "file": path.name, "sha256": compute_sha256(path)}


def _parse_consent_lines(text: str) -> dict[str, str]:
    matches = filter(None, map(_CONSENT_LINE.match, text.splitlines()))
    return {match[1].lower(): match[2] for match in matches}


def _to_text(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(str(part).strip() for part in value)
    return "" if value is None else str(value).strip()
