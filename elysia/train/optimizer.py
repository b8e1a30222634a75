"""The optimizer that a setting names, as MMEngine builds it. Knows nothing of models or schedules."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any

from elysia.core.errors import ConfigError
from elysia.train.settings import Settings


def optimizer(settings: Settings, deepspeed: bool) -> dict[str, Any]:
    """Its class, `lr`, and those of betas, weight_decay and fused that it takes; ConfigError when
    there is no such class."""
    module, _, name = settings.optimizer.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        takes = signature(kind).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"optimizer = '{settings.optimizer}' cannot be used ({error}). Name a class such as "
            "'torch.optim.AdamW' or 'bitsandbytes.optim.PagedAdamW32bit'."
        ) from error
    wanted: dict[str, Any] = {
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
        "fused": not deepspeed,  # DeepSpeed replaces the tensors under the optimizer
    }
    known = {key: value for key, value in wanted.items() if key in takes}
    return {"type": settings.optimizer, "lr": settings.lr, **known}
