"""A model folder becomes the parts of vits_parts.py in torch, read strictly and without pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import VitsConfig, VitsModel

from elysia.core.errors import VoiceError
from elysia.voice.vits_card import read_json
from elysia.voice.vits_parts import TorchParts

WEIGHTS = "model.safetensors"


def load(folder: Path) -> TorchParts:
    """The parts of a folder. VoiceError when weights are missing, cut short or of another shape."""
    return TorchParts(load_model(folder))


def load_model(folder: Path) -> Any:
    """transformers' VitsModel with the folder's weights, weight norms as they were saved."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise VoiceError(
            f"{folder} has no {WEIGHTS}"
            + (
                "; its weights are a pickle, which is not read here: save them as safetensors."
                if (folder / "pytorch_model.bin").is_file()
                else "."
            )
        )
    config = VitsConfig(**read_json(folder / "config.json"))
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise VoiceError(f"{path} is damaged: {error}") from None
    model = VitsModel(config)
    if any(".resblocks.0" in name and "original0" in name for name in tensors):
        model.decoder.apply_weight_norm()
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        words = str(error).splitlines()
        raise VoiceError(
            f"{path} does not fit its config.json: {' '.join(words[1:3]).strip()}"
        ) from None
    return model.eval()
