"""Composition: what a command or a page names becomes engines, sessions and the chat service.

Knows nothing of terminals or pages.
"""

from __future__ import annotations

from elysia.app.model_loading import (
    ChatFormat,
    ModelConfig,
    load_chat_session,
    load_engine,
    refuse_lone_adapter,
    resolve_chat_format,
)

__all__ = [
    "ChatFormat",
    "ModelConfig",
    "load_chat_session",
    "load_engine",
    "refuse_lone_adapter",
    "resolve_chat_format",
]
