"""Settings of a voice's training: the flat names that a config of `voice train` may set, checked once.

Read as the language model's are. What they become is `recipe.py`'s work. Knows nothing of torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from elysia.core.errors import ConfigError
from elysia.train import trackers
from elysia.train.typed import typed


@dataclass(frozen=True)
class VoiceSettings:
    """One training of a VITS voice; the numbers are those of VITS, where it has them."""

    # Data
    data_path: str = ""  # the folder that `voice prepare` wrote

    # Beginning
    base: str = ""  # a voice folder, a Hugging Face VITS folder, or G_*.pth; '': random weights
    base_config: str = ""  # the config beside a .pth
    base_discriminator: str = ""  # D_*.pth; '': random weights
    speaker: str | int = 0  # whose place in the base the new voice takes
    cleaner: Literal["chinese_cleaners", "cjke_cleaners2", "pinyin"] = "cjke_cleaners2"
    stochastic_durations: bool = True  # without a base: which of the two duration predictors
    architecture: dict[str, Any] = field(
        default_factory=dict
    )  # without a base: names of VitsConfig
    discriminator_scale: float = 1.0  # width over VITS's; below 1 for small machines

    # Optimizers and schedule
    batch_size: int = 16
    segment_frames: int = 32  # of each clip, made and judged in a step
    max_epochs: int = 100
    max_steps: int = 0  # 0: as max_epochs says
    lr: float = 2e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    max_norm: float = 0.0  # gradient clipping; 0 turns it off
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    min_lr: float = 0.0
    warmup_steps: int = 0
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    dataloader_num_workers: int = 0

    # Losses
    mel_weight: float = 45.0
    kl_weight: float = 1.0
    duration_weight: float = 1.0
    feature_weight: float = 1.0
    adversarial_weight: float = 1.0
    mel_bands: int = 80
    mel_low: float = 0.0  # Hz
    mel_high: float = 0.0  # Hz; 0: half the rate

    # What it leaves
    save_steps: int = 1000  # 0: only at the end
    save_total_limit: int = 2
    logging_interval: int = 50
    listen_steps: int = 1000  # 0: only at the end
    listen_texts: list[str] = field(default_factory=lambda: ["你好，很高兴认识你。"])
    report_to: str | list[str] = ""

    seed: int = 42
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in AT_LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be {least:g} or more.")
        if not self.lr > 0:
            raise ConfigError(f"lr is {self.lr}, it must be above 0.")
        if not 0 < self.discriminator_scale <= 1:
            raise ConfigError(
                f"discriminator_scale is {self.discriminator_scale}, it must be above 0 and at most 1."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas are {self.betas}, each must be from 0 to below 1.")
        self._check_beginning()
        trackers.names(self.report_to)

    def _check_beginning(self) -> None:
        """ConfigError for settings of the beginning that contradict each other."""
        if self.base.endswith(".pth") and not self.base_config:
            raise ConfigError(
                f"base = '{self.base}' needs base_config: the .json that it was trained with."
            )
        if self.base and self.architecture:
            raise ConfigError(
                "architecture is the base's where there is a base: take one of them out."
            )
        if self.base_discriminator and self.discriminator_scale != 1:
            raise ConfigError(
                "base_discriminator has VITS's own width: set discriminator_scale = 1.0."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-ready."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def sha256(self) -> str:
        """Identifies the settings, whatever files they came from."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


AT_LEAST: dict[str, float] = {
    "batch_size": 1, "segment_frames": 8, "max_epochs": 1, "max_steps": 0, "weight_decay": 0,
    "max_norm": 0, "min_lr": 0, "warmup_steps": 0, "dataloader_num_workers": 0, "mel_weight": 0,
    "kl_weight": 0, "duration_weight": 0, "feature_weight": 0, "adversarial_weight": 0,
    "mel_bands": 8, "mel_low": 0, "mel_high": 0, "save_steps": 0, "save_total_limit": 0,
    "logging_interval": 1, "listen_steps": 0, "seed": 0,
}  # fmt: skip


def load_settings(path: Path, options: Mapping[str, Any] | None = None) -> VoiceSettings:
    """The settings of a config file, `options` over them.

    ConfigError for a file that does not run, an unknown name, a wrong type, a value out of range.
    """
    from elysia.train.xtuner import read

    config = read.load(path)
    try:
        config.merge_from_dict(dict(options or {}))
    except (TypeError, KeyError) as error:
        raise ConfigError(f"--cfg-options do not fit {path}: {error}") from error
    values = {name: v for name, v in config.to_dict().items() if not name.startswith("_")}
    if isinstance(values.get("settings"), dict):
        values = values["settings"]  # a recipe of ours, read again from a work dir
    clean = typed(VoiceSettings, values, str(path), "docs/voice.md names them all.")
    if not clean.get("data_path"):
        raise ConfigError(f"{path} does not set data_path: the folder that 'voice prepare' wrote.")
    try:
        return VoiceSettings(**clean)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
