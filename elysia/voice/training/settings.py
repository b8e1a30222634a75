"""The settings of a voice's training, checked once.

Configs of `voice train` set these flat names, like those of the language model; `builder.py` is the one
place that gives them their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from elysia.core.errors import ConfigError
from elysia.train.config import trackers
from elysia.train.config.schema import SettingsModel


class VoiceSettings(SettingsModel):
    """One training of a VITS voice; the numbers are those of VITS, where it has them."""

    reference_page: ClassVar[str] = "docs/voice.md"

    # Data
    data_path: str = ""  # the folder that `voice prepare` wrote

    # Beginning
    base: str = ""  # a voice folder, a Hugging Face VITS folder, or G_*.pth; '': random weights
    base_config: str = ""  # the config beside a .pth
    base_discriminator: str = ""  # D_*.pth; '': random weights
    speaker: str | int = 0  # whose place in the base the new voice takes
    cleaner: Literal["chinese_cleaners", "cjke_cleaners2", "pinyin"] = "cjke_cleaners2"
    stochastic_durations: bool = True  # without a base: which of the two duration predictors
    # Without a base: names of VitsConfig.
    architecture: dict[str, Any] = Field(default_factory=dict)
    # Width relative to VITS's own; below 1 for small machines.
    discriminator_scale: float = Field(1.0, gt=0, le=1)

    # Optimizers and schedule
    batch_size: int = Field(16, ge=1)
    segment_frames: int = Field(32, ge=8)  # of each clip, generated and judged in a step
    max_epochs: int = Field(100, ge=1)
    max_steps: int = Field(0, ge=0)  # 0: as max_epochs says
    lr: float = Field(2e-4, gt=0)
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = Field(0.01, ge=0)
    max_norm: float = Field(0.0, ge=0)  # gradient clipping; 0 turns it off
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    min_lr: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    dataloader_num_workers: int = Field(0, ge=0)

    # Losses
    mel_weight: float = Field(45.0, ge=0)
    kl_weight: float = Field(1.0, ge=0)
    duration_weight: float = Field(1.0, ge=0)
    feature_weight: float = Field(1.0, ge=0)
    adversarial_weight: float = Field(1.0, ge=0)
    mel_bands: int = Field(80, ge=8)
    mel_low: float = Field(0.0, ge=0)  # Hz
    mel_high: float = Field(0.0, ge=0)  # Hz; 0: half the rate

    # What it leaves
    save_steps: int = Field(1000, ge=0)  # 0: only at the end
    save_total_limit: int = Field(2, ge=0)
    logging_interval: int = Field(50, ge=1)
    listen_steps: int = Field(1000, ge=0)  # 0: only at the end
    listen_texts: list[str] = Field(default_factory=lambda: ["你好，很高兴认识你。"])
    report_to: str | list[str] = ""

    seed: int = Field(42, ge=0)
    overrides: dict[str, Any] = Field(default_factory=dict)

    def model_post_init(self, _: Any) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError("voice.bad_betas", value=str(self.betas))
        self._check_beginning()
        trackers.parse_trackers(self.report_to)

    def _check_beginning(self) -> None:
        """Raise ConfigError for settings of the base that contradict each other."""
        if self.base.endswith(".pth") and not self.base_config:
            raise ConfigError("voice.base_needs_config", base=self.base)
        if self.base and self.architecture:
            raise ConfigError("voice.base_and_architecture")
        if self.base_discriminator and self.discriminator_scale != 1:
            raise ConfigError("voice.base_discriminator_scale")


def load_settings(path: Path, options: Mapping[str, Any] | None = None) -> VoiceSettings:
    """The settings of a config file, overridden by `options`.

    Raises ConfigError for a file that does not run, an unknown name, a wrong type or a bad value.
    """
    from elysia.compat.xtuner import loader

    config = loader.load_config_file(path)
    try:
        config.merge_from_dict(dict(options or {}))
    except (TypeError, KeyError) as error:
        raise ConfigError("voice.bad_cfg_options", path=path, error=str(error)) from error
    values = {name: v for name, v in config.to_dict().items() if not name.startswith("_")}
    if isinstance(values.get("settings"), dict):
        values = values["settings"]  # a runner's config that was dumped into a work dir
    settings = VoiceSettings.build(values, str(path))
    if not settings.data_path:
        raise ConfigError("voice.no_data_path", path=path)
    return settings
