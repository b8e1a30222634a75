"""Where recordings and their texts are: beside each other in a folder, or named by a list.

Knows nothing of sound.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elysia.core.errors import VoiceError

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
TRANSCRIPT_SUFFIXES = (".txt", ".lab")
MAX_RECORDINGS = 100_000  # recordings
MAX_LIST_BYTES = 64 * 1024 * 1024  # bytes
MAX_TRANSCRIPT_BYTES = 20_000  # bytes of one transcript
_HEADER_NAMES = {"file", "filename", "name", "path", "id", "wav", "audio"}


@dataclass(frozen=True)
class RecordingSource:
    """A recording and what is said in it; `fault` is why it cannot be used, where that is known."""

    path: Path
    text: str
    fault: str = ""


def find_recordings(recordings: Path) -> list[RecordingSource]:
    """Every recording of a folder, or of a list (`name|text`, or a CSV), in order.

    VoiceError when there is nothing, or a list cannot be read.
    """
    if recordings.is_dir():
        found = _scan_folder(recordings)
    elif recordings.is_file():
        found = _read_list(recordings)
    else:
        raise VoiceError(
            f"There is nothing at {recordings}: name a folder of recordings, or a list."
        )
    if not found:
        raise VoiceError(
            f"{recordings} holds no recordings ({', '.join(AUDIO_SUFFIXES)}). If their texts are in a list, give "
            "the list's path."
        )
    if len(found) > MAX_RECORDINGS:
        raise VoiceError(
            f"{recordings} has {len(found)} recordings; at most {MAX_RECORDINGS} are taken."
        )
    return found


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
    for suffix in TRANSCRIPT_SUFFIXES:
        beside = path.with_suffix(suffix)
        if beside.is_file():
            if beside.stat().st_size > MAX_TRANSCRIPT_BYTES:
                return RecordingSource(
                    path, "", f"its text, {beside.name}, is too long for one recording"
                )
            try:
                return RecordingSource(
                    path, " ".join(beside.read_text(encoding="utf-8-sig").split())
                )
            except UnicodeDecodeError:
                return RecordingSource(path, "", f"its text, {beside.name}, is not UTF-8")
    names = " or ".join(path.with_suffix(suffix).name for suffix in TRANSCRIPT_SUFFIXES)
    return RecordingSource(path, "", f"it has no text beside it ({names})")


def _read_list(path: Path) -> list[RecordingSource]:
    if path.suffix.lower() in AUDIO_SUFFIXES:
        raise VoiceError(f"{path} is one recording: name the folder it is in, or a list.")
    if path.stat().st_size > MAX_LIST_BYTES:
        raise VoiceError(
            f"{path} is larger than {MAX_LIST_BYTES} bytes: it is no list of recordings."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise VoiceError(f"{path} is not UTF-8 text: save the list as UTF-8.") from None
    split = "|" if any("|" in line for line in lines[:5]) else "\t" if _has_tabs(lines) else ","
    quoting: Literal[0, 3] = csv.QUOTE_NONE if split == "|" else csv.QUOTE_MINIMAL
    found = []
    try:
        rows = enumerate(csv.reader(lines, delimiter=split, quoting=quoting), 1)
        for number, row in rows:
            if (
                not row
                or not row[0].strip()
                or (number == 1 and row[0].strip().lower() in _HEADER_NAMES)
            ):
                continue
            if len(row) < 2:
                raise VoiceError(
                    f"{path}, line {number}: it is not 'name{split}text'. (Its first lines are split by "
                    f"'{split}'.)"
                )
            found.append(_find_recording(path.parent, row[0].strip(), " ".join(row[-1].split())))
    except csv.Error as error:
        raise VoiceError(f"{path} is no CSV: {error}.") from None
    return found


def _has_tabs(lines: list[str]) -> bool:
    return any("\t" in line for line in lines[:5])


def _find_recording(folder: Path, name: str, text: str) -> RecordingSource:
    """The recording of a name, which may lack its ending, here or in `wavs` beside the list."""
    for place in (folder, folder / "wavs"):
        for ending in ("", *AUDIO_SUFFIXES):
            path = place / f"{name}{ending}"
            if path.is_file():
                return RecordingSource(path, text)
    return RecordingSource(folder / name, text, "the list names it, and it is not there")
