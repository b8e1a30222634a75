"""`VoiceFinetune`: generator and discriminators as one module, and the losses of a training step."""

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
    """A VITS generator and the discriminators that it learns against.

    Args:
        folder: the start folder, whose weights are loaded.
        weights: of each loss: mel, kl, duration, feature, adversarial.
        mel: `bands`, `low` and `high` (Hz) of the mel loss.
        segment: frames of each clip that are generated and judged in a step.
        dtype: of matrix products; weights stay in float32.
        discriminator_scale: width of the discriminators relative to VITS's.
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
        """A context in which matrix products run in `dtype`."""
        off = self.dtype == torch.float32
        return torch.autocast(self.device.type, None if off else self.dtype, enabled=not off)

    def generate(self, batch: ClipBatch) -> GeneratorOutput:
        """Run the generator over a batch, with gradients."""
        with self.autocast():
            return generator.training_forward(self.generator, batch, self.segment)

    def recorded_segments(self, batch: ClipBatch, output: GeneratorOutput) -> Tensor:
        """The recorded sound of the segments that were generated, (B, 1, segment * hop)."""
        hop = self.shape.hop
        return slice_segments(batch.samples[:, None], output.starts * hop, self.segment * hop)

    def discriminator_loss(self, real: Tensor, output: GeneratorOutput) -> Tensor:
        """The discriminators' loss; no gradient reaches the generator."""
        with self.autocast():
            outputs = self.discriminator(real), self.discriminator(output.sound.detach())
        return discriminators.discriminator_loss(*outputs)

    def generator_losses(
        self, batch: ClipBatch, real: Tensor, output: GeneratorOutput
    ) -> dict[str, Tensor]:
        """The generator's losses, unweighted; no gradient is stored for the discriminators."""
        with _frozen_parameters(self.discriminator), self.autocast():
            outputs = self.discriminator(output.sound)
            with torch.no_grad():
                real_outputs = self.discriminator(real)
        generated = self._mels(stft_magnitudes(output.sound[:, 0], self.shape))
        expected = self._mels(slice_segments(batch.spectrogram, output.starts, self.segment))
        return {
            "mel": F.l1_loss(generated, expected),
            "kl": output.kl,
            "duration": output.duration_loss,
            "feature": discriminators.feature_matching_loss(real_outputs, outputs),
            "adversarial": discriminators.generator_loss(outputs),
        }

    def _mels(self, spectrogram: Tensor) -> Tensor:
        return log_mel(
            spectrogram, self.shape, self.mel["bands"], self.mel["low"], self.mel["high"]
        )

    def weighted_sum(self, losses: dict[str, Tensor]) -> Tensor:
        """The generator's losses, weighted and summed."""
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()

    def speaking_copy(self) -> TorchBackend:
        """A copy of the generator to speak with, on the CPU. Building it draws random numbers."""
        # Not a deep copy: it would share the classes that weight norm puts on modules, and folding the
        # copy's norms would take the weights from the original, too.
        copy = prepare_for_training(VitsModel(self.generator.config))
        copy.load_state_dict(self.generator.state_dict())
        return TorchBackend(copy)

    def trainable_state(self) -> dict[str, Tensor]:
        """The weights that a checkpoint holds: all of them."""
        return dict(self.state_dict())

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Load the weights of a checkpoint."""
        self.load_state_dict(state)


def prepare_for_training(model: Any) -> Any:
    """A VitsModel as VITS trains it: with weight norms, without layer dropout, and with a blank symbol
    that learns like any other.
    """
    if not any("resblocks" in name and "original0" in name for name in model.state_dict()):
        model.decoder.apply_weight_norm()
    model.text_encoder.encoder.layerdrop = 0.0
    model.text_encoder.embed_tokens.padding_idx = None
    return model.train()


@contextlib.contextmanager
def _frozen_parameters(module: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through `module`, but none is stored for its parameters."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
