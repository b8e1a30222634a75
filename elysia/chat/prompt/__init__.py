"""Building prompts: a card at work in a conversation, and a prompt's sections with their shares.

`context` is imported from its module: it needs the database, which a card alone does without.
"""

from elysia.chat.prompt.builder import ComposedPrompt, PromptSection, PromptSources, build_prompt
from elysia.chat.prompt.character_state import CharacterState, PromptFrame, TokenBudget
from elysia.chat.prompt.safe_regex import TimeLimitedRegex

__all__ = [
    "CharacterState",
    "ComposedPrompt",
    "PromptFrame",
    "PromptSection",
    "PromptSources",
    "TimeLimitedRegex",
    "TokenBudget",
    "build_prompt",
]
