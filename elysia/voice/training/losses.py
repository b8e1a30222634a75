"""The adversarial losses: least squares, and likeness of what the discriminators' layers see.

https://arxiv.org/abs/1611.04076, https://arxiv.org/abs/2010.05646. In float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elysia.voice.training.discriminators import Heard


def telling_apart(real: list[Heard], made: list[Heard]) -> Tensor:
    """The discriminators' loss: recorded sound is 1, made sound is 0."""
    terms = [
        (1 - is_real.float()).square().mean() + is_made.float().square().mean()
        for (is_real, _), (is_made, _) in zip(real, made, strict=True)
    ]
    return torch.stack(terms).sum()


def passing(made: list[Heard]) -> Tensor:
    """The generator's loss: made sound should be taken for 1."""
    return torch.stack([(1 - verdict.float()).square().mean() for verdict, _ in made]).sum()


def likeness(real: list[Heard], made: list[Heard]) -> Tensor:
    """Mean distance of every layer's output on made sound from that on recorded sound, doubled as
    HiFi-GAN weighs it.
    """
    terms = [
        (a.detach().float() - b.float()).abs().mean()
        for (_, seen), (_, saw) in zip(real, made, strict=True)
        for a, b in zip(seen, saw, strict=True)
    ]
    return 2 * torch.stack(terms).sum()
