"""VITS's forward pass in training, over the modules of transformers' VitsModel.

That class speaks only; here its posterior encoder is used, the text is aligned with the sound, and a
piece of the sound is made. Paper: https://arxiv.org/abs/2106.06103. Knows nothing of discriminators.
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
    """Clips of one step, filled up with zeros behind their lengths.

    ids (B, T) and how many are real; spectrogram (B, bins, F) and its frames; samples (B, F * hop);
    speakers (B), of a model with several.
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
    """What the generator made of a batch: `sound` (B, 1, segment * hop) from frame `starts` (B) on,
    the two losses that need no discriminator, and the durations that the alignment found (B, T).
    """

    sound: Tensor
    starts: Tensor
    durations: Tensor
    duration_loss: Tensor
    kl: Tensor


def training_forward(model: Any, batch: ClipBatch, segment: int) -> GeneratorOutput:
    """One pass with gradients; draws the posterior's noise, the pieces' places and dropout."""
    symbols = sequence_mask(batch.symbols, batch.ids.shape[1])
    frames = sequence_mask(batch.frames, batch.spectrogram.shape[2])
    speaker = None
    if model.config.num_speakers > 1:
        speaker = model.embed_speaker(batch.speakers)[:, :, None]
    read = model.text_encoder(
        batch.ids, symbols.transpose(1, 2), attention_mask=symbols[:, 0].long()
    )
    # Likelihoods, splines and logarithms are made in full precision, whatever products run in.
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
    """Of the predictor the model has, a symbol: a bound of -log likelihood, or a squared error of
    logarithms. The text encoder learns nothing from it.
    """
    lasting = durations[:, None]
    if model.config.use_stochastic_duration_prediction:
        bound = stochastic_duration_loss(model.duration_predictor, hidden, mask, lasting, speaker)
        return bound.sum() / mask.sum()
    guessed: Tensor = model.duration_predictor(hidden, mask, speaker)
    wanted = (lasting + 1e-6).log() * mask
    return (guessed - wanted).square().sum() / mask.sum()


def kl_divergence(
    priors: Tensor, spread: Tensor, means: Tensor, deviations: Tensor, mask: Tensor
) -> Tensor:
    """KL divergence of the posterior (log deviations `spread`) from the prior, a frame: all (B, C, F)."""
    apart = deviations - spread - 0.5 + 0.5 * (priors - means).square() * torch.exp(-2 * deviations)
    return (apart * mask).sum() / mask.sum()


def draw_starts(frames: Tensor, segment: int) -> Tensor:
    """A place in each clip where a piece of `segment` frames begins, each as likely, (B)."""
    room = (frames - segment + 1).clamp(min=1)
    # Drawn on the CPU: the order of numbers is one generator's, on every device.
    return (torch.rand(len(frames)) * room.cpu()).long().to(frames.device)


def slice_segments(whole: Tensor, starts: Tensor, length: int) -> Tensor:
    """(B, C, N) -> `length` of each row from `starts` (B) on, (B, C, length)."""
    index = starts[:, None] + torch.arange(length, device=whole.device)[None, :]
    return whole.gather(2, index[:, None].expand(-1, whole.shape[1], -1))
