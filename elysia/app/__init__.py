"""Composition: what a command or a page names becomes engines, sessions and the chat service.

Knows nothing of terminals or pages.
"""

from __future__ import annotations

from elysia.app.models import (
    ChatSettings,
    Manner,
    choose_manner,
    open_engine,
    open_session,
    refuse_lone_adapter,
)

__all__ = [
    "ChatSettings",
    "Manner",
    "choose_manner",
    "open_engine",
    "open_session",
    "refuse_lone_adapter",
]
