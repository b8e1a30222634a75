"""Building prompts: a card at work in a conversation, a prompt's sections with their shares, the context."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elysia.chat.prompt.builder import (
        ComposedPrompt,
        PromptSection,
        PromptSources,
        build_prompt,
    )
    from elysia.chat.prompt.character_state import CharacterState, TokenBudget
    from elysia.chat.prompt.context import ContextBuilder, ContextProviders
    from elysia.chat.prompt.safe_regex import TimeLimitedRegex

__all__ = [
    "CharacterState",
    "ComposedPrompt",
    "ContextBuilder",
    "ContextProviders",
    "PromptSection",
    "PromptSources",
    "TimeLimitedRegex",
    "TokenBudget",
    "build_prompt",
]

_HOMES = {
    "CharacterState": "character_state",
    "ComposedPrompt": "builder",
    "ContextBuilder": "context",
    "ContextProviders": "context",
    "PromptSection": "builder",
    "PromptSources": "builder",
    "TimeLimitedRegex": "safe_regex",
    "TokenBudget": "character_state",
    "build_prompt": "builder",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: the context needs the database, a card alone does not.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
