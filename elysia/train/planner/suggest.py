"""Which setting to change first when a training does not fit. Knows nothing of how memory is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from elysia.train.config.settings import Settings


def suggest_change(settings: Settings, fits: Callable[[Settings], bool]) -> str:
    """A sentence: the first change with which it `fits`, tried out one by one, then together."""
    together: dict[str, Any] = {}
    for change in _iter_changes(settings):
        if fits(dataclasses.replace(settings, **change)):
            return f"Set {_format_change(change)}: then it fits."
        together |= change
    if together and fits(dataclasses.replace(settings, **together)):
        return f"No setting alone suffices. Set {_format_change(together)}: together they do."
    return (
        "No setting makes it fit. Take a smaller model, more memory, or several devices under "
        "--deepspeed deepspeed_zero3."
    )


def _iter_changes(settings: Settings) -> Iterator[dict[str, Any]]:
    """Settings to change, the least harmful first."""
    if not settings.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if settings.batch_size > 1:
        counts = settings.accumulative_counts * settings.batch_size
        yield {"batch_size": 1, "accumulative_counts": counts}
    if settings.method == "full":
        yield {"method": "lora"}
    if settings.method != "qlora":
        yield {"method": "qlora"}
    if settings.max_length > 512:
        yield {"max_length": settings.max_length // 2}


def _format_change(change: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in change.items())
