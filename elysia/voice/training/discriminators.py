"""HiFi-GAN's discriminators, as VITS uses them, and the adversarial losses.

One discriminator over the plain sound, and one for each of five periods. The tensors have the names and
shapes of VITS's D_*.pth. Papers: https://arxiv.org/abs/2010.05646 (HiFi-GAN), and for the least-squares
losses https://arxiv.org/abs/1611.04076.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from elysia.core.errors import VoiceError
from elysia.voice.vits.checkpoint_import import read_checkpoint

PERIODS = (2, 3, 5, 7, 11)
SLOPE = 0.1
DiscriminatorOutput = tuple[Tensor, list[Tensor]]  # scores (B, N), and the output of every layer

# channels, kernel, stride of the layers over plain sound, and over a period's rows
_SCALE_LAYERS = ((16, 15, 1), (64, 41, 4), (256, 41, 4), (1024, 41, 4), (1024, 41, 4), (1024, 5, 1))
_PERIOD_LAYERS = ((32, 3), (128, 3), (512, 3), (1024, 3), (1024, 1))


class ScaleDiscriminator(nn.Module):
    """Over the plain samples; `scale` is its width relative to VITS's."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        into = 1
        for number, (channels, kernel, stride) in enumerate(_SCALE_LAYERS):
            out = _scaled_width(channels, scale)
            # Groups have four input channels, except in the first and the last layer.
            groups = 1 if number in (0, len(_SCALE_LAYERS) - 1) else max(1, into // 4)
            conv = nn.Conv1d(into, out, kernel, stride, kernel // 2, groups=groups)
            self.convs.append(weight_norm(conv))
            into = out
        self.conv_post = weight_norm(nn.Conv1d(into, 1, 3, padding=1))

    def forward(self, sound: Tensor) -> DiscriminatorOutput:
        """(B, 1, S) -> a verdict and the layers' outputs."""
        return _run_layers(self, sound)


class PeriodDiscriminator(nn.Module):
    """Over every `period`-th sample."""

    def __init__(self, period: int, scale: float = 1.0) -> None:
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList()
        into = 1
        for channels, stride in _PERIOD_LAYERS:
            out = _scaled_width(channels, scale)
            conv = nn.Conv2d(into, out, (5, 1), (stride, 1), padding=(2, 0))
            self.convs.append(weight_norm(conv))
            into = out
        self.conv_post = weight_norm(nn.Conv2d(into, 1, (3, 1), padding=(1, 0)))

    def forward(self, sound: Tensor) -> DiscriminatorOutput:
        """(B, 1, S) -> a verdict and the layers' outputs."""
        missing = -sound.shape[2] % self.period
        if missing:
            sound = F.pad(sound, (0, missing), mode="reflect")
        return _run_layers(self, sound.unflatten(2, (-1, self.period)))


def _scaled_width(channels: int, scale: float) -> int:
    return max(2, int(channels * scale))


def _run_layers(
    module: ScaleDiscriminator | PeriodDiscriminator, hidden: Tensor
) -> DiscriminatorOutput:
    outputs = []
    for conv in module.convs:
        hidden = F.leaky_relu(conv(hidden), SLOPE)
        outputs.append(hidden)
    hidden = module.conv_post(hidden)
    return hidden.flatten(1), [*outputs, hidden]


class VitsDiscriminators(nn.Module):
    """All six discriminators."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        periodic = [PeriodDiscriminator(period, scale) for period in PERIODS]
        self.discriminators = nn.ModuleList([ScaleDiscriminator(scale), *periodic])

    def forward(self, sound: Tensor) -> list[DiscriminatorOutput]:
        """(B, 1, S) -> the output of each."""
        return [discriminator(sound) for discriminator in self.discriminators]


def load_original(path: Path) -> dict[str, Tensor]:
    """The tensors of VITS's D_*.pth under the names used here. Raises VoiceError for any other file."""
    tensors = read_checkpoint(path)
    return check_tensors({_torch_name(name): tensor for name, tensor in tensors.items()}, path)


def check_tensors(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`tensors`, if they are all of VITS's discriminators. Raises VoiceError, naming what differs."""
    with torch.device("meta"):
        expected = VitsDiscriminators().state_dict()
    strange, missing = sorted(set(tensors) - set(expected)), sorted(set(expected) - set(tensors))
    if strange or missing:
        code = "voice.discriminator_lacks" if missing else "voice.discriminator_strange"
        raise VoiceError(code, path=path, name=(missing or strange)[0])
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise VoiceError(
                "voice.discriminator_shape", path=path, name=name, shape=str(tuple(tensor.shape)),
                expected=str(tuple(expected[name].shape)),
            )  # fmt: skip
        if not torch.isfinite(tensor).all():
            raise VoiceError("voice.not_finite", path=path, name=name)
    return dict(tensors)


def _torch_name(original: str) -> str:
    name = original.replace(".weight_g", ".parametrizations.weight.original0")
    return name.replace(".weight_v", ".parametrizations.weight.original1")


def discriminator_loss(
    real: list[DiscriminatorOutput], generated: list[DiscriminatorOutput]
) -> Tensor:
    """The discriminators' loss in float32: recorded sound should score 1, generated sound 0."""
    terms = [
        (1 - real_scores.float()).square().mean() + scores.float().square().mean()
        for (real_scores, _), (scores, _) in zip(real, generated, strict=True)
    ]
    return torch.stack(terms).sum()


def generator_loss(generated: list[DiscriminatorOutput]) -> Tensor:
    """The generator's adversarial loss: generated sound should score 1."""
    return torch.stack([(1 - scores.float()).square().mean() for scores, _ in generated]).sum()


def feature_matching_loss(
    real: list[DiscriminatorOutput], generated: list[DiscriminatorOutput]
) -> Tensor:
    """The mean distance between the layers' outputs on recorded and on generated sound, doubled like
    in HiFi-GAN.
    """
    terms = [
        (target.detach().float() - output.float()).abs().mean()
        for (_, targets), (_, outputs) in zip(real, generated, strict=True)
        for target, output in zip(targets, outputs, strict=True)
    ]
    return 2 * torch.stack(terms).sum()
