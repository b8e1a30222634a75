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
from elysia.voice.dataset.spectrogram import SpectrogramConfig
from elysia.voice.frontend.cleaners import SYMBOLS
from elysia.voice.training.discriminators import VitsDiscriminators, load_original
from elysia.voice.training.settings import VoiceSettings
from elysia.voice.vits.checkpoint_import import CONFIG_ERRORS, convert_checkpoint
from elysia.voice.vits.config import VoiceConfig
from elysia.voice.vits.modules import WEIGHTS_FILE, load_vits_model

START_FOLDER = "start"
DISCRIMINATORS_FILE = "discriminators.safetensors"


def make_start_folder(settings: VoiceSettings, shape: SpectrogramConfig, work_dir: Path) -> Path:
    """Write `work_dir`/start, whole or not at all; `shape` is the data's. Returns the folder.

    VoiceError for a base that cannot be trained on, or that was made for other sound.
    """
    torch.manual_seed(settings.seed)
    card, model = load_base(settings) if settings.base else build_fresh(settings, shape)
    wanted = SpectrogramConfig.from_model(model.config)
    if wanted != shape:
        raise VoiceError(
            f"The base is of {_describe(wanted)}, and {settings.data_path} of {_describe(shape)}: prepare the "
            f"recordings again with --rate {wanted.rate} --hop {wanted.hop} --window {wanted.window}."
        )
    card.resolve_speaker(settings.speaker)
    discriminators = VitsDiscriminators(settings.discriminator_scale)
    if settings.base_discriminator:
        discriminators.load_state_dict(load_original(Path(settings.base_discriminator)))
    folder = work_dir / START_FOLDER
    with staged_folder(
        folder, VoiceError, replaces=lambda old: (old / WEIGHTS_FILE).is_file()
    ) as to:
        write_generator(model, to)
        card.write(to)
        save_file(_contiguous_state(discriminators), str(to / DISCRIMINATORS_FILE))
    return folder


def write_generator(model: Any, folder: Path) -> None:
    """Weights and config.json of a VitsModel."""
    save_file(_contiguous_state(model), str(folder / WEIGHTS_FILE))
    write_atomic(folder / "config.json", model.config.to_json_string())


def _contiguous_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def load_base(settings: VoiceSettings) -> tuple[VoiceConfig, Any]:
    """Card and model of the base; VoiceError when it has no posterior encoder to train with."""
    path = Path(settings.base)
    if path.is_dir():
        card, model = VoiceConfig.read(path), load_vits_model(path)
    else:
        card, model, _ = convert_checkpoint(path, Path(settings.base_config))
    if not any(bool(p.any()) for p in model.posterior_encoder.parameters()):
        raise VoiceError(
            f"{path} has no posterior encoder: it speaks, but cannot be trained on. Take the G_*.pth "
            "of the training itself, not one made smaller for speaking."
        )
    return card, model


def build_fresh(settings: VoiceSettings, shape: SpectrogramConfig) -> tuple[VoiceConfig, Any]:
    """A model of random weights in VITS's architecture, for sound of `shape`."""
    symbols = SYMBOLS[settings.cleaner]
    given = {
        "upsample_rates": factor_hop(shape.hop), **settings.architecture,
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
    except (*CONFIG_ERRORS, RuntimeError, AssertionError, IndexError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigError(f"architecture makes no VITS: {reason}.") from None
    if SpectrogramConfig.from_model(config) != shape:
        raise ConfigError(
            f"architecture: upsample_rates {list(config.upsample_rates)} multiply to "
            f"{SpectrogramConfig.from_model(config).hop} and not to the data's hop, {shape.hop}."
        )
    both = zip(config.upsample_rates, config.upsample_kernel_sizes, strict=False)
    if any(kernel < rate or (kernel - rate) % 2 for rate, kernel in both):
        raise ConfigError(
            f"architecture: upsample_kernel_sizes {list(config.upsample_kernel_sizes)} must each be "
            f"larger than its factor of {list(config.upsample_rates)} by an even number."
        )
    _init_weights(model)
    return VoiceConfig(symbols, settings.cleaner, shape.rate, shape.hop), model


def factor_hop(hop: int) -> list[int]:
    """Factors of a hop, the largest first and at most 8; VITS's own for 256.

    >>> factor_hop(256), factor_hop(200)
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


def _init_weights(model: Any) -> None:
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


def load_discriminators(folder: Path, scale: float) -> VitsDiscriminators:
    """The discriminators of a start folder; VoiceError when they are of another width."""
    discriminators = VitsDiscriminators(scale)
    try:
        discriminators.load_state_dict(load_file(str(folder / DISCRIMINATORS_FILE)))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:120]
        raise VoiceError(
            f"{folder / DISCRIMINATORS_FILE} does not fit discriminator_scale = {scale:g}, or is damaged "
            f"({reason}): begin in another --work-dir."
        ) from None
    return discriminators


def _describe(shape: SpectrogramConfig) -> str:
    return f"{shape.rate} Hz, hop {shape.hop}, window {shape.window}"
