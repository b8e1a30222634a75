"""Composition: what a command line or a page names becomes engines, chat models, sessions and services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elysia.app.model_loading import (
    ModelConfig,
    load_chat_model,
    load_chat_session,
    load_engine,
    refuse_lone_adapter,
)
from elysia.core.lazy_imports import build_getattr
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

# Imported on first use: the service brings the database and the indexes; a plain `chat` needs neither.
_MODULES = {"ChatServiceConfig": "chat_service", "build_chat_service": "chat_service"}
__getattr__ = build_getattr(__name__, _MODULES)
