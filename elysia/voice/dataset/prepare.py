"""`prepare_dataset`: a folder of recordings becomes a folder to train on, with a report on each of them.

The folder holds `wavs/`, `spectrograms/`, `manifest.json`, the consent file, and the report as text, JSON
and HTML.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elysia.core import html_report
from elysia.core.errors import VoiceError
from elysia.core.files import staged_folder, write_atomic
from elysia.core.i18n import Text
from elysia.voice.audio import encode_wav
from elysia.voice.base import AudioChunk
from elysia.voice.dataset import audio_cleaning, sources
from elysia.voice.dataset.manifest import MANIFEST_FILE, AudioClip, ClipManifest
from elysia.voice.dataset.spectrogram import SpectrogramConfig, stft_magnitudes
from elysia.voice.frontend.pipeline import normalize_text
from elysia.voice.vits.config import VoiceConfig

MIN_CLIP_SECONDS = 0.4  # the block over which loudness is measured
# Above this, text and sound may not belong together.
MAX_SECONDS_PER_LETTER = 1.5
MAX_TABLE_ROWS = 500  # of the HTML report


@dataclass(frozen=True)
class ClipRequirements:
    """What clips must be: text that `config` has symbols for, a length in seconds, a spectrogram."""

    config: VoiceConfig
    shape: SpectrogramConfig
    shortest: float = 0.7
    longest: float = 15.0

    def __post_init__(self) -> None:
        self.shape.validate()
        if not MIN_CLIP_SECONDS < self.shortest < self.longest:
            raise VoiceError(
                "voice.bad_clip_limits", shortest=f"{self.shortest:g}", longest=f"{self.longest:g}"
            )


@dataclass(frozen=True)
class RecordingResult:
    """What became of a recording: `fault` if it is left out, else remarks.

    `loudness` (LUFS) and `cut` (seconds of silence) are of the recording as it came.
    """

    source: str
    text: str
    fault: Text | None = None
    remarks: tuple[Text, ...] = ()
    seconds: float = 0.0
    loudness: float = 0.0
    cut: float = 0.0


def prepare_dataset(
    recordings: Path,
    out: Path,
    requirements: ClipRequirements,
    consent_file: str | None = None,
    progress: Callable[[int, int], None] = lambda count, total: None,
) -> tuple[ClipManifest, list[RecordingResult]]:
    """Write `out`, completely or not at all; returns its manifest and a result for every recording.

    Raises VoiceError without consent, for sources that cannot be read, and when no recording is usable.
    """
    beside = recordings if recordings.is_dir() else recordings.parent
    consent_path = sources.find_consent(consent_file, beside)
    consent = sources.read_consent(consent_path)
    recording_sources = sources.find_recordings(recordings)
    with staged_folder(out, VoiceError, replaces=lambda old: (old / MANIFEST_FILE).is_file()) as to:
        for name in ("wavs", "spectrograms"):
            (to / name).mkdir()
        clips: list[AudioClip] = []
        results: list[RecordingResult] = []
        digests: dict[str, str] = {}
        for number, source in enumerate(recording_sources, 1):
            result, clip = _prepare_clip(source, requirements, len(clips) + 1, digests, to)
            results.append(result)
            clips += [clip] if clip else []
            progress(number, len(recording_sources))
        if not clips:
            raise VoiceError(
                "voice.no_usable_recording", count=len(results), folder=recordings,
                first=results[0].source, fault=results[0].fault,
            )  # fmt: skip
        manifest = ClipManifest(tuple(clips), requirements.shape, consent)
        manifest.write(to)
        (to / consent_path.name).write_bytes(consent_path.read_bytes())
        write_report(to, manifest, results)
    return manifest, results


def _prepare_clip(
    source: sources.RecordingSource,
    requirements: ClipRequirements,
    number: int,
    digests: dict[str, str],
    to: Path,
) -> tuple[RecordingResult, AudioClip | None]:
    """Write a recording as clip `number`, or say why it is left out.

    `digests` maps the hash of every clip so far to its recording.
    """
    name = source.path.name
    if source.fault:
        return RecordingResult(name, source.text, source.fault), None
    try:
        symbols, remarks = _count_symbols(source.text, requirements.config)
        clean = audio_cleaning.load_clean_audio(source.path, requirements.shape.rate)
        remarks += _audio_remarks(clean, requirements)
        data = audio_cleaning.to_pcm16(clean.samples)
        _check_length(len(data) // 2, symbols, requirements)
        digest = hashlib.sha256(data).hexdigest()
        if digest in digests:
            raise VoiceError("voice.clip_duplicate", other=digests[digest])
        digests[digest] = name
    except VoiceError as error:
        return RecordingResult(name, source.text, Text(error.code, error.params)), None
    seconds = len(data) / 2 / requirements.shape.rate
    if seconds > MAX_SECONDS_PER_LETTER * max(1, len("".join(source.text.split()))):
        remarks.append(Text("voice.remark_short_text"))
    clip = _write_clip(to, number, data, requirements.shape, source)
    result = RecordingResult(
        name, source.text, None, tuple(remarks), seconds, clean.source_loudness, clean.cut
    )
    return result, clip


def _count_symbols(text: str, config: VoiceConfig) -> tuple[int, list[Text]]:
    """How many ids a text has in the model's symbols, and remarks. Raises VoiceError when it has none."""
    if not text.strip():
        raise VoiceError("voice.clip_no_text")
    cleaned = config.clean_text(normalize_text(text))
    lost = sorted({char for char in cleaned.symbols if char not in set(config.symbols)})
    if cleaned.unsaid:
        raise VoiceError("voice.clip_unsaid", text=" ".join(cleaned.unsaid)[:60])
    ids = config.encode_symbols(cleaned.symbols)
    if not ids:
        raise VoiceError("voice.clip_unspeakable")
    return len(ids), [
        Text("voice.remark_lost_symbols", {"symbols": " ".join(lost)})
    ] if lost else []


def _audio_remarks(clean: audio_cleaning.CleanAudio, requirements: ClipRequirements) -> list[Text]:
    remarks = []
    if clean.source_rate < requirements.shape.rate:
        limits = {"rate": clean.source_rate, "limit": clean.source_rate // 2}
        remarks.append(Text("voice.remark_low_rate", limits))
    if clean.clipped:
        remarks.append(Text("voice.remark_clipped", {"share": f"{clean.clipped:.2%}"}))
    return remarks


def _check_length(samples: int, symbols: int, requirements: ClipRequirements) -> None:
    shape, seconds = requirements.shape, samples / requirements.shape.rate
    if seconds < requirements.shortest:
        limit = f"{requirements.shortest:g}"
        raise VoiceError("voice.clip_below_shortest", seconds=f"{seconds:.2f}", limit=limit)
    if seconds > requirements.longest:
        limit = f"{requirements.longest:g}"
        raise VoiceError("voice.clip_above_longest", seconds=f"{seconds:.2f}", limit=limit)
    if samples // shape.hop < symbols:
        # Each symbol needs a frame of its own, or no alignment exists.
        raise VoiceError("voice.clip_text_too_long", symbols=symbols, frames=samples // shape.hop)


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


def write_report(folder: Path, manifest: ClipManifest, results: Sequence[RecordingResult]) -> None:
    """Write report.txt, report.json and report.html into `folder`."""
    write_atomic(folder / "report.txt", report_text(manifest, results))
    recordings = [
        {
            **asdict(result),
            "fault": str(result.fault or ""),
            "remarks": [str(remark) for remark in result.remarks],
        }
        for result in results
    ]
    data = {**summarize(manifest, results), "recordings": recordings}
    write_atomic(folder / "report.json", json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    write_atomic(folder / "report.html", report_html(manifest, results))


def summarize(manifest: ClipManifest, results: Sequence[RecordingResult]) -> dict[str, Any]:
    """The figures of the whole dataset."""
    usable = [result for result in results if not result.fault]
    return {
        "speaker": manifest.consent["speaker"],
        "recordings": len(results),
        "kept": len(usable),
        "left_out": len(results) - len(usable),
        "with_remarks": sum(bool(result.remarks) for result in usable),
        "seconds": round(manifest.seconds, 2),
        "longest": round(max(result.seconds for result in usable), 2),
        "shortest": round(min(result.seconds for result in usable), 2),
        "silence_cut": round(sum(result.cut for result in usable), 2),
        "shape": manifest.shape.to_dict(),
    }


def _join_remarks(result: RecordingResult) -> str:
    return "; ".join(map(str, result.remarks))


def report_text(manifest: ClipManifest, results: Sequence[RecordingResult]) -> str:
    """The report as plain text."""
    figures = summarize(manifest, results)
    lines = [
        f"{figures['kept']} of {figures['recordings']} recordings of {figures['speaker']} can be used: "
        f"{figures['seconds'] / 60:.1f} minutes, clips of {figures['shortest']:.1f} to "
        f"{figures['longest']:.1f} s, {figures['silence_cut']:.1f} s of silence cut."
    ]
    lines += [f"left out: {result.source}: {result.fault}." for result in results if result.fault]
    lines += [
        f"note: {result.source}: {_join_remarks(result)}."
        for result in results
        if result.remarks and not result.fault
    ]
    return "\n".join(lines) + "\n"


def report_html(manifest: ClipManifest, results: Sequence[RecordingResult]) -> str:
    """The report as a self-contained page with plots and tables."""
    usable = [result for result in results if not result.fault]
    left_out = [(result.source, str(result.fault)) for result in results if result.fault]
    notes = [(result.source, _join_remarks(result)) for result in usable if result.remarks]
    figures = summarize(manifest, results)
    shape = figures.pop("shape")
    seconds = count_by_step([result.seconds for result in usable], 1.0)
    loudness = count_by_step([result.loudness for result in usable], 3.0)
    pace = [len("".join(result.text.split())) / result.seconds for result in usable]
    parts = [
        html_report.table(("", ""), [*figures.items(), *shape.items()]),
        html_report.paragraph(f"Allowed by {figures['speaker']}: {manifest.consent['allows']}"),
        html_report.bar_chart("Clips by length (s)", seconds),
        html_report.bar_chart("Loudness as recorded (LUFS)", loudness),
        html_report.bar_chart("Characters a second", count_by_step(pace, 1.0)),
    ]
    for title, rows in (("Left out", left_out), ("Notes", notes)):
        if rows:
            table = html_report.table(("recording", "why"), rows[:MAX_TABLE_ROWS])
            parts += [html_report.heading(title), table]
    return html_report.render_page(f"Recordings of {figures['speaker']}", *parts)


def count_by_step(values: Sequence[float], step: float) -> dict[str, float]:
    """A histogram: how many values lie in each step, by its lower end; empty steps in between count 0.

    >>> count_by_step([0.2, 0.9, 2.5], 1.0)
    {'0': 2, '1': 0, '2': 1}
    """
    counts = Counter(int(value // step) for value in values)
    return {f"{n * step:g}": counts[n] for n in range(min(counts), max(counts) + 1)}
