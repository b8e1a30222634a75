"""From a voice's settings to the MMEngine config that its runner carries out."""

from __future__ import annotations

from typing import Any

from elysia.train.config import trackers
from elysia.train.data.dataset import EpochSampler
from elysia.train.engine.optimization import WarmupDecayLR
from elysia.train.engine.runner import class_path
from elysia.train.hooks.checkpoint_hook import CheckpointHook
from elysia.voice.training import hooks, loop
from elysia.voice.training.dataset import ClipDataset, collate
from elysia.voice.training.model import VoiceFinetune
from elysia.voice.training.settings import VoiceSettings


def build_runner_config(
    settings: VoiceSettings,
    *,
    name: str,
    work_dir: str,
    start: str,
    dtype: str,
    card: dict[str, Any],
    resume: str | None = None,
) -> dict[str, Any]:
    """The dict that becomes an `mmengine.Config`.

    `name` is the experiment's, `start` the start folder, `dtype` that of matrix products, `card` the run
    card for checkpoints, `resume` a checkpoint's path.
    """
    return {
        "settings": settings.to_dict(),
        "work_dir": work_dir,
        "experiment_name": name,
        "model": _model_config(settings, start, dtype),
        "train_dataloader": _dataloader_config(settings, start),
        "train_cfg": {
            "type": class_path(loop.VoiceTrainLoop),
            "max_epochs": settings.max_epochs, "max_steps": settings.max_steps,
        },
        "optim_wrapper": _optimizer_config(settings, dtype),
        "param_scheduler": {
            "type": class_path(WarmupDecayLR), "by_epoch": False, "warmup_ratio": 0.0,
            "warmup_steps": settings.warmup_steps, "shape": settings.lr_schedule, "min_lr": settings.min_lr,
        },
        "strategy": {"type": class_path(loop.VoiceStrategy)},
        "default_hooks": _default_hooks(settings, card),
        "custom_hooks": [
            {
                "type": class_path(hooks.SampleAudioHook), "interval": settings.listen_steps,
                "texts": settings.listen_texts, "start": start, "speaker": settings.speaker,
            },
            {"type": class_path(hooks.LossCurvesHook)},
        ],
        "log_processor": {"by_epoch": False, "window_size": settings.logging_interval},
        "visualizer": {
            "type": "Visualizer",
            "vis_backends": trackers.build_vis_backends(settings.report_to, name, work_dir),
        },
        "launcher": "none", "resume": resume or False, "randomness": {"seed": settings.seed},
        "env_cfg": {}, "log_level": "INFO", "default_scope": "mmengine",
    }  # fmt: skip


def _dataloader_config(settings: VoiceSettings, start: str) -> dict[str, Any]:
    return {
        "dataset": {
            "type": class_path(ClipDataset), "data": settings.data_path, "start": start,
            "speaker": settings.speaker, "segment": settings.segment_frames,
        },
        "sampler": {"type": class_path(EpochSampler), "batch_size": settings.batch_size},
        "batch_size": settings.batch_size,
        "num_workers": settings.dataloader_num_workers,
        "collate_fn": {"type": class_path(collate)},
    }  # fmt: skip


def _default_hooks(settings: VoiceSettings, card: dict[str, Any]) -> dict[str, Any]:
    return {
        "timer": {"type": "IterTimerHook"},
        "sampler_seed": None,  # the loop itself puts the sampler to its position
        "logger": {
            "type": "LoggerHook", "interval": settings.logging_interval, "log_metric_by_epoch": False,
        },
        "param_scheduler": {"type": "ParamSchedulerHook"},
        "checkpoint": {
            "type": class_path(CheckpointHook), "interval": settings.save_steps,
            "keep": settings.save_total_limit, "card": card,
        },
    }  # fmt: skip


def _model_config(settings: VoiceSettings, start: str, dtype: str) -> dict[str, Any]:
    """The class that is trained, and its arguments."""
    losses = ("mel", "kl", "duration", "feature", "adversarial")
    return {
        "type": class_path(VoiceFinetune),
        "folder": start,
        "weights": {name: getattr(settings, f"{name}_weight") for name in losses},
        "mel": {"bands": settings.mel_bands, "low": settings.mel_low, "high": settings.mel_high},
        "segment": settings.segment_frames,
        "dtype": dtype,
        "discriminator_scale": settings.discriminator_scale,
    }


def _optimizer_config(settings: VoiceSettings, dtype: str) -> dict[str, Any]:
    """The optimizer of one half; both have the same settings."""
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
