"""DeepSpeed's configurations under XTuner's names (`deepspeed_zero2`, …), or from a JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from elysia.core.errors import ConfigError, nearest


def _build_preset(stage: int, offload: bool = False) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": torch.cuda.is_available()}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {"zero_optimization": zero, "zero_force_ds_cpu_optimizer": False}


PRESETS: dict[str, Callable[[], dict[str, Any]]] = {
    "deepspeed_zero1": lambda: _build_preset(1),
    "deepspeed_zero2": lambda: _build_preset(2),
    "deepspeed_zero2_offload": lambda: _build_preset(2, offload=True),
    "deepspeed_zero3": lambda: _build_preset(3),
    "deepspeed_zero3_offload": lambda: _build_preset(3, offload=True),
}


def load_deepspeed_config(name: str) -> dict[str, Any]:
    """A preset, or the content of a DeepSpeed JSON file; ConfigError otherwise."""
    if name in PRESETS:
        return PRESETS[name]()
    path = Path(name)
    if not path.is_file():
        hint = nearest(name, PRESETS)
        raise ConfigError(
            "train.unknown_deepspeed_preset", name=name, hint=hint, presets=list(PRESETS)
        )
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("train.deepspeed_not_json", path=path, error=error) from error
    if not isinstance(content, dict):
        raise ConfigError("train.deepspeed_not_object", path=path)
    return content
