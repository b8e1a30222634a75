"""Settings: the flat names a config file may set, checked once.

A config file sets names and nothing else; `load_settings` reads it (with `_base_`), applies
`--cfg-options` and refuses unknown names and wrong types. What the names become is `recipe.py`'s work.
Because expansion happens after inheritance, a child's `lr` is the `lr` that trains.
Knows nothing of torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from elysia.core.errors import ConfigError
from elysia.core.paths import find_config
from elysia.core.templates import get_template
from elysia.train.config.validation import coerce_values, validate_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """One fine-tune, in the names that XTuner's configs open with. Lengths are in tokens."""

    # Model
    pretrained_model_name_or_path: str
    tokenizer_name_or_path: str = ""  # '': the model's own
    eos_token: str = ""  # '': the tokenizer's own
    hub: Literal["huggingface", "modelscope"] = "huggingface"

    # Data
    data_path: str | list[Any] = ""
    dataset_format: str = "xtuner"
    prompt_template: str | dict[str, Any] = "internlm2_chat"
    SYSTEM: str | None = None  # None: what the persona's card says; '': none
    persona: str | None = None
    max_length: int = 2048
    pack_to_max_length: bool = True
    overlong: Literal["error", "drop", "cut", "truncate"] = "error"
    sampler: Literal["shuffled", "sequential", "length_grouped"] = "shuffled"
    train_on_prompt: bool = (
        False  # True: questions and system text are learned too, not replies alone
    )
    heldout: float = 0.0  # below 1: a share of the rows; from 1 on: that many rows

    map_num_proc: int = 0  # processes that make tokens; 0: a core each where files are large
    token_cache: bool = True  # tokens are kept on disk ($ELYSIA_CACHE, else ~/.cache/elysia)
    token_cache_gb: float = 50.0

    # Method
    method: Literal["qlora", "lora", "full"] = "qlora"
    lora_r: int = 64
    lora_alpha: int = 16
    lora_dropout: float = 0.1
    lora_target_modules: str | list[str] = "all-linear"
    use_dora: bool = False
    use_rslora: bool = False
    loraplus_lr_ratio: float = 1.0  # LoRA+: B's learning rate over A's; 16 is usual, 1: none
    double_quant: bool = True
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    attention: Literal["auto", "segments", "sdpa", "eager", "flash_attention_2"] = "auto"
    gradient_checkpointing: bool = True
    torch_compile: bool = False
    liger_kernel: bool = False  # on a GPU; wants the package liger-kernel
    sequence_parallel_size: int = 1
    neftune_noise_alpha: float = 0.0  # 5 is usual; 0: none

    # Objective
    objective: Literal["sft", "dpo", "orpo", "reward"] = "sft"
    dpo_beta: float = 0.1
    dpo_loss_type: Literal["sigmoid", "robust", "hinge", "ipo"] = "sigmoid"
    dpo_label_smoothing: float = 0.0  # below 0.5
    orpo_lambda: float = 0.1
    reward_loss_type: Literal["ranking", "focal"] = "ranking"
    reward_penalty: Literal["none", "log_barrier", "l2"] = "none"
    reward_penalty_weight: float = 0.01

    # Optimizer and schedule
    batch_size: int = 1  # per device
    accumulative_counts: int = 16
    dataloader_num_workers: int = 0
    max_epochs: int = 3
    max_steps: int = 0  # 0: as max_epochs says
    optimizer: str = "torch.optim.AdamW"
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    max_norm: float = 1.0  # gradient clipping; 0 turns it off
    lr_schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr: float = 0.0  # where cosine and linear end
    warmup_ratio: float = 0.03
    warmup_steps: int = 0  # above 0: in place of warmup_ratio

    # What it leaves
    save_steps: int = 500  # 0: only at the end
    save_total_limit: int = 2
    logging_interval: int = 10
    report_to: str | list[str] = ""  # 'wandb', 'swanlab' or both, beside TensorBoard

    # Evaluation
    evaluation_freq: int = 500
    evaluation_inputs: list[str] = field(default_factory=list)
    evaluation_max_new_tokens: int = 100
    evaluation_system: str | None = None  # None: the system text of training
    persona_freq: int = 0  # 0: never
    persona_heldout: str = ""
    persona_general: str = ""
    persona_limit: int = 24
    persona_tradeoff: dict[str, float] = field(default_factory=dict)
    persona_patience: int = 0  # 0: trains to the end
    mmlu_path: str = ""  # a file of MMLU's questions to score every `evaluation_freq` steps

    seed: int = 42
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        get_template(self.prompt_template)
        validate_settings(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-ready."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def sha256(self) -> str:
        """Identifies the settings, whatever files they came from."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def non_defaults(self) -> dict[str, Any]:
        """The settings that differ from their defaults, in the order of the fields."""
        changed: dict[str, Any] = {}
        for setting in dataclasses.fields(self):
            default = setting.default
            if setting.default_factory is not dataclasses.MISSING:
                default = setting.default_factory()
            if getattr(self, setting.name) != default:
                changed[setting.name] = getattr(self, setting.name)
        return changed

    @property
    def pairs(self) -> bool:
        """Whether the data are preference pairs."""
        return self.objective != "sft"

    @property
    def sources(self) -> list[dict[str, Any]]:
        """`data_path` as a list of dict(path, format, repeat, limit, …): see `checks.SOURCE_KEYS`."""
        paths = self.data_path if isinstance(self.data_path, list) else [self.data_path]
        known = {"path": None, "format": self.dataset_format, "repeat": 1, "limit": None}
        return [known | (dict(p) if isinstance(p, Mapping) else {"path": p}) for p in paths]


def load_settings(config: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a config file, or of a bundled config by name.

    Raises ConfigError for a file that is missing or does not run, an unknown name, a wrong type.
    """
    path = find_config(str(config))
    values, legacy = _read_config(path, dict(cfg_options or {}))
    if legacy is not None:
        values = _convert_xtuner(legacy, path, dict(cfg_options or {}))
    return build_settings(values, str(path))


def build_settings(values: Mapping[str, Any], where: str) -> Settings:
    """Checked settings from plain values; `where` is named in every complaint."""
    clean = coerce_values(Settings, values, where, "docs/settings.md lists them all.")
    for wanted in ("pretrained_model_name_or_path", "data_path"):
        if not clean.get(wanted):
            raise ConfigError(f"{where} does not set {wanted}: a fine-tune needs it.")
    try:
        return Settings(**clean)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _convert_xtuner(tree: dict[str, Any], path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that an XTuner config means, its changes logged; ConfigError when it cannot be
    trained."""
    from elysia.compat.xtuner.convert import convert_tree

    names = [setting.name for setting in dataclasses.fields(Settings)]
    report = convert_tree(tree, path, options, setting_names=names)
    if report.reasons:
        raise ConfigError(f"{path} cannot be trained here: {'; '.join(report.reasons)}.")
    if os.environ.get("RANK", "0") == "0":
        for text in report.changes.values():
            log.info("%s: %s.", path.name, text)
    return report.values


def _read_config(
    path: Path, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Plain values of a config; and, for an XTuner config rather than flat settings, its objects."""
    from mmengine.config import Config

    from elysia.compat.xtuner import loader

    config = loader.load_config_file(path)
    tree = loader.config_to_tree(config)
    if loader.is_xtuner_config(tree):
        if not isinstance(tree.get("settings"), Mapping):
            return {}, tree
        config = Config(dict(config.settings))  # a recipe of ours, read again from a work dir
    try:
        config.merge_from_dict(options)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"--cfg-options do not fit {path}: {error}") from error
    values = config.to_dict()
    return {k: v for k, v in values.items() if not k.startswith("_")}, None
