"""The beginning of a training: a folder `start/` with the generator, its config and the discriminators.

Written once, from random weights or from the user's base; the model, the dataset and the export read it.
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
from elysia.core.i18n import Text
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
    """Write `work_dir`/start, completely or not at all; `shape` is the dataset's. Returns the folder.

    Raises VoiceError for a base that cannot be trained on, or that was made for other sound.
    """
    torch.manual_seed(settings.seed)
    config, model = load_base(settings) if settings.base else build_fresh(settings, shape)
    base = SpectrogramConfig.from_model(model.config)
    if base != shape:
        raise VoiceError(
            "voice.base_other_sound", base=_describe(base), path=settings.data_path,
            data=_describe(shape), rate=base.rate, hop=base.hop, window=base.window,
        )  # fmt: skip
    config.resolve_speaker(settings.speaker)
    discriminators = VitsDiscriminators(settings.discriminator_scale)
    if settings.base_discriminator:
        discriminators.load_state_dict(load_original(Path(settings.base_discriminator)))
    folder = work_dir / START_FOLDER
    with staged_folder(
        folder, VoiceError, replaces=lambda old: (old / WEIGHTS_FILE).is_file()
    ) as to:
        write_generator(model, to)
        config.write(to)
        save_file(_contiguous_state(discriminators), str(to / DISCRIMINATORS_FILE))
    return folder


def write_generator(model: Any, folder: Path) -> None:
    """Write the weights and the config.json of a VitsModel."""
    save_file(_contiguous_state(model), str(folder / WEIGHTS_FILE))
    write_atomic(folder / "config.json", model.config.to_json_string())


def _contiguous_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def load_base(settings: VoiceSettings) -> tuple[VoiceConfig, Any]:
    """The base's config and model. Raises VoiceError when it has no posterior encoder to train with."""
    path = Path(settings.base)
    if path.is_dir():
        config, model = VoiceConfig.read(path), load_vits_model(path)
    else:
        config, model, _ = convert_checkpoint(path, Path(settings.base_config))
    if not any(bool(p.any()) for p in model.posterior_encoder.parameters()):
        raise VoiceError("voice.base_without_posterior", path=path)
    return config, model


def build_fresh(settings: VoiceSettings, shape: SpectrogramConfig) -> tuple[VoiceConfig, Any]:
    """A model with random weights in VITS's architecture, for sound of `shape`."""
    symbols = SYMBOLS[settings.cleaner]
    options = {
        "upsample_rates": factor_hop(shape.hop), **settings.architecture,
        "vocab_size": len(symbols), "sampling_rate": shape.rate, "spectrogram_bins": shape.bins,
        "use_stochastic_duration_prediction": settings.stochastic_durations, "num_speakers": 1,
        "speaker_embedding_size": 0,
    }  # fmt: skip
    # A kernel is odd where its factor is, or a frame would not be `hop` samples.
    kernels = [2 * rate + rate % 2 for rate in options["upsample_rates"]]
    options.setdefault("upsample_kernel_sizes", kernels)
    known = VitsConfig().to_dict()
    for name in settings.architecture:
        if name not in known:
            raise ConfigError("voice.architecture_unknown", name=name, hint=nearest(name, known))
    try:
        config = VitsConfig(**options)
        model = VitsModel(config)
        model.decoder.apply_weight_norm()
    except (*CONFIG_ERRORS, RuntimeError, AssertionError, IndexError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigError("voice.architecture_unfit", reason=reason) from None
    if SpectrogramConfig.from_model(config) != shape:
        raise ConfigError(
            "voice.architecture_hop", rates=str(list(config.upsample_rates)),
            product=SpectrogramConfig.from_model(config).hop, hop=shape.hop,
        )  # fmt: skip
    both = zip(config.upsample_rates, config.upsample_kernel_sizes, strict=False)
    if any(kernel < rate or (kernel - rate) % 2 for rate, kernel in both):
        raise ConfigError(
            "voice.architecture_kernels", kernels=str(list(config.upsample_kernel_sizes)),
            rates=str(list(config.upsample_rates)),
        )  # fmt: skip
    _init_weights(model)
    return VoiceConfig(symbols, settings.cleaner, shape.rate, shape.hop), model


def factor_hop(hop: int) -> list[int]:
    """Upsampling rates whose product is `hop`, the largest first and at most 8; VITS's own for 256.

    >>> factor_hop(256), factor_hop(200)
    ([8, 8, 2, 2], [8, 5, 5])
    """
    if hop == 256:
        return [8, 8, 2, 2]
    factors, rest = [], hop
    while rest > 1:
        factor = next((n for n in range(8, 1, -1) if rest % n == 0), 0)
        if not factor:
            raise ConfigError("voice.hop_without_factors", hop=hop)
        factors.append(factor)
        rest //= factor
    return factors


def _init_weights(model: Any) -> None:
    """VITS's initial weights where transformers draws others: flows that are the identity at first,
    and a quiet decoder.
    """
    for layer in model.flow.flows:
        nn.init.zeros_(layer.conv_post.weight)
        nn.init.zeros_(layer.conv_post.bias)
    for name, module in model.duration_predictor.named_modules():
        if name.count(".") == 2 and name.endswith("conv_proj") and "flows." in name:
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    for module in (*model.decoder.upsampler, *model.decoder.resblocks.modules()):
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            module.weight = torch.randn_like(module.weight) * 0.01  # weight norm splits it


def load_discriminators(folder: Path, scale: float) -> VitsDiscriminators:
    """The discriminators of a start folder. Raises VoiceError when they are of another width."""
    discriminators = VitsDiscriminators(scale)
    try:
        discriminators.load_state_dict(load_file(str(folder / DISCRIMINATORS_FILE)))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:120]
        raise VoiceError(
            "voice.discriminators_unfit", path=folder / DISCRIMINATORS_FILE, scale=f"{scale:g}",
            reason=reason,
        ) from None  # fmt: skip
    return discriminators


def _describe(shape: SpectrogramConfig) -> Text:
    return Text("voice.sound_shape", shape.to_dict())
