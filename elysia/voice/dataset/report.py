"""What became of every recording: report.txt, report.json and report.html. Knows nothing of sound."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elysia.core import html_report
from elysia.core.files import write_atomic
from elysia.voice.dataset.manifest import ClipManifest

MAX_TABLE_ROWS = 500  # of a table on the page


@dataclass(frozen=True)
class RecordingResult:
    """A recording: left out when it has a `fault`, else with remarks; `loudness` (LUFS) and `cut`
    (seconds of silence) as it came."""

    source: str
    text: str
    fault: str = ""
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0
    loudness: float = 0.0
    cut: float = 0.0


def write_report(folder: Path, manifest: ClipManifest, judged: Sequence[RecordingResult]) -> None:
    """All three files into `folder`."""
    write_atomic(folder / "report.txt", report_text(manifest, judged))
    data = {**summarize(manifest, judged), "recordings": [asdict(one) for one in judged]}
    write_atomic(folder / "report.json", json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    write_atomic(folder / "report.html", report_html(manifest, judged))


def summarize(manifest: ClipManifest, judged: Sequence[RecordingResult]) -> dict[str, Any]:
    """The figures of the whole."""
    kept = [one for one in judged if not one.fault]
    return {
        "speaker": manifest.consent["speaker"],
        "recordings": len(judged),
        "kept": len(kept),
        "left_out": len(judged) - len(kept),
        "with_remarks": sum(bool(one.remarks) for one in kept),
        "seconds": round(manifest.seconds, 2),
        "longest": round(max(one.seconds for one in kept), 2),
        "shortest": round(min(one.seconds for one in kept), 2),
        "silence_cut": round(sum(one.cut for one in kept), 2),
        "shape": manifest.shape.to_dict(),
    }


def report_text(manifest: ClipManifest, judged: Sequence[RecordingResult]) -> str:
    """The report as lines to read."""
    found = summarize(manifest, judged)
    lines = [
        f"{found['kept']} of {found['recordings']} recordings of {found['speaker']} can be used: "
        f"{found['seconds'] / 60:.1f} minutes, clips of {found['shortest']:.1f} to "
        f"{found['longest']:.1f} s, {found['silence_cut']:.1f} s of silence cut.",
    ]
    lines += [f"left out: {one.source}: {one.fault}." for one in judged if one.fault]
    lines += [
        f"note: {one.source}: {'; '.join(one.remarks)}."
        for one in judged
        if one.remarks and not one.fault
    ]
    return "\n".join(lines) + "\n"


def report_html(manifest: ClipManifest, judged: Sequence[RecordingResult]) -> str:
    """A page with plots and tables; loads nothing."""
    kept = [one for one in judged if not one.fault]
    left = [(one.source, one.fault) for one in judged if one.fault]
    odd = [(one.source, "; ".join(one.remarks)) for one in kept if one.remarks]
    figures = summarize(manifest, judged)
    shape = figures.pop("shape")
    parts = [
        html_report.table(("", ""), [*figures.items(), *shape.items()]),
        html_report.paragraph(f"Allowed by {figures['speaker']}: {manifest.consent['allows']}"),
        html_report.bar_chart(
            "Clips by length (s)", count_by_step([one.seconds for one in kept], 1.0)
        ),
        html_report.bar_chart(
            "Loudness as recorded (LUFS)", count_by_step([one.loudness for one in kept], 3.0)
        ),
        html_report.bar_chart(
            "Characters a second",
            count_by_step([len("".join(one.text.split())) / one.seconds for one in kept], 1.0),
        ),
    ]
    for title, rows in (("Left out", left), ("Notes", odd)):
        if rows:
            parts += [
                html_report.heading(title),
                html_report.table(("recording", "why"), rows[:MAX_TABLE_ROWS]),
            ]
    return html_report.render_page(f"Recordings of {figures['speaker']}", *parts)


def count_by_step(values: Sequence[float], step: float) -> dict[str, float]:
    """How many values lie in each step, by the step's lower end, empty ones between counted, too.

    >>> count_by_step([0.2, 0.9, 2.5], 1.0)
    {'0': 2, '1': 0, '2': 1}
    """
    counts = Counter(int(value // step) for value in values)
    return {f"{n * step:g}": counts[n] for n in range(min(counts), max(counts) + 1)}
