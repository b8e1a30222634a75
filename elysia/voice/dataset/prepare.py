"""`prepare_dataset`: a folder of recordings becomes a folder to train on, with a report of what was left out.

Knows nothing of training, and prints nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elysia.core.errors import VoiceError
from elysia.core.files import staged_folder
from elysia.voice.audio import encode_wav
from elysia.voice.base import AudioChunk
from elysia.voice.dataset import audio_cleaning, consent, report, sources
from elysia.voice.dataset.manifest import MANIFEST_FILE, AudioClip, ClipManifest
from elysia.voice.dataset.report import RecordingResult
from elysia.voice.dataset.spectrogram import SpectrogramConfig, stft_magnitudes
from elysia.voice.frontend.pipeline import normalize_text as said_of
from elysia.voice.vits.config import VoiceConfig

MAX_SECONDS_PER_LETTER = (
    1.5  # seconds a letter or syllable of text, above which text and sound may not belong together
)


@dataclass(frozen=True)
class ClipRequirements:
    """What clips must be: whose symbols (`card`), the shape of the sound, and seconds."""

    card: VoiceConfig
    shape: SpectrogramConfig
    shortest: float = 0.7
    longest: float = 15.0

    def __post_init__(self) -> None:
        self.shape.check()
        if not 0.4 < self.shortest < self.longest:
            raise VoiceError(
                f"Clips from {self.shortest:g} to {self.longest:g} s cannot be: the shortest must be above "
                "0.4 s and below the longest."
            )


def prepare_dataset(
    recordings: Path,
    out: Path,
    wanted: ClipRequirements,
    consent_file: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[ClipManifest, list[RecordingResult]]:
    """Write `out`, whole or not at all; returns its manifest and a judgement of every recording.

    VoiceError without consent, for sources that cannot be read, and when no recording can be used.
    """
    beside = recordings if recordings.is_dir() else recordings.parent
    allowed = consent.find_consent(consent_file, beside)
    agreed = consent.read_consent(allowed)
    found = sources.find_recordings(recordings)
    with staged_folder(out, VoiceError, replaces=lambda old: (old / MANIFEST_FILE).is_file()) as to:
        for name in ("wavs", "spectrograms"):
            (to / name).mkdir()
        clips: list[AudioClip] = []
        judged: list[RecordingResult] = []
        known: dict[str, str] = {}
        for number, source in enumerate(found, 1):
            judgement, clip = _prepare_clip(source, wanted, len(clips) + 1, known, to)
            judged.append(judgement)
            clips += [clip] if clip else []
            progress(number, len(found))
        if not clips:
            first = judged[0]
            raise VoiceError(
                f"None of the {len(judged)} recordings of {recordings} can be used, so nothing was "
                f"written. The first, {first.source}: {first.fault}."
            )
        manifest = ClipManifest(tuple(clips), wanted.shape, agreed)
        manifest.write(to)
        (to / allowed.name).write_bytes(allowed.read_bytes())
        report.write_report(to, manifest, judged)
    return manifest, judged


def _prepare_clip(
    source: sources.RecordingSource,
    wanted: ClipRequirements,
    number: int,
    known: dict[str, str],
    to: Path,
) -> tuple[RecordingResult, AudioClip | None]:
    """A recording as clip `number`, its files written, or why it is left out."""
    name = source.path.name
    try:
        if source.fault:
            raise VoiceError(source.fault)
        symbols, remarks = _count_symbols(source.text, wanted.card)
        clean = audio_cleaning.load_clean_audio(source.path, wanted.shape.rate)
        remarks += _audio_remarks(clean, wanted)
        data = audio_cleaning.to_pcm16(clean.samples)
        _check_length(len(data) // 2, symbols, wanted)
        seconds = len(data) / 2 / wanted.shape.rate
        digest = hashlib.sha256(data).hexdigest()
        if digest in known:
            raise VoiceError(f"it is the same sound as {known[digest]}")
        known[digest] = name
    except VoiceError as error:
        return RecordingResult(name, source.text, str(error)), None
    if seconds > MAX_SECONDS_PER_LETTER * max(1, len("".join(source.text.split()))):
        remarks.append("its text is short for its length: does it belong to it?")
    clip = _write_clip(to, number, data, wanted.shape, source)
    return (
        RecordingResult(
            name, source.text, "", tuple(remarks), seconds, clean.came_loudness, clean.cut
        ),
        clip,
    )


def _count_symbols(text: str, card: VoiceConfig) -> tuple[int, list[str]]:
    """How many ids a text has in the model's writing, and remarks. VoiceError when it has none."""
    if not text.strip():
        raise VoiceError("its text is empty")
    cleaned = card.clean_text(said_of(text))
    lost = sorted({char for char in cleaned.symbols if char not in set(card.symbols)})
    if cleaned.unsaid:
        raise VoiceError(
            f"its text cannot all be said in the model's symbols: {' '.join(cleaned.unsaid)[:60]}"
        )
    ids = card.ids(cleaned.symbols)
    if not ids:
        raise VoiceError("nothing of its text can be said")
    return len(ids), [f"the model has no symbol for {' '.join(lost)}"] if lost else []


def _audio_remarks(clean: audio_cleaning.CleanAudio, wanted: ClipRequirements) -> list[str]:
    found = []
    if clean.came_rate < wanted.shape.rate:
        found.append(
            f"it was recorded at {clean.came_rate} Hz: nothing above {clean.came_rate // 2} Hz is in it"
        )
    if clean.clipped:
        found.append(f"{clean.clipped:.2%} of its samples are clipped")
    return found


def _check_length(samples: int, symbols: int, wanted: ClipRequirements) -> None:
    shape, seconds = wanted.shape, samples / wanted.shape.rate
    if not wanted.shortest <= seconds <= wanted.longest:
        side = "shorter" if seconds < wanted.shortest else "longer"
        limit = wanted.shortest if seconds < wanted.shortest else wanted.longest
        raise VoiceError(f"it sounds for {seconds:.2f} s, {side} than {limit:g} s")
    if samples // shape.hop < symbols:
        raise VoiceError(
            f"its text has {symbols} symbols, blanks counted, for {samples // shape.hop} frames: it is "
            "longer than its sound"
        )


def _write_clip(
    to: Path, number: int, data: bytes, shape: SpectrogramConfig, source: sources.RecordingSource
) -> AudioClip:
    import torch

    name = f"{number:05d}"
    (to / "wavs" / f"{name}.wav").write_bytes(encode_wav([AudioChunk(data, shape.rate)]))
    samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    spectrogram = stft_magnitudes(torch.from_numpy(samples)[None], shape)[0].numpy()
    np.save(to / "spectrograms" / f"{name}.npy", spectrogram, allow_pickle=False)
    return AudioClip(
        f"wavs/{name}.wav", f"spectrograms/{name}.npy", source.text,
        round(len(samples) / shape.rate, 4), spectrogram.shape[1], source.path.name,
    )  # fmt: skip
