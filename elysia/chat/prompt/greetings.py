"""How a conversation opens: the card's greetings as messages.

Knows nothing of databases or engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from elysia.chat.characters import CharacterEntry
from elysia.chat.message_tree import WHOLE
from elysia.chat.prompt.character_state import CharacterState
from elysia.chat.settings import ConversationSettings


def get_seed(id: str) -> int:
    """A conversation's own seed, for macros that stay as they were picked."""
    return int(id[:8], 16)


def build_greetings(
    members: Sequence[CharacterEntry], asked: ConversationSettings, seed: int
) -> list[dict[str, Any]]:
    """The first guest's greetings as messages; at a table of several its group greetings, if any."""
    first, group = members[0], len(members) > 1
    card = first.card
    count = len(card.greetings)
    lines = []
    for number in range(count):
        character = CharacterState(card, asked.persona(), greeting=number, seed=seed)
        lines += [(number, message.text) for message in character.opening()]
    if group and card.group_greetings:
        character = CharacterState(card, asked.persona(), seed=seed)
        lines = [(0, character.fill(text)) for text in card.group_greetings]
    present = [member.key for member in members]
    return [
        {
            "role": "assistant", "speaker": first.key, "text": text, "state": WHOLE,
            "details": {"greeting": number, "present": present},
        }
        for number, text in lines
        if text.strip()
    ]  # fmt: skip
