"""Writing replies: who speaks next, the turns under way and their workers, a reply while it grows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elysia.chat.generation.priority import PriorityGate
    from elysia.chat.generation.reply_stream import ReplyStream
    from elysia.chat.generation.scheduler import TurnScheduler
    from elysia.chat.generation.speaker_selection import SelectionReason, select_speaker
    from elysia.chat.generation.turn_job import TurnJob, TurnResources

__all__ = [
    "PriorityGate",
    "ReplyStream",
    "SelectionReason",
    "TurnJob",
    "TurnResources",
    "TurnScheduler",
    "select_speaker",
]

_HOMES = {
    "PriorityGate": "priority",
    "ReplyStream": "reply_stream",
    "SelectionReason": "speaker_selection",
    "TurnJob": "turn_job",
    "TurnResources": "turn_job",
    "TurnScheduler": "scheduler",
    "select_speaker": "speaker_selection",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: turns import the characters, which import the selection of speakers from here.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
