"""Settings become a recipe: the full MMEngine config that a runner carries out.

This is the one place where a flat name is given its meaning. Every `type` is a dotted path, so the
dumped recipe says where to read on. Knows nothing of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elysia.core.paths import resolve_all_bundled, resolve_bundled
from elysia.core.templates import suggest_templates
from elysia.models import loading
from elysia.train.config import trackers
from elysia.train.config.preflight import check_device, check_liger, resolve_tokenizer
from elysia.train.config.provenance import evaluation_system, get_dtype, run_card, system_text
from elysia.train.config.settings import Settings
from elysia.train.engine.optimization import build_optimizer_config

HOOKS = "elysia.train.hooks"


def build_runner_config(
    settings: Settings,
    *,
    name: str,
    work_dir: str,
    deepspeed: str | None = None,
    resume: str | None = None,
    launcher: str = "none",
) -> dict[str, Any]:
    """A dict that `mmengine.Config` takes whole: model, data, optimizer, schedule, hooks."""
    check_device(settings)
    dtype = get_dtype(settings)
    flat = settings.attention in ("auto", "segments", "flash_attention_2")
    folder = str(loading.resolve_model(settings.pretrained_model_name_or_path, settings.hub))
    check_liger(settings, folder)
    words = resolve_tokenizer(settings, folder)
    collate: dict[str, Any] = {"type": "elysia.train.data.dataset.collate_flat"}
    if not flat:
        pad = loading.load_tokenizer(Path(words)).pad_token_id
        collate = {"type": "elysia.train.data.dataset.collate_padded", "pad_id": pad or 0}
    data = build_dataset_config(settings, words)
    return {
        "settings": settings.to_dict(),
        "work_dir": work_dir,
        "experiment_name": name,
        "model": build_model_config(settings, folder, dtype),
        "train_dataloader": {
            "dataset": {"type": "elysia.train.data.dataset.PackedDataset", **data},
            "sampler": {
                "type": "elysia.train.data.dataset.EpochSampler",
                "batch_size": settings.batch_size,
                "shuffle": settings.sampler != "sequential",
                "by_length": settings.sampler == "length_grouped",
                "sequence_parallel_size": settings.sequence_parallel_size,
            },
            "batch_size": settings.batch_size,
            "num_workers": settings.dataloader_num_workers,
            "collate_fn": dict(collate),
        },
        "train_cfg": {
            "type": "elysia.train.engine.loop.TrainLoop",
            "max_epochs": settings.max_epochs,
            "max_steps": settings.max_steps,
            "accumulative_counts": settings.accumulative_counts,
            "sequence_parallel_size": settings.sequence_parallel_size,
        },
        "optim_wrapper": _build_optim_wrapper(settings, dtype, bool(deepspeed)),
        "param_scheduler": {
            "type": "elysia.train.engine.optimization.WarmupDecayLR",
            "by_epoch": False,
            "warmup_ratio": settings.warmup_ratio,
            "warmup_steps": settings.warmup_steps,
            "shape": settings.lr_schedule,
            "min_lr": settings.min_lr,
        },
        "strategy": _build_strategy(settings, dtype, deepspeed, launcher),
        "default_hooks": {
            "timer": {"type": "IterTimerHook"},
            "sampler_seed": None,  # the loop seeks
            "logger": {
                "type": "LoggerHook",
                "interval": settings.logging_interval,
                "log_metric_by_epoch": False,
            },
            "param_scheduler": {"type": "ParamSchedulerHook"},
            "checkpoint": {
                "type": f"{HOOKS}.checkpoint_hook.CheckpointHook",
                "interval": settings.save_steps,
                "keep": settings.save_total_limit,
                "card": run_card(settings, folder).to_dict(),
            },
        },
        "custom_hooks": _build_custom_hooks(settings, words, data, collate),
        "log_processor": {"by_epoch": False, "window_size": settings.logging_interval},
        "visualizer": {
            "type": "Visualizer",
            "vis_backends": trackers.build_vis_backends(settings.report_to, name, work_dir),
        },
        "launcher": launcher,
        "resume": resume or False,
        "randomness": {"seed": settings.seed},
        "env_cfg": {},
        "log_level": "INFO",
        "default_scope": "mmengine",
    }  # fmt: skip


def build_model_config(settings: Settings, folder: str, dtype: str) -> dict[str, Any]:
    """The class that is trained (`type`) and what it is built with."""
    adapter = None
    if settings.method != "full":
        adapter = {
            "r": settings.lora_r,
            "alpha": settings.lora_alpha,
            "dropout": settings.lora_dropout,
            "targets": settings.lora_target_modules,
            "dora": settings.use_dora,
            "rslora": settings.use_rslora,
        }
    bits = 4 if settings.method == "qlora" else None
    return {
        **_build_objective(settings),
        "llm": {
            "path": folder,
            "hub": settings.hub,
            "bits": bits,
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
    """The class that is trained, and what its loss must know."""
    if not settings.pairs:
        return {"type": "elysia.train.methods.sft.SupervisedFinetune"}
    if settings.objective == "reward":
        ranked = {
            "loss_type": settings.reward_loss_type,
            "penalty": settings.reward_penalty,
            "penalty_weight": settings.reward_penalty_weight,
        }
        return {"type": "elysia.train.methods.reward.RewardFinetune", "objective": ranked}
    numbers: dict[str, Any] = {"kind": settings.objective}
    if settings.objective == "dpo":
        numbers |= {
            "beta": settings.dpo_beta,
            "loss_type": settings.dpo_loss_type,
            "label_smoothing": settings.dpo_label_smoothing,
        }
    else:
        numbers["weight"] = settings.orpo_lambda
    return {"type": "elysia.train.methods.preference.PreferenceFinetune", "objective": numbers}


def build_dataset_config(settings: Settings, folder: str) -> dict[str, Any]:
    """What PackedDataset is built with, for training and for the verbs that show the data."""
    return {
        "sources": [
            source | {"path": resolve_all_bundled(source["path"])} for source in settings.sources
        ],
        "tokenizer": folder,
        "eos_token": settings.eos_token,
        "hub": settings.hub,
        "template": settings.prompt_template,
        "system": system_text(settings),
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


def _build_optim_wrapper(settings: Settings, dtype: str, deepspeed: bool) -> dict[str, Any]:
    wrapper: dict[str, Any] = {
        "type": "OptimWrapper",
        "optimizer": build_optimizer_config(settings, deepspeed),
    }
    if settings.loraplus_lr_ratio != 1:
        wrapper["loraplus_lr_ratio"] = settings.loraplus_lr_ratio
    if settings.max_norm and not deepspeed:  # DeepSpeed clips by its own setting
        wrapper["clip_grad"] = {"max_norm": settings.max_norm, "error_if_nonfinite": False}
    if dtype == "float16" and not deepspeed:  # bfloat16 needs no loss scale
        wrapper |= {"type": "AmpOptimWrapper", "loss_scale": "dynamic", "dtype": "float16"}
    return wrapper


def _build_strategy(
    settings: Settings, dtype: str, deepspeed: str | None, launcher: str
) -> dict[str, Any]:
    if not deepspeed:
        kind = "SingleDevice" if launcher == "none" else "DataParallel"
        return {"type": f"elysia.train.distributed.strategy.{kind}"}
    from elysia.train.distributed.deepspeed_strategy import load_deepspeed_config

    return {
        "type": "elysia.train.distributed.deepspeed_strategy.DeepSpeedStrategy",
        "config": load_deepspeed_config(deepspeed),
        "dtype": dtype,
        "max_norm": settings.max_norm,
        "accumulative_counts": settings.accumulative_counts,
        "batch_size": settings.batch_size,
        "launcher": launcher,
    }


def _build_custom_hooks(
    settings: Settings, folder: str, data: dict[str, Any], collate: dict[str, Any]
) -> list[dict[str, Any]]:
    hooks: list[dict[str, Any]] = [
        {"type": f"{HOOKS}.dataset_info_hook.DatasetInfoHook", "samples": 1 + settings.pairs},
        {"type": f"{HOOKS}.throughput_hook.ThroughputHook"},
        {"type": f"{HOOKS}.plan_report_hook.PlanReportHook", "settings": settings.sha256()},
    ]
    if settings.heldout:
        held = {**data, "split": "heldout", "pack": True, "train_on_prompt": False}
        hooks.append(
            {
                "type": f"{HOOKS}.heldout_hook.HeldoutHook",
                "interval": settings.evaluation_freq,
                "dataset": held,
                "collate": collate,
            }
        )
    if settings.objective == "dpo" and settings.method == "full":
        hooks.append({"type": f"{HOOKS}.reference_hook.ReferenceHook", "collate": collate})
    if settings.evaluation_inputs:
        hooks.append(
            {
                "type": f"{HOOKS}.evaluate_chat_hook.EvaluateChatHook",
                "tokenizer": folder,
                "hub": settings.hub,
                "evaluation_inputs": settings.evaluation_inputs,
                "every_n_iters": settings.evaluation_freq,
                "prompt_template": settings.prompt_template,
                "system": evaluation_system(settings),
                "eos_token": settings.eos_token,
                "max_new_tokens": settings.evaluation_max_new_tokens,
            }
        )
    if settings.persona_freq:
        hooks.append(_build_persona_hook(settings, folder))
    if settings.mmlu_path:
        hooks.append(
            {
                "type": f"{HOOKS}.mmlu_hook.MMLUHook",
                "path": resolve_bundled(settings.mmlu_path),
                "interval": settings.evaluation_freq,
                "tokenizer": folder,
                "hub": settings.hub,
                "max_length": settings.max_length,
            }
        )
    return [*hooks, {"type": f"{HOOKS}.loss_curve_hook.LossCurveHook"}]


def _build_persona_hook(settings: Settings, folder: str) -> dict[str, Any]:
    general = settings.persona_general
    return {
        "type": f"{HOOKS}.persona_hook.PersonaHook",
        "interval": settings.persona_freq,
        "tokenizer": folder,
        "hub": settings.hub,
        "eos_token": settings.eos_token,
        "prompt_template": settings.prompt_template,
        "system": system_text(settings),
        "persona": resolve_bundled(settings.persona or ""),
        "heldout": resolve_bundled(settings.persona_heldout),
        "general": resolve_bundled(general) if general else "",
        "limit": settings.persona_limit,
        "max_length": settings.max_length,
        "tradeoff": settings.persona_tradeoff,
        "patience": settings.persona_patience,
        "max_new_tokens": settings.evaluation_max_new_tokens,
    }


def describe_template_mismatch(settings: Settings, model_type: str) -> str | None:
    """A warning when the prompt template belongs to another family of models than the base."""
    suiting = suggest_templates(model_type, settings.pretrained_model_name_or_path)
    if not suiting or settings.prompt_template in suiting:
        return None
    if not isinstance(settings.prompt_template, str):
        return None  # written out by the user, who will know why
    return (
        f"prompt_template is '{settings.prompt_template}', but {settings.pretrained_model_name_or_path} "
        f"is a {model_type} model, which was taught '{suiting[0]}'. Training goes on; for best results "
        f"set prompt_template = '{suiting[0]}'."
    )
