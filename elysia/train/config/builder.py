"""From settings to the full MMEngine config that a runner carries out: the one place where a setting gets its
effect.

Classes are named through the classes themselves (`class_path`), so the expanded config that a run dumps into
its work dir says where to read on.
"""

from __future__ import annotations

import logging
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from elysia.core.errors import ConfigError
from elysia.core.paths import resolve_all_bundled, resolve_bundled
from elysia.models.chat_format import AUTO
from elysia.models.hub import resolve_model
from elysia.models.loading import load_tokenizer
from elysia.models.template_marks import describe_unknown_marks
from elysia.train.config.deepspeed_presets import load_deepspeed_config
from elysia.train.config.provenance import build_run_card, resolve_settings_template
from elysia.train.config.settings import Settings
from elysia.train.config.trackers import build_vis_backends
from elysia.train.config.validation import check_device, check_liger_model, resolve_tokenizer
from elysia.train.data.dataset import EpochSampler, PackedDataset, collate_flat, collate_padded
from elysia.train.distributed.deepspeed_strategy import DeepSpeedStrategy
from elysia.train.distributed.strategy import DDPStrategy, SingleDeviceStrategy
from elysia.train.engine.loop import TrainLoop
from elysia.train.engine.optimization import WarmupDecayLR
from elysia.train.engine.runner import class_path
from elysia.train.hooks.checkpoint_hook import CheckpointHook
from elysia.train.hooks.dpo_reference_hook import DPOReferenceHook
from elysia.train.hooks.evaluation_hooks import EvalLossHook, EvaluateChatHook, MMLUHook
from elysia.train.hooks.monitoring_hooks import DatasetInfoHook, LossCurveHook, ThroughputHook
from elysia.train.hooks.persona_hook import PersonaHook
from elysia.train.hooks.plan_report_hook import PlanReportHook
from elysia.train.methods.preference import PreferenceFinetune
from elysia.train.methods.reward import RewardFinetune
from elysia.train.methods.sft import SupervisedFinetune

log = logging.getLogger(__name__)

FLAT_ATTENTION = ("auto", "segments", "flash_attention_2")  # takes samples end to end, unpadded


def build_runner_config(
    settings: Settings,
    *,
    name: str,
    work_dir: str,
    deepspeed: str | None = None,
    resume: str | None = None,
    launcher: str = "none",
) -> dict[str, Any]:
    """A dict that `mmengine.Config` takes whole: model, data, optimizer, schedule, hooks.

    Raises DeviceError or ModelError for settings that this machine or this model cannot run.
    """
    check_device(settings)
    folder = str(resolve_model(settings.pretrained_model_name_or_path, settings.hub))
    check_liger_model(settings, folder)
    tokenizer = resolve_tokenizer(settings, folder)
    _warn_about_marks(settings, tokenizer)
    collate = _build_collate(settings, tokenizer)
    data = build_dataset_config(settings, tokenizer)
    return {
        "settings": settings.to_dict(),
        "work_dir": work_dir,
        "experiment_name": name,
        "model": build_model_config(settings, folder, settings.compute_dtype),
        "train_dataloader": _build_dataloader(settings, data, collate),
        "train_cfg": {
            "type": class_path(TrainLoop),
            "max_epochs": settings.max_epochs,
            "max_steps": settings.max_steps,
            "accumulative_counts": settings.accumulative_counts,
            "sequence_parallel_size": settings.sequence_parallel_size,
        },
        "optim_wrapper": _build_optim_wrapper(settings, bool(deepspeed)),
        "param_scheduler": _build_schedule(settings),
        "strategy": _build_strategy(settings, deepspeed, launcher),
        "default_hooks": _build_default_hooks(settings, folder),
        "custom_hooks": _build_custom_hooks(settings, tokenizer, data, collate),
        "log_processor": {"by_epoch": False, "window_size": settings.logging_interval},
        "visualizer": {
            "type": "Visualizer",
            "vis_backends": build_vis_backends(settings.report_to, name, work_dir),
        },
        "launcher": launcher,
        "resume": resume or False,
        "randomness": {"seed": settings.seed},
        "env_cfg": {},
        "log_level": "INFO",
        "default_scope": "mmengine",
    }


def build_model_config(settings: Settings, folder: str, dtype: str) -> dict[str, Any]:
    """The class that is trained (`type`) and its arguments, for the base model in `folder`."""
    adapter = None
    if settings.method != "full":
        adapter = {
            "r": settings.lora_r,
            "alpha": settings.lora_alpha,
            "dropout": settings.lora_dropout,
            "targets": settings.lora_target_modules,
            "dora": settings.use_dora,
            "rslora": settings.use_rslora,
            "experts": settings.lora_experts,
        }
    return {
        **_build_objective(settings),
        "llm": {
            "path": folder,
            "hub": settings.hub,
            "bits": 4 if settings.method == "qlora" else None,
            "double_quant": settings.double_quant,
        },
        "adapter": adapter,
        "dtype": dtype,
        "attention": "segments" if settings.attention == "auto" else settings.attention,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "torch_compile": settings.torch_compile,
        "liger_kernel": settings.liger_kernel,
        "sequence_parallel_size": settings.sequence_parallel_size,
        "neftune_noise_alpha": settings.neftune_noise_alpha,
    }


def _build_objective(settings: Settings) -> dict[str, Any]:
    """The class that is trained, and the numbers of its loss."""
    objective: dict[str, Any]
    if settings.objective == "sft":
        return {"type": class_path(SupervisedFinetune)}
    if settings.objective == "reward":
        objective = {
            "loss_type": settings.reward_loss_type,
            "penalty": settings.reward_penalty,
            "penalty_weight": settings.reward_penalty_weight,
        }
        return {"type": class_path(RewardFinetune), "objective": objective}
    if settings.objective == "dpo":
        objective = {
            "kind": "dpo",
            "beta": settings.dpo_beta,
            "loss_type": settings.dpo_loss_type,
            "label_smoothing": settings.dpo_label_smoothing,
        }
    else:
        objective = {"kind": "orpo", "weight": settings.orpo_lambda}
    return {"type": class_path(PreferenceFinetune), "objective": objective}


def _describe_template(settings: Settings, tokenizer: str) -> str | dict[str, Any]:
    """The prompt template as a config holds it: as the settings have it, or what "auto" turned out to be."""
    if isinstance(settings.prompt_template, str) and settings.prompt_template != AUTO:
        return settings.prompt_template
    return resolve_settings_template(settings, tokenizer).to_dict()


def _warn_about_marks(settings: Settings, tokenizer: str) -> None:
    """Warn of a template that was asked for and that the tokenizer does not know."""
    if settings.prompt_template == AUTO:
        return
    template = resolve_settings_template(settings, tokenizer)
    warning = describe_unknown_marks(template, load_tokenizer(Path(tokenizer)))
    if warning:
        log.warning("%s", warning)


def build_dataset_config(settings: Settings, tokenizer: str) -> dict[str, Any]:
    """The arguments of PackedDataset, for training and for the verbs that show the data.
    `tokenizer` is a folder."""
    return {
        "sources": [
            source | {"path": resolve_all_bundled(source["path"])} for source in settings.sources
        ],
        "tokenizer": tokenizer,
        "eos_token": settings.eos_token,
        "hub": settings.hub,
        "template": _describe_template(settings, tokenizer),
        "system": settings.load_system_text(),
        "max_length": settings.max_length,
        "overlong": settings.overlong,
        "train_on_prompt": settings.train_on_prompt,
        "heldout": settings.heldout,
        "pack": settings.pack_to_max_length,
        "seed": settings.seed,
        "pairs": settings.pairs,
        "cache": settings.token_cache_gb if settings.token_cache else 0,
        "processes": settings.map_num_proc,
    }


def _build_collate(settings: Settings, tokenizer: str) -> dict[str, Any]:
    if settings.attention in FLAT_ATTENTION:
        return {"type": class_path(collate_flat)}
    pad_id = load_tokenizer(Path(tokenizer)).pad_token_id
    return {"type": class_path(collate_padded), "pad_id": pad_id or 0}


def _build_dataloader(
    settings: Settings, data: dict[str, Any], collate: dict[str, Any]
) -> dict[str, Any]:
    return {
        "dataset": {"type": class_path(PackedDataset), **data},
        "sampler": {
            "type": class_path(EpochSampler),
            "batch_size": settings.batch_size,
            "shuffle": settings.sampler != "sequential",
            "by_length": settings.sampler == "length_grouped",
            "sequence_parallel_size": settings.sequence_parallel_size,
        },
        "batch_size": settings.batch_size,
        "num_workers": settings.dataloader_num_workers,
        "collate_fn": dict(collate),
    }


def _build_optim_wrapper(settings: Settings, deepspeed: bool) -> dict[str, Any]:
    wrapper: dict[str, Any] = {
        "type": "OptimWrapper",
        "optimizer": build_optimizer_config(settings, deepspeed),
    }
    if settings.loraplus_lr_ratio != 1:
        wrapper["loraplus_lr_ratio"] = settings.loraplus_lr_ratio
    if settings.max_norm and not deepspeed:  # DeepSpeed clips by its own setting
        wrapper["clip_grad"] = {"max_norm": settings.max_norm, "error_if_nonfinite": False}
    if settings.compute_dtype == "float16" and not deepspeed:  # bfloat16 needs no loss scale
        wrapper |= {"type": "AmpOptimWrapper", "loss_scale": "dynamic", "dtype": "float16"}
    return wrapper


def _build_schedule(settings: Settings) -> dict[str, Any]:
    return {
        "type": class_path(WarmupDecayLR),
        "by_epoch": False,
        "warmup_ratio": settings.warmup_ratio,
        "warmup_steps": settings.warmup_steps,
        "shape": settings.lr_schedule,
        "min_lr": settings.min_lr,
    }


def _build_strategy(settings: Settings, deepspeed: str | None, launcher: str) -> dict[str, Any]:
    if not deepspeed:
        strategy = SingleDeviceStrategy if launcher == "none" else DDPStrategy
        return {"type": class_path(strategy)}
    return {
        "type": class_path(DeepSpeedStrategy),
        "config": load_deepspeed_config(deepspeed),
        "dtype": settings.compute_dtype,
        "max_norm": settings.max_norm,
        "accumulative_counts": settings.accumulative_counts,
        "batch_size": settings.batch_size,
        "launcher": launcher,
    }


def _build_default_hooks(settings: Settings, folder: str) -> dict[str, Any]:
    return {
        "timer": {"type": "IterTimerHook"},
        "sampler_seed": None,  # MMEngine's would reseed each epoch; our loop seeks by itself
        "logger": {
            "type": "LoggerHook",
            "interval": settings.logging_interval,
            "log_metric_by_epoch": False,
        },
        "param_scheduler": {"type": "ParamSchedulerHook"},
        "checkpoint": {
            "type": class_path(CheckpointHook),
            "interval": settings.save_steps,
            "keep": settings.save_total_limit,
            "card": build_run_card(settings, folder).to_dict(),
        },
    }


def _build_custom_hooks(
    settings: Settings, tokenizer: str, data: dict[str, Any], collate: dict[str, Any]
) -> list[dict[str, Any]]:
    hooks: list[dict[str, Any]] = [
        {"type": class_path(DatasetInfoHook), "samples": 1 + settings.pairs},
        {"type": class_path(ThroughputHook)},
        {"type": class_path(PlanReportHook), "settings": settings.sha256()},
    ]
    if settings.heldout:
        hooks.append(
            {
                "type": class_path(EvalLossHook),
                "interval": settings.evaluation_freq,
                "dataset": {**data, "split": "heldout", "pack": True, "train_on_prompt": False},
                "collate": collate,
            }
        )
    if settings.objective == "dpo" and settings.method == "full":
        hooks.append({"type": class_path(DPOReferenceHook), "collate": collate})
    if settings.evaluation_inputs:
        hooks.append(
            {
                "type": class_path(EvaluateChatHook),
                "tokenizer": tokenizer,
                "hub": settings.hub,
                "evaluation_inputs": settings.evaluation_inputs,
                "every_n_iters": settings.evaluation_freq,
                "prompt_template": _describe_template(settings, tokenizer),
                "system": settings.load_evaluation_system(),
                "eos_token": settings.eos_token,
                "max_new_tokens": settings.evaluation_max_new_tokens,
            }
        )
    if settings.persona_freq:
        hooks.append(_build_persona_hook(settings, tokenizer))
    if settings.mmlu_path:
        hooks.append(
            {
                "type": class_path(MMLUHook),
                "path": resolve_bundled(settings.mmlu_path),
                "interval": settings.evaluation_freq,
                "tokenizer": tokenizer,
                "hub": settings.hub,
                "max_length": settings.max_length,
            }
        )
    return [*hooks, {"type": class_path(LossCurveHook)}]


def _build_persona_hook(settings: Settings, tokenizer: str) -> dict[str, Any]:
    general = settings.persona_general
    return {
        "type": class_path(PersonaHook),
        "interval": settings.persona_freq,
        "tokenizer": tokenizer,
        "hub": settings.hub,
        "eos_token": settings.eos_token,
        "prompt_template": _describe_template(settings, tokenizer),
        "system": settings.load_system_text(),
        "persona": resolve_bundled(settings.persona or ""),
        "heldout": resolve_bundled(settings.persona_heldout),
        "general": resolve_bundled(general) if general else "",
        "limit": settings.persona_limit,
        "max_length": settings.max_length,
        "tradeoff": settings.persona_tradeoff,
        "patience": settings.persona_patience,
        "max_new_tokens": settings.evaluation_max_new_tokens,
    }


def build_optimizer_config(settings: Settings, deepspeed: bool) -> dict[str, Any]:
    """The optimizer's class, `lr`, and those of betas, weight_decay and fused that it accepts; ConfigError
    when there is no such class."""
    module, _, name = settings.optimizer.rpartition(".")
    try:
        accepted = signature(getattr(import_module(module), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            "train.unknown_optimizer", name=settings.optimizer, reason=error
        ) from error
    arguments: dict[str, Any] = {
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
        "fused": not deepspeed,  # DeepSpeed replaces the tensors under the optimizer
    }
    arguments = {key: value for key, value in arguments.items() if key in accepted}
    return {"type": settings.optimizer, "lr": settings.lr, **arguments}
