"""Elysia: from a persona to a character you can talk to.

The functions of every stage, from settings to a reply; `docs/python-api.md` shows each at work. They are
imported when they are first used, so that `import elysia` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elysia.core.lazy_imports import build_getattr

if TYPE_CHECKING:
    from elysia.app.chat_service import ChatServiceConfig, build_chat_service
    from elysia.app.model_loading import ModelConfig
    from elysia.app.pipeline import ChatPipeline, PipelineReply, pipeline
    from elysia.chat.service import ChatService
    from elysia.core.errors import ElysiaError
    from elysia.engines.base import Sampling
    from elysia.export.adapter import pth_to_hf
    from elysia.export.merge import merge_adapter
    from elysia.export.verify_merge import verify_merge
    from elysia.train.config.settings import Settings, load_settings
    from elysia.train.launch import run_training
    from elysia.train.verify.packing_proof import verify_packing

__version__ = "0.1.0"

# Where each name is defined. The imports above say the same to type checkers; a test compares them.
_MODULES = {
    "ChatPipeline": "app.pipeline",
    "ChatService": "chat.service",
    "ChatServiceConfig": "app.chat_service",
    "ElysiaError": "core.errors",
    "ModelConfig": "app.model_loading",
    "PipelineReply": "app.pipeline",
    "Sampling": "engines.base",
    "Settings": "train.config.settings",
    "build_chat_service": "app.chat_service",
    "load_settings": "train.config.settings",
    "merge_adapter": "export.merge",
    "pipeline": "app.pipeline",
    "pth_to_hf": "export.adapter",
    "run_training": "train.launch",
    "verify_merge": "export.verify_merge",
    "verify_packing": "train.verify.packing_proof",
}

__all__ = [
    "ChatPipeline",
    "ChatService",
    "ChatServiceConfig",
    "ElysiaError",
    "ModelConfig",
    "PipelineReply",
    "Sampling",
    "Settings",
    "__version__",
    "build_chat_service",
    "load_settings",
    "merge_adapter",
    "pipeline",
    "pth_to_hf",
    "run_training",
    "verify_merge",
    "verify_packing",
]

__getattr__ = build_getattr(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
