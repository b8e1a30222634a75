"""New rows for a character: from its name or card without any model, or written by a model behind an
OpenAI-compatible endpoint.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Imported on first use: rows from a card need none of the packages that filter a model's answers.
_MODULES = {
    "CompletionClient": "completion_client",
    "RequestLimits": "completion_client",
    "ScenarioPrompt": "scenario_prompts",
    "build_prompts": "scenario_prompts",
    "build_rows": "answer_filter",
    "example_rows": "persona_rows",
    "identity_rows": "persona_rows",
    "self_cognition_rows": "persona_rows",
    "write_rows": "persona_rows",
}

__all__ = [
    "CompletionClient",
    "RequestLimits",
    "ScenarioPrompt",
    "build_prompts",
    "build_rows",
    "example_rows",
    "identity_rows",
    "self_cognition_rows",
    "write_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
