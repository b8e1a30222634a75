"""Exports a trained checkpoint as a voice folder, like the ones of `voice import`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from elysia.core.errors import CheckpointError, VoiceError
from elysia.core.files import compute_sha256, staged_folder
from elysia.core.run_card import RunCard
from elysia.train import checkpoint
from elysia.voice.training import initialize
from elysia.voice.training.model import GENERATOR, prepare_for_training
from elysia.voice.vits import onnx_runtime
from elysia.voice.vits.checkpoint_import import ImportResult
from elysia.voice.vits.config import VoiceConfig
from elysia.voice.vits.modules import load_vits_model


def export_voice(
    source: Path, folder: Path, *, name: str, onnx: bool = False
) -> tuple[ImportResult, int]:
    """Write `folder` from a checkpoint, or from the newest one of a work dir; completely or not at all.

    Returns what was written, and the number of the speaker that was trained. Raises CheckpointError or
    VoiceError when there is no checkpoint of a voice.
    """
    path = checkpoint.last_checkpoint(source) if source.is_dir() else source
    if path is None:
        raise CheckpointError("voice.no_voice_checkpoint", path=source)
    payload = checkpoint.load(path)
    saved = payload.get("run_card")
    run = RunCard.from_dict(saved) if isinstance(saved, dict) else None
    trained = run.extra.get("voice") if run else None
    if run is None or not isinstance(trained, dict):
        raise CheckpointError("voice.other_checkpoint", path=path)
    start = path.parent / initialize.START_FOLDER
    if not (start / "config.json").is_file():
        raise VoiceError("voice.no_start_folder", path=start)
    model = load_trained_model(start, payload["state_dict"], path)
    config, number = build_voice_config(start, trained, path, payload["progress"]["step"], name)
    difference = None
    with staged_folder(
        folder, VoiceError, replaces=lambda old: (old / "voice.json").is_file()
    ) as to:
        initialize.write_generator(model, to)
        config.write(to)
        run.write(to)
        if onnx:
            difference = onnx_runtime.export_onnx(model, to)
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    return ImportResult(folder, config, count, difference), number


def load_trained_model(start: Path, state: dict[str, Any], path: Path) -> Any:
    """The generator with a checkpoint's weights, ready to speak."""
    model = prepare_for_training(load_vits_model(start))
    prefix = f"{GENERATOR}."
    weights = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[1:2]).strip()
        raise VoiceError(
            "voice.checkpoint_other_start", path=path, start=start, reason=reason
        ) from None
    return model.eval()


def build_voice_config(
    start: Path, trained: dict[str, Any], path: Path, step: int, name: str
) -> tuple[VoiceConfig, int]:
    """The voice's config, with the speaker's name, the consent, and the origin of the weights."""
    config = VoiceConfig.read(start)
    number = config.resolve_speaker(trained["speaker"])
    # The new voice takes the place of the base's speaker with this number.
    others = {speaker: index for speaker, index in config.speakers.items() if index != number}
    source = {
        "trained": path.name, "step": step, "sha256": compute_sha256(path),
        "consent": trained["consent"], "base": dict(config.source),
    }  # fmt: skip
    return replace(config, speakers={**others, name: number}, source=source), number
