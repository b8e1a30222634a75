"""Composition: what a command line or a page names becomes engines, chat models, sessions and services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elysia.app.model_loading import (
    ModelConfig,
    load_chat_model,
    load_chat_session,
    load_engine,
    refuse_lone_adapter,
)
from elysia.models.chat_format import ChatFormat, resolve_chat_format

if TYPE_CHECKING:
    from elysia.app.chat_service import ChatServiceConfig, build_chat_service

__all__ = [
    "ChatFormat",
    "ChatServiceConfig",
    "ModelConfig",
    "build_chat_service",
    "load_chat_model",
    "load_chat_session",
    "load_engine",
    "refuse_lone_adapter",
    "resolve_chat_format",
]


def __getattr__(name: str) -> Any:
    # The chat service brings the database and the indexes, which a plain `chat` does without.
    if name in ("ChatServiceConfig", "build_chat_service"):
        from elysia.app import chat_service

        return getattr(chat_service, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
