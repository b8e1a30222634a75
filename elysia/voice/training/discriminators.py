"""What tells made sound from recorded: HiFi-GAN's discriminators, as VITS uses them.

One over the sound as it is, and one for each of five periods. Names and shapes of the tensors are
those of VITS's D_*.pth. Paper: https://arxiv.org/abs/2010.05646. Knows nothing of generators.
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
DiscriminatorOutput = tuple[Tensor, list[Tensor]]  # a verdict (B, N), and every layer's output

# channels, kernel, stride of the layers over plain sound, and over a period's rows
_SCALE_LAYERS = ((16, 15, 1), (64, 41, 4), (256, 41, 4), (1024, 41, 4), (1024, 41, 4), (1024, 5, 1))
_PERIOD_LAYERS = ((32, 3), (128, 3), (512, 3), (1024, 3), (1024, 1))


class ScaleDiscriminator(nn.Module):
    """Over samples; `scale` is its width over VITS's."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        into = 1
        for number, (channels, kernel, stride) in enumerate(_SCALE_LAYERS):
            out = _scaled_width(channels, scale)
            # Each group has four channels in, but in the first and the last layer.
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
    seen = []
    for conv in module.convs:
        hidden = F.leaky_relu(conv(hidden), SLOPE)
        seen.append(hidden)
    hidden = module.conv_post(hidden)
    return hidden.flatten(1), [*seen, hidden]


class VitsDiscriminators(nn.Module):
    """All of them."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        periodic = [PeriodDiscriminator(period, scale) for period in PERIODS]
        self.discriminators = nn.ModuleList([ScaleDiscriminator(scale), *periodic])

    def forward(self, sound: Tensor) -> list[DiscriminatorOutput]:
        """(B, 1, S) -> what each says."""
        return [one(sound) for one in self.discriminators]


def load_original(path: Path) -> dict[str, Tensor]:
    """The tensors of a D_*.pth under our names; VoiceError when it is none."""
    tensors = read_checkpoint(path)
    return check_tensors({_torch_name(name): tensor for name, tensor in tensors.items()}, path)


def check_tensors(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`tensors` when they are VITS's discriminators whole; VoiceError, with what differs, otherwise."""
    with torch.device("meta"):
        wanted = VitsDiscriminators().state_dict()
    strange, missing = sorted(set(tensors) - set(wanted)), sorted(set(wanted) - set(tensors))
    if strange or missing:
        raise VoiceError(
            f"{path} is no discriminator of VITS (D_*.pth): it "
            + (f"lacks {missing[0]}" if missing else f"has {strange[0]}, which VITS has not")
            + "."
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise VoiceError(
                f"{path}: {name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)} as in VITS."
            )
        if not torch.isfinite(tensor).all():
            raise VoiceError(f"{path}: {name} holds NaN or infinity; the training had failed.")
    return dict(tensors)


def _torch_name(original: str) -> str:
    name = original.replace(".weight_g", ".parametrizations.weight.original0")
    return name.replace(".weight_v", ".parametrizations.weight.original1")


def discriminator_loss(real: list[DiscriminatorOutput], made: list[DiscriminatorOutput]) -> Tensor:
    """The discriminators' loss: recorded sound is 1, made sound is 0."""
    terms = [
        (1 - is_real.float()).square().mean() + is_made.float().square().mean()
        for (is_real, _), (is_made, _) in zip(real, made, strict=True)
    ]
    return torch.stack(terms).sum()


def generator_loss(made: list[DiscriminatorOutput]) -> Tensor:
    """The generator's loss: made sound should be taken for 1."""
    return torch.stack([(1 - verdict.float()).square().mean() for verdict, _ in made]).sum()


def feature_matching_loss(
    real: list[DiscriminatorOutput], made: list[DiscriminatorOutput]
) -> Tensor:
    """Mean distance of every layer's output on made sound from that on recorded sound, doubled as
    HiFi-GAN weighs it.
    """
    terms = [
        (a.detach().float() - b.float()).abs().mean()
        for (_, seen), (_, saw) in zip(real, made, strict=True)
        for a, b in zip(seen, saw, strict=True)
    ]
    return 2 * torch.stack(terms).sum()
