"""What a conversation is had with: an engine, and how its model wants to be spoken to.

Knows nothing of how either was opened.
"""

from __future__ import annotations

from dataclasses import dataclass

from elysia.core.templates import PromptTemplate
from elysia.engines.base import Engine


@dataclass(frozen=True)
class Model:
    """An engine and how its model wants to be spoken to."""

    engine: Engine
    template: PromptTemplate
    system: str = ""
    stop: tuple[str, ...] = ()
