"""What the user brings: recordings with their transcripts, and the consent of the person who speaks.

Transcripts lie beside the recordings, or in one list. Without a consent file nothing is prepared.
"""

from __future__ import annotations

import csv
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from elysia.core.errors import VoiceError
from elysia.core.files import compute_sha256
from elysia.core.i18n import Text

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
TRANSCRIPT_SUFFIXES = (".txt", ".lab")
MAX_RECORDINGS = 100_000
MAX_LIST_BYTES = 64 * 1024 * 1024
MAX_TRANSCRIPT_BYTES = 20_000  # of one recording
_HEADER_NAMES = {"file", "filename", "name", "path", "id", "wav", "audio"}

CONSENT_NAMES = ("consent.toml", "consent.txt")
MAX_CONSENT_BYTES = 100_000
_CONSENT_LINE = re.compile(r"\s*(speaker|allows|date)\s*[:：=]\s*(.+?)\s*$", re.I)
CONSENT_EXAMPLE = (
    'speaker = "Li Hua"\n'
    'allows = "Train a voice on these recordings and use it in this project."\n'
    'date = "2026-11-21"'
)


@dataclass(frozen=True)
class RecordingSource:
    """A recording and its transcript; `fault` says why it cannot be used, where that is known."""

    path: Path
    text: str
    fault: Text | None = None


def find_recordings(path: Path) -> list[RecordingSource]:
    """Every recording of a folder, or of a list (`name|text`, or a CSV), in order.

    Raises VoiceError when there is none, or the list cannot be read.
    """
    if path.is_dir():
        sources = _scan_folder(path)
    elif path.is_file():
        sources = _read_list(path)
    else:
        raise VoiceError("voice.no_such_recordings", path=path)
    if not sources:
        raise VoiceError("voice.no_recordings", path=path, suffixes=AUDIO_SUFFIXES)
    if len(sources) > MAX_RECORDINGS:
        raise VoiceError(
            "voice.too_many_recordings", path=path, count=len(sources), limit=MAX_RECORDINGS
        )
    return sources


def _scan_folder(folder: Path) -> list[RecordingSource]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    return [_pair_transcript(path) for path in paths]


def _pair_transcript(path: Path) -> RecordingSource:
    """A recording with the text file of the same name beside it."""
    for suffix in TRANSCRIPT_SUFFIXES:
        beside = path.with_suffix(suffix)
        if beside.is_file():
            name = {"name": beside.name}
            if beside.stat().st_size > MAX_TRANSCRIPT_BYTES:
                return RecordingSource(path, "", Text("voice.transcript_too_long", name))
            try:
                text = " ".join(beside.read_text(encoding="utf-8-sig").split())
            except UnicodeDecodeError:
                return RecordingSource(path, "", Text("voice.transcript_not_utf8", name))
            return RecordingSource(path, text)
    names = " or ".join(path.with_suffix(suffix).name for suffix in TRANSCRIPT_SUFFIXES)
    return RecordingSource(path, "", Text("voice.no_transcript", {"names": names}))


def _read_list(path: Path) -> list[RecordingSource]:
    if path.suffix.lower() in AUDIO_SUFFIXES:
        raise VoiceError("voice.single_recording", path=path)
    if path.stat().st_size > MAX_LIST_BYTES:
        raise VoiceError("voice.list_too_large", path=path, limit=MAX_LIST_BYTES)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise VoiceError("voice.list_not_utf8", path=path) from None
    # The separator is the one that the first lines show: LJ Speech's |, a tab, or a comma.
    head = "".join(lines[:5])
    separator = "|" if "|" in head else "\t" if "\t" in head else ","
    quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "|" else csv.QUOTE_MINIMAL
    sources = []
    try:
        rows = enumerate(csv.reader(lines, delimiter=separator, quoting=quoting), 1)
        for number, row in rows:
            name = row[0].strip() if row else ""
            if not name or (number == 1 and name.lower() in _HEADER_NAMES):
                continue
            if len(row) < 2:
                raise VoiceError("voice.bad_list_line", path=path, line=number, separator=separator)
            sources.append(_find_recording(path.parent, name, " ".join(row[-1].split())))
    except csv.Error as error:
        raise VoiceError("voice.not_csv", path=path, error=str(error)) from None
    return sources


def _find_recording(folder: Path, name: str, text: str) -> RecordingSource:
    """The recording of a name, perhaps without its suffix, beside the list or in its folder `wavs`."""
    for place in (folder, folder / "wavs"):
        for suffix in ("", *AUDIO_SUFFIXES):
            path = place / f"{name}{suffix}"
            if path.is_file():
                return RecordingSource(path, text)
    return RecordingSource(folder / name, text, Text("voice.listed_but_missing"))


def find_consent(path: str | None, folder: Path) -> Path:
    """The consent file at `path`, or the one beside the recordings. Raises VoiceError with an example."""
    candidates = [Path(path)] if path else [folder / name for name in CONSENT_NAMES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = " or ".join(map(str, candidates))
    raise VoiceError("voice.no_consent", places=places, example=CONSENT_EXAMPLE)


def read_consent(path: Path) -> dict[str, Any]:
    """The keys speaker, allows, date (if given), file and sha256 of a consent file.

    TOML, or plain text with a line `speaker: …` and a line `allows: …`. Raises VoiceError otherwise.
    """
    if path.stat().st_size > MAX_CONSENT_BYTES:
        raise VoiceError("voice.consent_too_large", path=path, limit=MAX_CONSENT_BYTES)
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text) if path.suffix == ".toml" else _parse_consent_lines(text)
    except UnicodeDecodeError:
        raise VoiceError("voice.consent_not_utf8", path=path) from None
    except tomllib.TOMLDecodeError as error:
        raise VoiceError(
            "voice.consent_not_toml", path=path, error=str(error), example=CONSENT_EXAMPLE
        ) from None
    consent = {name: _to_text(values.get(name)) for name in ("speaker", "allows", "date")}
    if not consent["speaker"]:
        raise VoiceError("voice.consent_without_speaker", path=path, example=CONSENT_EXAMPLE)
    if not consent["allows"]:
        raise VoiceError("voice.consent_without_allows", path=path, example=CONSENT_EXAMPLE)
    return {**consent, "file": path.name, "sha256": compute_sha256(path)}


def _parse_consent_lines(text: str) -> dict[str, str]:
    matches = filter(None, map(_CONSENT_LINE.match, text.splitlines()))
    return {match[1].lower(): match[2] for match in matches}


def _to_text(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(str(part).strip() for part in value)
    return "" if value is None else str(value).strip()
