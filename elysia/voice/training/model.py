"""Generator and discriminators as one module, and the losses of a step.

Knows nothing of optimizers, files of clips or hooks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import VitsModel

from elysia.voice.recordings.spectrogram import Shape, magnitudes, mels
from elysia.voice.training import generator, losses, start
from elysia.voice.training.generator import Batch, Made, pieces
from elysia.voice.vits_load import load_model
from elysia.voice.vits_parts import TorchParts

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class VoiceFinetune(nn.Module):
    """A VITS generator and what it learns against.

    Args:
        folder: the start folder, whose weights are loaded.
        weights: mel, kl, duration, feature, adversarial: what each loss counts.
        mel: bands, low and high (Hz) of the mel loss.
        segment: frames of each clip that are made and judged.
        dtype: what matrix products run in; weights stay in float32.
    """

    def __init__(
        self,
        folder: str,
        weights: dict[str, float],
        mel: dict[str, Any],
        segment: int = 32,
        dtype: str = "float32",
        discriminator_scale: float = 1.0,
        device: str = "auto",
    ) -> None:
        super().__init__()
        self.generator: Any = trainable(load_model(Path(folder)))
        self.discriminator = start.read_discriminators(Path(folder), discriminator_scale)
        self.weights, self.mel, self.segment = dict(weights), dict(mel), segment
        self.shape = Shape.of_model(self.generator.config)
        self.dtype: torch.dtype = getattr(torch, dtype)
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.device = torch.device(name)
        self.to(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Products in `dtype` inside."""
        off = self.dtype == torch.float32
        return torch.autocast(self.device.type, None if off else self.dtype, enabled=not off)

    def make(self, batch: Batch) -> Made:
        """The generator's pass over a batch."""
        with self.autocast():
            return generator.forward(self.generator, batch, self.segment)

    def recorded(self, batch: Batch, made: Made) -> Tensor:
        """What was recorded where `made` was made, (B, 1, segment * hop)."""
        hop = self.shape.hop
        return pieces(batch.samples[:, None], made.starts * hop, self.segment * hop)

    def judge(self, real: Tensor, made: Made) -> Tensor:
        """The discriminators' loss; no gradient reaches the generator."""
        with self.autocast():
            heard = self.discriminator(real), self.discriminator(made.sound.detach())
        return losses.telling_apart(*heard)

    def learn(self, batch: Batch, real: Tensor, made: Made) -> dict[str, Tensor]:
        """The generator's losses, unweighted; no gradient is kept for the discriminators."""
        with _frozen(self.discriminator), self.autocast():
            heard = self.discriminator(made.sound)
            with torch.no_grad():
                known = self.discriminator(real)
        spoken = self._mels(magnitudes(made.sound[:, 0], self.shape))
        wanted = self._mels(pieces(batch.spectrogram, made.starts, self.segment))
        return {
            "mel": F.l1_loss(spoken, wanted),
            "kl": made.kl,
            "duration": made.duration_loss,
            "feature": losses.likeness(known, heard),
            "adversarial": losses.passing(heard),
        }

    def _mels(self, spectrogram: Tensor) -> Tensor:
        return mels(spectrogram, self.shape, self.mel["bands"], self.mel["low"], self.mel["high"])

    def total(self, found: dict[str, Tensor]) -> Tensor:
        """The losses as they are weighed, summed."""
        return torch.stack([self.weights[name] * loss for name, loss in found.items()]).sum()

    def parts(self) -> TorchParts:
        """A copy of the generator that speaks, on the CPU; draws random numbers on the way."""
        # A deep copy shares its modules' classes, from which folding the weight norms would take
        # the original's weights, too.
        copied = trainable(VitsModel(self.generator.config))
        copied.load_state_dict(self.generator.state_dict())
        return TorchParts(copied)

    def trainable_state(self) -> dict[str, Tensor]:
        """Everything that trains, for a checkpoint."""
        return dict(self.state_dict())

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put a checkpoint's weights back."""
        self.load_state_dict(state)


def trainable(model: Any) -> Any:
    """A VitsModel as VITS trains it: weight norms, no layer left out, a blank that learns, too."""
    if not any("resblocks" in name and "original0" in name for name in model.state_dict()):
        model.decoder.apply_weight_norm()
    model.text_encoder.encoder.layerdrop = 0.0
    model.text_encoder.embed_tokens.padding_idx = None
    return model.train()


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through, and none is kept."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
