"""A trained checkpoint becomes a voice folder, as `voice import` makes one. Knows nothing of training."""

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
    """Write `folder` from a work dir's newest checkpoint, or from the one named; whole or not at all.

    Returns what was written, and the number of the speaker that was trained. CheckpointError or
    VoiceError when there is no checkpoint of a voice.
    """
    path = checkpoint.last_checkpoint(source) if source.is_dir() else source
    if path is None:
        raise CheckpointError(
            f"{source} holds no checkpoint: train with 'elysia voice train' first."
        )
    payload = checkpoint.load(path)
    known = payload.get("run_card")
    run = RunCard.from_dict(known) if isinstance(known, dict) else None
    trained = run.extra.get("voice") if run else None
    if run is None or not isinstance(trained, dict):
        raise CheckpointError(
            f"{path} is no checkpoint of a voice: 'elysia voice train' makes them."
        )
    begin = path.parent / initialize.START_FOLDER
    if not (begin / "config.json").is_file():
        raise VoiceError(
            f"{begin} is not there: the checkpoint is read beside the folder it began with."
        )
    model = load_trained_model(begin, payload["state_dict"], path)
    card, number = build_voice_config(begin, trained, path, payload["progress"]["step"], name)
    difference = None
    with staged_folder(
        folder, VoiceError, replaces=lambda old: (old / "voice.json").is_file()
    ) as to:
        initialize.write_generator(model, to)
        card.write(to)
        run.write(to)
        if onnx:
            difference = onnx_runtime.export_onnx(model, to)
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    return ImportResult(folder, card, count, difference), number


def load_trained_model(begin: Path, state: dict[str, Any], path: Path) -> Any:
    """The generator with a checkpoint's weights, ready to speak."""
    model = prepare_for_training(load_vits_model(begin))
    front = f"{GENERATOR}."
    weights = {n.removeprefix(front): t for n, t in state.items() if n.startswith(front)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        words = " ".join(str(error).splitlines()[1:2]).strip()
        raise VoiceError(f"{path} does not belong to {begin}: {words}") from None
    return model.eval()


def build_voice_config(
    begin: Path, trained: dict[str, Any], path: Path, step: int, name: str
) -> tuple[VoiceConfig, int]:
    """The voice's card, which names the speaker, what they allow, and where the weights come from."""
    card = VoiceConfig.read(begin)
    number = card.resolve_speaker(trained["speaker"])
    # Whoever had the trained place has it no longer.
    named = {who: at for who, at in card.speakers.items() if at != number}
    source = {
        "trained": path.name, "step": step, "sha256": compute_sha256(path),
        "consent": trained["consent"], "base": dict(card.source),
    }  # fmt: skip
    return replace(card, speakers={**named, name: number}, source=source), number
