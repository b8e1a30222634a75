"""Settings become a recipe: the full MMEngine config that a runner carries out.

The one place where a flat name of `settings.py` is given its meaning. Knows nothing of files' contents.
"""

from __future__ import annotations

from typing import Any

from elysia.train import trackers
from elysia.voice.training.settings import VoiceSettings

HERE = "elysia.voice.training"


def recipe(
    settings: VoiceSettings,
    *,
    name: str,
    work_dir: str,
    start: str,
    dtype: str,
    card: dict[str, Any],
    resume: str | None = None,
) -> dict[str, Any]:
    """A dict that `mmengine.Config` takes whole."""
    return {
        "settings": settings.to_dict(),
        "work_dir": work_dir,
        "experiment_name": name,
        "model": model(settings, start, dtype),
        "train_dataloader": {
            "dataset": {
                "type": f"{HERE}.clips.Clips", "data": settings.data_path, "start": start,
                "speaker": settings.speaker, "segment": settings.segment_frames,
            },
            "sampler": {
                "type": "elysia.train.dataset.EpochSampler", "batch_size": settings.batch_size,
            },
            "batch_size": settings.batch_size,
            "num_workers": settings.dataloader_num_workers,
            "collate_fn": {"type": f"{HERE}.clips.collate"},
        },
        "train_cfg": {
            "type": f"{HERE}.loop.VoiceLoop", "max_epochs": settings.max_epochs,
            "max_steps": settings.max_steps,
        },
        "optim_wrapper": optimizer(settings, dtype),
        "param_scheduler": {
            "type": "elysia.train.schedule.WarmupCosineLR", "by_epoch": False, "warmup_ratio": 0.0,
            "warmup_steps": settings.warmup_steps, "shape": settings.lr_schedule,
            "min_lr": settings.min_lr,
        },
        "strategy": {"type": f"{HERE}.loop.VoiceDevice"},
        "default_hooks": {
            "timer": {"type": "IterTimerHook"},
            "sampler_seed": None,  # the loop seeks
            "logger": {
                "type": "LoggerHook", "interval": settings.logging_interval,
                "log_metric_by_epoch": False,
            },
            "param_scheduler": {"type": "ParamSchedulerHook"},
            "checkpoint": {
                "type": "elysia.train.hooks.checkpoint_hook.CheckpointHook",
                "interval": settings.save_steps, "keep": settings.save_total_limit, "card": card,
            },
        },
        "custom_hooks": [
            {
                "type": f"{HERE}.hooks.ListenHook", "interval": settings.listen_steps,
                "texts": settings.listen_texts, "start": start, "speaker": settings.speaker,
            },
            {"type": f"{HERE}.hooks.CurvesHook"},
        ],
        "log_processor": {"by_epoch": False, "window_size": settings.logging_interval},
        "visualizer": {
            "type": "Visualizer",
            "vis_backends": trackers.backends(settings.report_to, name, work_dir),
        },
        "launcher": "none",
        "resume": resume or False,
        "randomness": {"seed": settings.seed},
        "env_cfg": {},
        "log_level": "INFO",
        "default_scope": "mmengine",
    }  # fmt: skip


def model(settings: VoiceSettings, start: str, dtype: str) -> dict[str, Any]:
    """The class that is trained, and what it is built with."""
    kinds = ("mel", "kl", "duration", "feature", "adversarial")
    return {
        "type": f"{HERE}.model.VoiceFinetune",
        "folder": start,
        "weights": {kind: getattr(settings, f"{kind}_weight") for kind in kinds},
        "mel": {"bands": settings.mel_bands, "low": settings.mel_low, "high": settings.mel_high},
        "segment": settings.segment_frames,
        "dtype": dtype,
        "discriminator_scale": settings.discriminator_scale,
    }


def optimizer(settings: VoiceSettings, dtype: str) -> dict[str, Any]:
    """One half's optimizer; both have the same numbers."""
    wrapper: dict[str, Any] = {
        "type": "OptimWrapper",
        "optimizer": {
            "type": "torch.optim.AdamW", "lr": settings.lr, "betas": settings.betas, "eps": 1e-9,
            "weight_decay": settings.weight_decay,
        },
    }  # fmt: skip
    if settings.max_norm:
        wrapper["clip_grad"] = {"max_norm": settings.max_norm, "error_if_nonfinite": False}
    if dtype == "float16":  # bfloat16 needs no loss scale
        wrapper |= {"type": "AmpOptimWrapper", "loss_scale": "dynamic", "dtype": "float16"}
    return wrapper
