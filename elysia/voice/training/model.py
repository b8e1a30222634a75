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

from elysia.voice.dataset.spectrogram import SpectrogramConfig, log_mel, stft_magnitudes
from elysia.voice.training import discriminators, generator, initialize
from elysia.voice.training.generator import ClipBatch, GeneratorOutput, slice_segments
from elysia.voice.vits.modules import TorchBackend, load_vits_model

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
        self.generator: Any = prepare_for_training(load_vits_model(Path(folder)))
        self.discriminator = initialize.load_discriminators(Path(folder), discriminator_scale)
        self.weights, self.mel, self.segment = dict(weights), dict(mel), segment
        self.shape = SpectrogramConfig.from_model(self.generator.config)
        self.dtype: torch.dtype = getattr(torch, dtype)
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.device = torch.device(name)
        self.to(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Products in `dtype` inside."""
        off = self.dtype == torch.float32
        return torch.autocast(self.device.type, None if off else self.dtype, enabled=not off)

    def make(self, batch: ClipBatch) -> GeneratorOutput:
        """The generator's pass over a batch."""
        with self.autocast():
            return generator.training_forward(self.generator, batch, self.segment)

    def recorded(self, batch: ClipBatch, made: GeneratorOutput) -> Tensor:
        """What was recorded where `made` was made, (B, 1, segment * hop)."""
        hop = self.shape.hop
        return slice_segments(batch.samples[:, None], made.starts * hop, self.segment * hop)

    def judge(self, real: Tensor, made: GeneratorOutput) -> Tensor:
        """The discriminators' loss; no gradient reaches the generator."""
        with self.autocast():
            heard = self.discriminator(real), self.discriminator(made.sound.detach())
        return discriminators.discriminator_loss(*heard)

    def learn(self, batch: ClipBatch, real: Tensor, made: GeneratorOutput) -> dict[str, Tensor]:
        """The generator's losses, unweighted; no gradient is kept for the discriminators."""
        with _frozen_parameters(self.discriminator), self.autocast():
            heard = self.discriminator(made.sound)
            with torch.no_grad():
                known = self.discriminator(real)
        spoken = self._mels(stft_magnitudes(made.sound[:, 0], self.shape))
        wanted = self._mels(slice_segments(batch.spectrogram, made.starts, self.segment))
        return {
            "mel": F.l1_loss(spoken, wanted),
            "kl": made.kl,
            "duration": made.duration_loss,
            "feature": discriminators.feature_matching_loss(known, heard),
            "adversarial": discriminators.generator_loss(heard),
        }

    def _mels(self, spectrogram: Tensor) -> Tensor:
        return log_mel(
            spectrogram, self.shape, self.mel["bands"], self.mel["low"], self.mel["high"]
        )

    def total(self, found: dict[str, Tensor]) -> Tensor:
        """The losses as they are weighed, summed."""
        return torch.stack([self.weights[name] * loss for name, loss in found.items()]).sum()

    def parts(self) -> TorchBackend:
        """A copy of the generator that speaks, on the CPU; draws random numbers on the way."""
        # A deep copy shares its modules' classes, from which folding the weight norms would take
        # the original's weights, too.
        copied = prepare_for_training(VitsModel(self.generator.config))
        copied.load_state_dict(self.generator.state_dict())
        return TorchBackend(copied)

    def trainable_state(self) -> dict[str, Tensor]:
        """Everything that trains, for a checkpoint."""
        return dict(self.state_dict())

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put a checkpoint's weights back."""
        self.load_state_dict(state)


def prepare_for_training(model: Any) -> Any:
    """A VitsModel as VITS trains it: weight norms, no layer left out, a blank that learns, too."""
    if not any("resblocks" in name and "original0" in name for name in model.state_dict()):
        model.decoder.apply_weight_norm()
    model.text_encoder.encoder.layerdrop = 0.0
    model.text_encoder.embed_tokens.padding_idx = None
    return model.train()


@contextlib.contextmanager
def _frozen_parameters(module: nn.Module) -> Iterator[None]:
    """Gradients pass through, and none is kept."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
