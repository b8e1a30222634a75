"""How long symbols last: the monotonic alignment with the sound, and the stochastic predictor's loss.

The loss runs over the modules of transformers' predictor in the order in which VITS trains them. That
class's own training pass flips the two channels once more than its sampling flips them back, so what it
learns is not what it speaks. Papers: https://arxiv.org/abs/2106.06103, section 2.2.2 and appendix, and
for the alignment https://arxiv.org/abs/2005.11129; its search is in monotonic-alignment-search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from elysia.core.errors import VoiceError
from elysia.voice.vits.modules import MIN_BIN, spline_edges

MIN_DURATION = 1e-5  # frames, before their logarithm


def stochastic_duration_loss(
    predictor: Any, hidden: Tensor, mask: Tensor, durations: Tensor, speaker: Tensor | None
) -> Tensor:
    """A bound on the negative log-likelihood of `durations`, (B), summed over symbols.

    hidden (B, H, T), mask and durations (B, 1, T), speaker (B, G, 1). No gradient reaches the text
    encoder and the speakers. Draws noise.
    """
    read = predictor.conv_pre(hidden.detach())
    if speaker is not None:
        read = read + predictor.cond(speaker.detach())
    read = predictor.conv_proj(predictor.conv_dds(read, mask)) * mask
    known = predictor.post_conv_dds(predictor.post_conv_pre(durations), mask)
    known = predictor.post_conv_proj(known) * mask

    noise = torch.randn(len(hidden), 2, hidden.shape[2], device=hidden.device) * mask
    drawn, grown = _run_flows(predictor.post_flows, noise, mask, read + known)
    fraction, second = drawn.chunk(2, dim=1)
    # A random fraction of a frame is subtracted: integers alone have no density.
    grown = grown + _masked_sum(F.logsigmoid(fraction) + F.logsigmoid(-fraction), mask)
    posterior = _masked_sum(_normal_log_density(noise), mask) - grown

    lasting = (durations - fraction.sigmoid() * mask) * mask
    lasting = lasting.clamp(min=MIN_DURATION).log() * mask
    latents, shrunk = _run_flows(predictor.flows, torch.cat([lasting, second], dim=1), mask, read)
    shrunk = shrunk - _masked_sum(lasting, mask)
    return posterior - _masked_sum(_normal_log_density(latents), mask) - shrunk


def _normal_log_density(values: Tensor) -> Tensor:
    return -0.5 * (math.log(2 * math.pi) + values.square())


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(dim=(1, 2))


def _run_flows(
    flows: Sequence[Any], latents: Tensor, mask: Tensor, condition: Tensor
) -> tuple[Tensor, Tensor]:
    """An affine flow, then couplings with the channels flipped after each; and the log determinant."""
    affine, *couplings = flows
    latents = (affine.translate + affine.log_scale.exp() * latents) * mask
    grown = _masked_sum(affine.log_scale, mask)
    for coupling in couplings:
        latents, more = _run_coupling(coupling, latents, mask, condition)
        latents, grown = latents.flip(1), grown + more
    return latents, grown


def _run_coupling(
    flow: Any, latents: Tensor, mask: Tensor, condition: Tensor
) -> tuple[Tensor, Tensor]:
    """The second channel through a spline whose shape depends on the first."""
    first, second = latents.chunk(2, dim=1)
    shape = flow.conv_proj(flow.conv_dds(flow.conv_pre(first), mask, condition)) * mask
    shape = shape.unflatten(1, (1, 3 * flow.num_bins - 1)).transpose(2, 3)
    scale = math.sqrt(flow.filter_channels)
    widths, heights = shape[..., : flow.num_bins], shape[..., flow.num_bins : 2 * flow.num_bins]
    slopes = shape[..., 2 * flow.num_bins :]
    second, steepness = rational_quadratic_spline(
        second, widths / scale, heights / scale, slopes, flow.tail_bound
    )
    return torch.cat([first, second], dim=1) * mask, _masked_sum(steepness, mask)


def rational_quadratic_spline(
    inputs: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """A monotonic rational-quadratic spline, the identity outside of ±bound, and the log of its slope.

    inputs (B, 1, T), widths and heights (B, 1, T, bins), slopes (B, 1, T, bins - 1), unnormalised.
    `vits.modules.inverse_spline` is its inverse. https://arxiv.org/abs/1906.04032, equations 4 and 5.
    """
    inside = inputs.clamp(-bound, bound)
    across, up = spline_edges(widths, bound), spline_edges(heights, bound)
    steep = F.pad(MIN_BIN + F.softplus(slopes), (1, 1), value=1.0)
    index = (inside[..., None] >= across[..., 1:-1]).sum(dim=-1, keepdim=True)

    def at(values: Tensor) -> Tensor:
        return values.gather(-1, index)[..., 0]

    width, height = at(across.diff(dim=-1)), at(up.diff(dim=-1))
    slope, before, after = height / width, at(steep[..., :-1]), at(steep[..., 1:])
    part = (inside - at(across[..., :-1])) / width
    both = part * (1 - part)
    below = slope + (before + after - 2 * slope) * both
    outputs = at(up[..., :-1]) + height * (slope * part.square() + before * both) / below
    rising = after * part.square() + 2 * slope * both + before * (1 - part).square()
    steepness = 2 * slope.log() + rising.log() - 2 * below.log()
    within = inputs.abs() <= bound
    return torch.where(within, outputs, inputs), torch.where(within, steepness, 0.0)


def log_likelihoods(latents: Tensor, means: Tensor, log_deviations: Tensor) -> Tensor:
    """The log-likelihood of every frame under every symbol's Gaussian, summed over channels.

    latents (B, C, F), means and log_deviations (B, C, T) -> (B, T, F), in float32.
    """
    precise = torch.exp(-2 * log_deviations)
    squares = precise.transpose(1, 2) @ (-0.5 * latents.square())
    products = (means * precise).transpose(1, 2) @ latents
    alone = -0.5 * math.log(2 * math.pi) - log_deviations - 0.5 * means.square() * precise
    return squares + products + alone.sum(dim=1)[:, :, None]


def monotonic_path(scores: Tensor, symbols: Tensor, frames: Tensor) -> Tensor:
    """The monotonic alignment with the highest sum of scores: (B, T, F) of 0 and 1.

    scores (B, T, F); symbols and frames (B) are the lengths without padding. Raises VoiceError when a
    row has fewer frames than symbols, because every symbol needs one.
    """
    from monotonic_alignment_search import maximum_path

    if bool((frames < symbols).any()):
        raise VoiceError("voice.fewer_frames_than_symbols")
    mask = (
        _length_mask(symbols, scores.shape[1])[:, :, None]
        & _length_mask(frames, scores.shape[2])[:, None]
    )
    path: Tensor = maximum_path(scores.float(), mask.to(scores.dtype))
    return path * mask


def _length_mask(lengths: Tensor, most: int) -> Tensor:
    return torch.arange(most, device=lengths.device)[None, :] < lengths[:, None]


def sequence_mask(lengths: Tensor, most: int) -> Tensor:
    """Lengths (B) -> (B, 1, most) of 1 inside a row's length and 0 in its padding."""
    return _length_mask(lengths, most)[:, None].float()
