"""Where a training begins: a folder `start/` with the generator, its card and the discriminators.

Made once, from random weights or from what the user brings; the model, the data and the export read
it. Knows nothing of steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import VitsConfig, VitsModel

from elysia.core.errors import ConfigError, VoiceError, nearest
from elysia.core.files import staged_folder, write_atomic
from elysia.voice.recordings.spectrogram import Shape
from elysia.voice.text.symbols import SYMBOLS
from elysia.voice.training.discriminators import Discriminators, from_original
from elysia.voice.training.settings import VoiceSettings
from elysia.voice.vits_card import VitsCard
from elysia.voice.vits_import import UNFIT, convert
from elysia.voice.vits_load import WEIGHTS, load_model

FOLDER = "start"
DISCRIMINATORS = "discriminators.safetensors"


def make(settings: VoiceSettings, shape: Shape, work_dir: Path) -> Path:
    """Write `work_dir`/start, whole or not at all; `shape` is the data's. Returns the folder.

    VoiceError for a base that cannot be trained on, or that was made for other sound.
    """
    torch.manual_seed(settings.seed)
    card, model = brought(settings) if settings.base else fresh(settings, shape)
    wanted = Shape.of_model(model.config)
    if wanted != shape:
        raise VoiceError(
            f"The base is of {_said(wanted)}, and {settings.data_path} of {_said(shape)}: prepare the "
            f"recordings again with --rate {wanted.rate} --hop {wanted.hop} --window {wanted.window}."
        )
    card.speaker_of(settings.speaker)
    discriminators = Discriminators(settings.discriminator_scale)
    if settings.base_discriminator:
        discriminators.load_state_dict(from_original(Path(settings.base_discriminator)))
    folder = work_dir / FOLDER
    with staged_folder(folder, VoiceError, replaces=lambda old: (old / WEIGHTS).is_file()) as to:
        write_generator(model, to)
        card.write(to)
        save_file(_whole(discriminators), str(to / DISCRIMINATORS))
    return folder


def write_generator(model: Any, folder: Path) -> None:
    """Weights and config.json of a VitsModel."""
    save_file(_whole(model), str(folder / WEIGHTS))
    write_atomic(folder / "config.json", model.config.to_json_string())


def _whole(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def brought(settings: VoiceSettings) -> tuple[VitsCard, Any]:
    """Card and model of the base; VoiceError when it has no posterior encoder to train with."""
    path = Path(settings.base)
    if path.is_dir():
        card, model = VitsCard.read(path), load_model(path)
    else:
        card, model, _ = convert(path, Path(settings.base_config))
    if not any(bool(p.any()) for p in model.posterior_encoder.parameters()):
        raise VoiceError(
            f"{path} has no posterior encoder: it speaks, but cannot be trained on. Take the G_*.pth "
            "of the training itself, not one made smaller for speaking."
        )
    return card, model


def fresh(settings: VoiceSettings, shape: Shape) -> tuple[VitsCard, Any]:
    """A model of random weights in VITS's architecture, for sound of `shape`."""
    symbols = SYMBOLS[settings.cleaner]
    given = {
        "upsample_rates": upsampling(shape.hop), **settings.architecture,
        "vocab_size": len(symbols), "sampling_rate": shape.rate, "spectrogram_bins": shape.bins,
        "use_stochastic_duration_prediction": settings.stochastic_durations, "num_speakers": 1,
        "speaker_embedding_size": 0,
    }  # fmt: skip
    # A kernel is odd where its factor is, or a frame would not be `hop` samples.
    kernels = [2 * rate + rate % 2 for rate in given["upsample_rates"]]
    given.setdefault("upsample_kernel_sizes", kernels)
    known = VitsConfig().to_dict()
    for name in settings.architecture:
        if name not in known:
            raise ConfigError(
                f"architecture: VitsConfig has nothing named '{name}'.{nearest(name, known)}"
            )
    try:
        config = VitsConfig(**given)
        model = VitsModel(config)
        model.decoder.apply_weight_norm()
    except (*UNFIT, RuntimeError, AssertionError, IndexError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigError(f"architecture makes no VITS: {reason}.") from None
    if Shape.of_model(config) != shape:
        raise ConfigError(
            f"architecture: upsample_rates {list(config.upsample_rates)} multiply to "
            f"{Shape.of_model(config).hop} and not to the data's hop, {shape.hop}."
        )
    both = zip(config.upsample_rates, config.upsample_kernel_sizes, strict=False)
    if any(kernel < rate or (kernel - rate) % 2 for rate, kernel in both):
        raise ConfigError(
            f"architecture: upsample_kernel_sizes {list(config.upsample_kernel_sizes)} must each be "
            f"larger than its factor of {list(config.upsample_rates)} by an even number."
        )
    _begin(model)
    return VitsCard(symbols, settings.cleaner, shape.rate, shape.hop), model


def upsampling(hop: int) -> list[int]:
    """Factors of a hop, the largest first and at most 8; VITS's own for 256.

    >>> upsampling(256), upsampling(200)
    ([8, 8, 2, 2], [8, 5, 5])
    """
    if hop == 256:
        return [8, 8, 2, 2]
    found, left = [], hop
    while left > 1:
        factor = next((n for n in range(8, 1, -1) if left % n == 0), 0)
        if not factor:
            raise ConfigError(
                f"A hop of {hop} has no factors up to 8: set upsample_rates yourself."
            )
        found.append(factor)
        left //= factor
    return found


def _begin(model: Any) -> None:
    """VITS's first weights where transformers draws others: flows that change nothing, a quiet
    decoder."""
    for layer in model.flow.flows:
        nn.init.zeros_(layer.conv_post.weight)
        nn.init.zeros_(layer.conv_post.bias)
    for name, module in model.duration_predictor.named_modules():
        if name.count(".") == 2 and name.endswith("conv_proj") and "flows." in name:
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    for module in (*model.decoder.upsampler, *model.decoder.resblocks.modules()):
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            module.weight = torch.randn_like(module.weight) * 0.01  # weight norm takes it apart


def read_discriminators(folder: Path, scale: float) -> Discriminators:
    """The discriminators of a start folder; VoiceError when they are of another width."""
    discriminators = Discriminators(scale)
    try:
        discriminators.load_state_dict(load_file(str(folder / DISCRIMINATORS)))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:120]
        raise VoiceError(
            f"{folder / DISCRIMINATORS} does not fit discriminator_scale = {scale:g}, or is damaged "
            f"({reason}): begin in another --work-dir."
        ) from None
    return discriminators


def _said(shape: Shape) -> str:
    return f"{shape.rate} Hz, hop {shape.hop}, window {shape.window}"
