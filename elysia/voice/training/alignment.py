"""Which symbol each frame belongs to: the likeliest monotonic path, and the durations it gives.

Paper: https://arxiv.org/abs/2005.11129. The search is the package monotonic-alignment-search's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from elysia.core.errors import VoiceError


def likelihoods(latents: Tensor, means: Tensor, log_deviations: Tensor) -> Tensor:
    """Log-likelihood of every frame under every symbol's Gaussian, summed over channels.

    latents (B, C, F), means and log_deviations (B, C, T) -> (B, T, F), in float32.
    """
    precise = torch.exp(-2 * log_deviations)
    squares = precise.transpose(1, 2) @ (-0.5 * latents.square())
    products = (means * precise).transpose(1, 2) @ latents
    alone = -0.5 * math.log(2 * math.pi) - log_deviations - 0.5 * means.square() * precise
    return squares + products + alone.sum(dim=1)[:, :, None]


def path(scores: Tensor, symbols: Tensor, frames: Tensor) -> Tensor:
    """The path of the highest sum: (B, T, F) of 0 and 1, each frame with one symbol, in order.

    scores (B, T, F); symbols, frames (B) are what of T and F is real. VoiceError when a row has
    fewer frames than symbols: every symbol needs one.
    """
    from monotonic_alignment_search import maximum_path

    if bool((frames < symbols).any()):
        raise VoiceError("A clip has fewer frames than symbols: its text is longer than its sound.")
    mask = _within(symbols, scores.shape[1])[:, :, None] & _within(frames, scores.shape[2])[:, None]
    found: Tensor = maximum_path(scores.float(), mask.to(scores.dtype))
    return found * mask


def _within(lengths: Tensor, most: int) -> Tensor:
    return torch.arange(most, device=lengths.device)[None, :] < lengths[:, None]


def mask_of(lengths: Tensor, most: int) -> Tensor:
    """(B) -> (B, 1, most) of 1 where something is, 0 where a row was filled up."""
    return _within(lengths, most)[:, None].float()
