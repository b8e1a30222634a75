"""Every setting of a fine-tune in one place: name, type, default, range and meaning.

A config file sets these names and nothing else. `load_settings` reads it (with `_base_`), applies
`--cfg-options` and refuses unknown names and wrong types; `builder.py` turns settings into MMEngine's
config. Inheritance comes first, so a child's `lr` is the `lr` that trains.
docs/settings.md is written from this class by scripts/settings_doc.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from elysia.core.errors import ConfigError
from elysia.core.paths import find_config, list_bundled_configs, resolve_bundled
from elysia.models.chat_format import AUTO, load_template
from elysia.train.config.schema import SettingsModel
from elysia.train.config.validation import check_consistency

if TYPE_CHECKING:
    from elysia.compat.xtuner.report import ConversionReport

log = logging.getLogger(__name__)


class Settings(SettingsModel):
    """One fine-tune, under the names that XTuner's configs open with. Lengths are in tokens."""

    later_settings = frozenset({"thinking", "lora_experts"})

    # Model
    pretrained_model_name_or_path: str
    """A local folder, or `owner/name` on the hub."""
    tokenizer_name_or_path: str = ""
    """A tokenizer other than the model's own ('': the model's own); the model must have an embedding
    for each of its tokens."""
    eos_token: str = ""
    """The token that ends a reply, in place of the tokenizer's own ('': the tokenizer's own)."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Where names are looked up. ModelScope needs `pip install modelscope`."""

    # Data
    data_path: str | list[Any] = ""
    """A dataset file (.json, .jsonl, .csv, .parquet; .txt for plain text), a folder of them, or
    `owner/name` of a dataset on the hub; or a list of those and of `dict(path=…, format=…,
    repeat=…, limit=…)`. `repeat` weighs a source (0.5: half of its rows), `weight` sets its share of
    the rows beside other sources with a weight ([mixing](data.md#mixing)); `split`, `subset` and
    `files` choose within a folder or hub dataset, `columns` renames keys, old to new."""
    dataset_format: str = "xtuner"
    """What a row looks like: `xtuner list-dataset-format`; or `FILE.py:NAME`, a map function of
    your own, which returns XTuner's `conversation` (for pairs: `prompt`, `chosen`, `rejected`). A
    source's own `format` wins."""
    prompt_template: str | dict[str, Any] = "auto"
    """How a conversation becomes text: "auto" takes what the base was trained with (its run card, else
    its own chat template, else its family's); or a name of [templates.md](templates.md); or a template
    written out, `dict(name=…, system=…, instruction=…, suffix=…, …)`. It travels in the run card, so
    chat needs no flag."""
    thinking: bool | None = None
    """Whether a template that takes `enable_thinking` writes prompts for replies that think first.
    None: no."""
    SYSTEM: str | None = None
    """The system prompt, put before rows that have none. None: what the persona's card says; '':
    none."""
    persona: str | None = None
    """A character card (V1, V2, V3, JSON): [persona.md](persona.md)."""
    max_length: int = Field(2048, ge=8)
    """Tokens of a pack, and of the longest row."""
    pack_to_max_length: bool = True
    """Put several whole rows into one pack; they never see each other. False: one row per pack."""
    overlong: Literal["error", "drop", "cut", "truncate"] = "error"
    """What happens to a row longer than `max_length`: it is refused by name, left out, loses whole
    last turns, or loses all tokens past the limit. Documents (`pretrain`) are divided instead."""
    sampler: Literal["shuffled", "sequential", "length_grouped"] = "shuffled"
    """The order of rows; `length_grouped` puts packs of similar length in one micro-batch."""
    train_on_prompt: bool = False
    """False: only replies are learned. True: questions and system text too, which suits a base that
    has yet to learn to read."""
    heldout: float = Field(0.0, ge=0)
    """Rows that are never trained on; their loss is measured every `evaluation_freq` steps. Below 1:
    a share of the rows; from 1 on: that many rows."""
    map_num_proc: int = Field(0, ge=0)
    """Processes that tokenize; 0: one per core where files are large, 1: the training's own process.
    The order of rows and errors does not depend on it."""
    token_cache: bool = True
    """Keep tokens on disk ($ELYSIA_CACHE, else ~/.cache/elysia). A file whose content, template or
    tokenizer has changed is tokenized again."""
    token_cache_gb: float = Field(50.0, ge=0)
    """How much space all cached tokens may take; the least recently used go first."""

    # Method
    method: Literal["qlora", "lora", "full"] = "qlora"
    """4-bit base and LoRA, 16-bit base and LoRA, or every weight."""
    lora_r: int = Field(64, ge=1)
    """Rank of the adapter."""
    lora_alpha: int = Field(16, ge=1)
    """The adapter's effect is scaled by alpha / r."""
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout between base and adapter, in training only."""
    lora_target_modules: str | list[str] = "all-linear"
    """`'all-linear'` is every linear layer but the head, and experts; or a list of layer names."""
    lora_experts: bool = True
    """Whether `'all-linear'` includes the experts of a mixture (Mixtral, Qwen3 MoE, DeepSeek, …), each
    with factors of rank `lora_r`; False leaves them as they are, which takes far less memory. A list
    of names has them where it names `experts`."""
    use_dora: bool = False
    """DoRA: the length of each weight row trains apart from its direction. Slower; not under ZeRO-3, not
    on experts."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) instead: a high rank keeps its strength."""
    loraplus_lr_ratio: float = Field(1.0, ge=1)
    """LoRA+: B's learning rate over A's (16 is usual, 1: off). A's factors, magnitudes and heads keep
    `lr`."""
    double_quant: bool = True
    """Quantize the 4-bit scales as well, which saves some 0.4 bits per weight."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of matrix products. auto: bfloat16 where the device has it natively, else float16
    on CUDA and float32 on a CPU. Trained weights stay in float32 beside it."""
    attention: Literal["auto", "segments", "sdpa", "eager", "flash_attention_2"] = "auto"
    """auto is `segments`: each row attends to itself alone. `sdpa` and `eager` pad rows instead;
    `flash_attention_2` needs its own package."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, slower."""
    torch_compile: bool = False
    """Compile the decoder layers, all but attention: [methods.md](methods.md#kernels). Not with
    `use_dora`, `flash_attention_2` or ZeRO-3; never measured on a GPU."""
    liger_kernel: bool = False
    """Liger's kernels for norms, rotations and gates of InternLM2, Llama and Qwen2:
    [methods.md](methods.md#kernels). Needs a GPU and the package liger-kernel; never run on a GPU
    here."""
    sequence_parallel_size: int = Field(1, ge=1)
    """How many processes share a row, each holding a slice, for rows too long for one GPU; attention
    exchanges slices for heads (Ulysses). It must divide the processes and the model's heads."""
    neftune_noise_alpha: float = Field(0.0, ge=0)
    """NEFTune's noise on the embeddings while training (5 is usual, 0: off)."""

    # Objective
    objective: Literal["sft", "dpo", "orpo", "reward"] = "sft"
    """What is learned: replies (`sft`), which of two is preferred (`dpo`, `orpo`), or a number for
    each (`reward`): [methods.md](methods.md)."""
    dpo_beta: float = Field(0.1, gt=0)
    """How strongly DPO is held to the reference model: a lower value strays further."""
    dpo_loss_type: Literal["sigmoid", "robust", "hinge", "ipo"] = "sigmoid"
    """DPO's own loss, its form for wrong labels, SLiC's hinge, or IPO (per token; overfits less)."""
    dpo_label_smoothing: float = Field(0.0, ge=0)
    """The share of pairs that may be labelled the wrong way round; below 0.5."""
    orpo_lambda: float = Field(0.1, gt=0)
    """Weight of ORPO's odds ratio beside the chosen reply's loss."""
    reward_loss_type: Literal["ranking", "focal"] = "ranking"
    """Bradley-Terry's loss, or InternLM2's focal one, in which pairs that are already told apart
    count less."""
    reward_penalty: Literal["none", "log_barrier", "l2"] = "none"
    """Keeps rewards small: within 5 of 0, or by their squares."""
    reward_penalty_weight: float = Field(0.01, ge=0)
    """Weight of that penalty beside the loss."""

    # Optimizer and schedule
    batch_size: int = Field(1, ge=1)
    """Packs per micro-batch and device."""
    accumulative_counts: int = Field(16, ge=1)
    """Micro-batches per step, weighted by their labelled tokens."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that load data; it is already tokenized, so 0 suffices."""
    max_epochs: int = Field(3, ge=1)
    """Passes over the data."""
    max_steps: int = Field(0, ge=0)
    """Stop after this many steps; 0: after `max_epochs`."""
    optimizer: str = "torch.optim.AdamW"
    """A class by its dotted name, such as `bitsandbytes.optim.PagedAdamW8bit`."""
    lr: float = Field(2e-4, gt=0)
    """Highest learning rate: warm-up to it, then `lr_schedule`, by step."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_norm: float = Field(1.0, ge=0)
    """The gradients of a step are clipped to this norm; 0: not clipped."""
    lr_schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    min_lr: float = Field(0.0, ge=0)
    """Where cosine and linear end: the last step's rate."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """The warm-up as a share of the steps; above 0 it is at least one step."""
    warmup_steps: int = Field(0, ge=0)
    """The warm-up in steps; above 0 it replaces `warmup_ratio`."""

    # Output
    save_steps: int = Field(500, ge=0)
    """Steps between two checkpoints; 0: only one, at the end."""
    save_total_limit: int = 2
    """How many of the newest checkpoints stay; 0: all."""
    logging_interval: int = Field(10, ge=1)
    """Steps between two lines of the log."""
    report_to: str | list[str] = ""
    """Where scalars go beside the log and TensorBoard: `wandb`, `swanlab` or both. Install them
    yourself; they read their keys from their own login."""

    # Evaluation
    evaluation_freq: int = Field(500, ge=1)
    """Steps between evaluation chats, and between held-out losses."""
    evaluation_inputs: list[str] = Field(default_factory=list)
    """Questions to answer while training, into `vis_data/eval_outputs_iter_N.txt`."""
    evaluation_max_new_tokens: int = Field(100, ge=1)
    """Longest reply to them, and to what `persona_freq` asks."""
    evaluation_system: str | None = None
    """The system prompt of evaluation chats; None: the system prompt of training."""
    persona_freq: int = Field(0, ge=0)
    """Steps between two measurements of `persona` ([scorecard](scorecard.md#while-it-trains)): the
    held-out replies against the base, the next line, identity, leaks, copying, forgetting. 0:
    never."""
    persona_heldout: str = ""
    """Rows of the character that are never trained on, in any dataset format."""
    persona_general: str = ""
    """General rows that are never trained on, which show forgetting."""
    persona_limit: int = Field(24, ge=1)
    """How many replies of each of the two are read."""
    persona_tradeoff: dict[str, Any] = Field(default_factory=dict)
    """Weights of measures, whose sum says which step is best; `{}`: voice_gain + identity - leak -
    general_lost."""
    persona_patience: int = Field(0, ge=0)
    """Stop after this many measurements without a better one; the best checkpoint stays as
    `best_checkpoint`, which conversion takes. 0: train to the end."""
    mmlu_path: str = ""
    """Questions of MMLU to score every `evaluation_freq` steps: rows of `input` (the whole prompt),
    `output` (A to D) and `subject`. The share of right answers goes into the log and
    `vis_data/mmlu_iter_N.txt`."""

    # Other
    seed: int = Field(42, ge=0)
    """Seed of adapters, held-out rows, packs, order and dropout. `--seed` sets it, too."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Merged last into the expanded MMEngine config; nested keys as `a.b`."""

    def model_post_init(self, _: Any) -> None:
        if self.prompt_template != AUTO:
            load_template(self.prompt_template)
        check_consistency(self)

    def non_defaults(self) -> dict[str, Any]:
        """The settings that differ from their defaults, in the order of the fields."""
        return {
            name: getattr(self, name)
            for name, setting in Settings.model_fields.items()
            if getattr(self, name) != setting.get_default(call_default_factory=True)
        }

    @property
    def pairs(self) -> bool:
        """Whether the data are preference pairs."""
        return self.objective != "sft"

    @property
    def sources(self) -> list[dict[str, Any]]:
        """`data_path` as a list of dict(path, format, repeat, limit, …): see `validation.SOURCE_KEYS`."""
        paths = self.data_path if isinstance(self.data_path, list) else [self.data_path]
        defaults = {"path": None, "format": self.dataset_format, "repeat": 1, "limit": None}
        return [defaults | (dict(p) if isinstance(p, Mapping) else {"path": p}) for p in paths]

    @property
    def compute_dtype(self) -> str:
        """Name of the dtype that matrix products run in on this machine, such as "bfloat16"."""
        if self.dtype != "auto":
            return self.dtype
        from elysia.models.device import pick_device, pick_dtype

        return str(pick_dtype(pick_device())).removeprefix("torch.")

    def load_system_text(self) -> str:
        """The system prompt of training: what the config says, else what the persona's card says."""
        if self.SYSTEM is not None or not self.persona:
            return self.SYSTEM or ""
        from elysia.core.persona import Persona

        # The card's one line about itself: the whole card would stand before every row.
        return Persona.load(resolve_bundled(self.persona)).system_line()

    def load_evaluation_system(self) -> str:
        """The system prompt of evaluation chats: their own, else the one of training."""
        own = self.evaluation_system
        return self.load_system_text() if own is None else own


def load_settings(config: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a config file, of a bundled config by name, or of one that ships with XTuner.

    Raises ConfigError for a file that is missing or does not run, an unknown name, a wrong type.
    """
    if (shipped := _read_shipped(str(config), dict(cfg_options or {}))) is not None:
        return build_settings(shipped, str(config))
    path = find_config(str(config))
    values, xtuner_tree = _read_config(path, dict(cfg_options or {}))
    if xtuner_tree is not None:
        values = _convert_xtuner(xtuner_tree, path, dict(cfg_options or {}))
    return build_settings(values, str(path))


def build_settings(values: Mapping[str, Any], where: str) -> Settings:
    """Checked settings from plain values; every ConfigError names `where` they come from."""
    required = ("pretrained_model_name_or_path", "data_path")
    missing = next((name for name in required if not values.get(name)), None)
    if missing and set(values) <= set(Settings.model_fields):  # a misspelt name is the better hint
        raise ConfigError("train.setting_missing", where=where, name=missing)
    return Settings.build(values, where)


def _read_shipped(name: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """The settings of a config that ships with XTuner, its changes logged; None when `name` is none of
    them, or leads to a file or to a bundled config. ConfigError for one that cannot be trained."""
    if Path(name).exists() or name in list_bundled_configs():
        return None
    from mmengine.config import Config

    from elysia.compat.xtuner import shipped_configs

    if reason := shipped_configs.list_unsupported_configs().get(name):
        raise ConfigError("train.xtuner_refused", path=name, reasons=reason)
    report = shipped_configs.read_shipped_config(name)
    if report is None:
        return None
    _log_changes(name, report)
    config = Config(report.values)
    _merge_options(config, options, name)
    values: dict[str, Any] = config.to_dict()
    return values


def _convert_xtuner(tree: dict[str, Any], path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that an XTuner config amounts to, its changes logged; ConfigError when it cannot be
    trained."""
    from elysia.compat.xtuner.convert import convert_tree

    report = convert_tree(tree, path, options, setting_names=list(Settings.model_fields))
    if report.reasons:
        raise ConfigError("train.xtuner_refused", path=path, reasons="; ".join(report.reasons))
    _log_changes(path.name, report)
    return report.values


def _log_changes(name: str, report: ConversionReport) -> None:
    """Say once, in the first process, what trains otherwise than in XTuner."""
    if os.environ.get("RANK", "0") == "0":
        for text in report.changes.values():
            log.info("%s: %s.", name, text)


def _merge_options(config: Any, options: dict[str, Any], where: str | Path) -> None:
    """Put --cfg-options into MMEngine's Config; ConfigError for those that do not fit."""
    try:
        config.merge_from_dict(options)
    except (TypeError, KeyError) as error:
        raise ConfigError("train.cfg_options_do_not_fit", path=where, error=error) from error


def _read_config(
    path: Path, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(plain values of a config, None); or ({}, its objects) for an XTuner config."""
    from mmengine.config import Config

    from elysia.compat.xtuner import loader

    config = loader.load_config_file(path)
    tree = loader.config_to_tree(config)
    if loader.is_xtuner_config(tree):
        if not isinstance(tree.get("settings"), Mapping):
            return {}, tree
        config = Config(dict(config.settings))  # an expanded config of ours, from a work dir
    _merge_options(config, options, path)
    values = config.to_dict()
    return {k: v for k, v in values.items() if not k.startswith("_")}, None
