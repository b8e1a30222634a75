"""VITS's decoder for export: the same output as transformers' VitsHifiGan, in less time.

Context frames are cut off after each stage as soon as no later stage needs them: the first stage needs
many, the last and most expensive ones hardly any. Large convolutions run in Winograd's form.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elysia.voice.vits.config import receptive_fields
from elysia.voice.vits.winograd_conv import WinogradConv1d, from_phases, is_supported, to_phases

MIN_WINOGRAD_SIZE = 256  # channels * taps; below, the additions cost more than the products saved
MAX_PHASES = 16


class FastDecoder(nn.Module):
    """The latents of a window -> the samples of its middle."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        config = decoder.config
        self.decoder = decoder
        self.slope = config.leaky_relu_slope
        _, *self.fields = receptive_fields(config.to_dict())
        self.rates = [math.prod(config.upsample_rates[: i + 1]) for i in range(len(self.fields))]
        self.phases = [min(MAX_PHASES, rate & -rate) for rate in self.rates]
        count = decoder.num_kernels
        self.stages = nn.ModuleList(
            nn.ModuleList(
                FastResidualBlock(block, self.slope, phases)
                for block in decoder.resblocks[i * count : (i + 1) * count]
            )
            for i, phases in enumerate(self.phases)
        )

    def forward(self, latents: Tensor, ends: Tensor, speaker: Tensor | None = None) -> Tensor:
        """latents (1, C, F), ends (2) as numbers of context frames, speaker (1, G, 1)
        -> samples ((F - left - right) * hop).
        """
        x = self.decoder.conv_pre(latents)
        if speaker is not None:
            x = x + self.decoder.cond(speaker)
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            x = self.decoder.upsampler[i](F.leaky_relu(x, self.slope))
            needed = ends.clamp(max=self.fields[i])
            x, ends = trim_samples(x, (ends - needed) * self.rates[i]), needed
            x = sum(block(x) for block in stage) / len(stage)
        x = self.decoder.conv_post(F.leaky_relu(x))
        return trim_samples(torch.tanh(x), ends * self.rates[-1])[0, 0]


def trim_samples(x: Tensor, ends: Tensor) -> Tensor:
    """(1, C, T) without `ends` samples at the left and at the right."""
    return x[:, :, ends[0] : x.shape[2] - ends[1]]


class FastResidualBlock(nn.Module):
    """A residual block whose convolutions are in Winograd's form where that is faster."""

    def __init__(self, block: Any, slope: float, phases: int) -> None:
        super().__init__()
        self.slope = slope
        convs = [*block.convs1, *block.convs2]
        channels, taps = convs[0].in_channels, convs[0].kernel_size[0]
        fast = channels * taps > MIN_WINOGRAD_SIZE and all(
            is_supported(conv, phases) for conv in convs
        )
        self.phases = phases if fast else 0

        def convert(conv: nn.Conv1d) -> nn.Module:
            return WinogradConv1d(conv, phases) if fast else FlatConv(conv)

        self.first = nn.ModuleList(convert(conv) for conv in block.convs1)
        self.second = nn.ModuleList(convert(conv) for conv in block.convs2)

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, T) -> (1, C, T)."""
        x = to_phases(x, self.phases) if self.phases else x[:, :, None]
        for first, second in zip(self.first, self.second, strict=True):
            y = first(F.leaky_relu(x, self.slope))
            x = x + second(F.leaky_relu(y, self.slope))
        return from_phases(x) if self.phases else x[:, :, 0]


class FlatConv(nn.Module):
    """A Conv1d as a Conv2d over one row, (1, C, 1, T): ONNX Runtime has faster kernels for those."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, 1, T) -> (1, C, 1, T)."""
        conv = self.conv
        return F.conv2d(
            x, conv.weight[:, :, None], conv.bias,
            padding=(0, int(conv.padding[0])), dilation=(1, conv.dilation[0]),
        )  # fmt: skip
