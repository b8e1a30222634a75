"""New rows for a character: from its name or card without any model, or written by a model behind an
OpenAI-compatible endpoint.
"""

from __future__ import annotations

from elysia.core.lazy_imports import build_getattr

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

__all__ = list(_MODULES)
__getattr__ = build_getattr(__name__, _MODULES)
