"""VITS's forward pass in training, over the modules of transformers' VitsModel.

That class can only speak. Here its posterior encoder is used, the text is aligned with the sound, and a
segment of the sound is generated. Paper: https://arxiv.org/abs/2106.06103.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elysia.voice.training.durations import (
    log_likelihoods,
    monotonic_path,
    sequence_mask,
    stochastic_duration_loss,
)


@dataclass(frozen=True)
class ClipBatch:
    """The clips of one step, padded with zeros.

    ids (B, T) with their lengths `symbols` (B); spectrogram (B, bins, F) with its lengths `frames` (B);
    samples (B, F * hop); speakers (B), for a model with several.
    """

    ids: Tensor
    symbols: Tensor
    spectrogram: Tensor
    frames: Tensor
    samples: Tensor
    speakers: Tensor

    def to(self, device: torch.device) -> ClipBatch:
        """The same on a device."""
        return ClipBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class GeneratorOutput:
    """What the generator made of a batch: `sound` (B, 1, segment * hop) from frame `starts` (B) on, the
    durations of the alignment in frames (B, T), and the two losses that need no discriminator.
    """

    sound: Tensor
    starts: Tensor
    durations: Tensor
    duration_loss: Tensor
    kl: Tensor


def training_forward(model: Any, batch: ClipBatch, segment: int) -> GeneratorOutput:
    """One pass with gradients. Draws the posterior's noise, the segments' starts and dropout."""
    symbols = sequence_mask(batch.symbols, batch.ids.shape[1])
    frames = sequence_mask(batch.frames, batch.spectrogram.shape[2])
    speaker = None
    if model.config.num_speakers > 1:
        speaker = model.embed_speaker(batch.speakers)[:, :, None]
    read = model.text_encoder(
        batch.ids, symbols.transpose(1, 2), attention_mask=symbols[:, 0].long()
    )
    # Likelihoods, splines and logarithms need full precision, whatever dtype products run in.
    hidden = read.last_hidden_state.transpose(1, 2).float()
    means, deviations = (
        part.transpose(1, 2).float() for part in (read.prior_means, read.prior_log_variances)
    )
    latents, _, spread = model.posterior_encoder(batch.spectrogram, frames, speaker)
    priors = model.flow(latents, frames, speaker).float()
    with torch.no_grad():
        aligned = monotonic_path(
            log_likelihoods(priors, means, deviations), batch.symbols, batch.frames
        )
    durations = aligned.sum(dim=2)
    with torch.autocast(priors.device.type, enabled=False):
        condition = None if speaker is None else speaker.float()
        lasting = duration_loss(model, hidden, symbols, durations, condition)
        kl = kl_divergence(priors, spread.float(), means @ aligned, deviations @ aligned, frames)
    starts = draw_starts(batch.frames, segment)
    sound = model.decoder(slice_segments(latents, starts, segment), speaker)
    return GeneratorOutput(sound.float(), starts, durations, lasting, kl)


def duration_loss(
    model: Any, hidden: Tensor, mask: Tensor, durations: Tensor, speaker: Tensor | None
) -> Tensor:
    """The loss of the model's duration predictor per symbol: a bound on the negative log-likelihood for
    the stochastic one, else the squared error of logarithms. No gradient reaches the text encoder.
    """
    lasting = durations[:, None]
    if model.config.use_stochastic_duration_prediction:
        bound = stochastic_duration_loss(model.duration_predictor, hidden, mask, lasting, speaker)
        return bound.sum() / mask.sum()
    predicted: Tensor = model.duration_predictor(hidden, mask, speaker)
    target = (lasting + 1e-6).log() * mask
    return (predicted - target).square().sum() / mask.sum()


def kl_divergence(
    priors: Tensor, spread: Tensor, means: Tensor, deviations: Tensor, mask: Tensor
) -> Tensor:
    """KL divergence of the posterior from the prior, per frame.

    All (B, C, F): the posterior's latents mapped by the flow, its log deviations `spread`, the prior's
    means and log deviations.
    """
    terms = deviations - spread - 0.5 + 0.5 * (priors - means).square() * torch.exp(-2 * deviations)
    return (terms * mask).sum() / mask.sum()


def draw_starts(frames: Tensor, segment: int) -> Tensor:
    """A uniformly random start of a segment in each clip, in frames, (B)."""
    room = (frames - segment + 1).clamp(min=1)
    # Drawn on the CPU, so that a seed gives the same segments on every device.
    return (torch.rand(len(frames)) * room.cpu()).long().to(frames.device)


def slice_segments(whole: Tensor, starts: Tensor, length: int) -> Tensor:
    """(B, C, N) -> `length` of each row from `starts` (B) on, (B, C, length)."""
    index = starts[:, None] + torch.arange(length, device=whole.device)[None, :]
    return whole.gather(2, index[:, None].expand(-1, whole.shape[1], -1))
