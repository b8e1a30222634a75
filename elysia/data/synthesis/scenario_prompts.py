"""Prompts that ask a model for a dialogue of the character in one situation of a grid, and how its answer is
parsed.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError
from elysia.core.persona import Persona

# The grid: every combination is a situation. The user's own file may replace it (--situations).
GRID: dict[str, Sequence[Any]] = {
    "topic": (
        "first meeting", "a bad day", "a small triumph", "what to eat", "a walk outside",
        "a book or song", "homesickness", "a favour", "a secret", "a silly bet", "a mistake",
        "the weather", "plans for tomorrow", "a childhood memory", "a disagreement",
        "saying goodbye", "a question of fact", "being teased",
    ),
    "user": ("shy", "cheerful", "tired", "rude", "curious", "sad"),
    "language": ("Chinese", "English"),
    "turns": (1, 3, 5),
}  # fmt: skip
LONGEST_CARD = 6000  # characters of the card that a prompt holds
TOKENS_PER_TURN = 120  # expected of a reply and its question


@dataclass(frozen=True)
class ScenarioPrompt:
    """One request: its situation, its messages, and an id computed from the messages."""

    situation: Mapping[str, Any]
    messages: tuple[Mapping[str, str], ...]
    id: str

    @property
    def estimate(self) -> int:
        """An upper bound for the tokens of the prompt: one for each Chinese character or two others."""
        text = "".join(message["content"] for message in self.messages)
        chinese = sum(ch >= "\u2e80" for ch in text)
        return chinese + (len(text) - chinese) // 2 + 16

    @property
    def expected(self) -> int:
        """About how many tokens the answer will have."""
        return TOKENS_PER_TURN * int(self.situation.get("turns", 3))


def build_prompts(
    persona: Persona, count: int, grid: Mapping[str, Sequence[Any]], seed: int
) -> list[ScenarioPrompt]:
    """`count` different prompts: situations of the grid, in an order that `seed` draws.

    The same arguments give the same prompts. DataError when the grid has fewer situations.
    """
    every = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    if count > len(every):
        raise DataError("data.grid_too_small", situations=len(every), count=count)
    random.Random(f"{seed} situations").shuffle(every)
    return [_build_prompt(persona, situation) for situation in every[:count]]


def load_grid(path: Path) -> dict[str, list[Any]]:
    """A grid from a file: a JSON object of lists. DataError when it is not."""
    try:
        grid = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("data.grid_missing", path=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("data.file_not_json", path=path, detail=str(error)) from None
    if (
        not isinstance(grid, dict)
        or not grid
        or not all(isinstance(v, list) and v for v in grid.values())
    ):
        raise DataError("data.grid_not_lists", path=path)
    turns = grid.get("turns", [3])
    if not all(type(turn) is int and 1 <= turn <= 50 for turn in turns):
        raise DataError("data.grid_turns", path=path)
    return grid


def _build_prompt(persona: Persona, situation: Mapping[str, Any]) -> ScenarioPrompt:
    turns = situation.get("turns", 3)
    details = "\n".join(f"- {key}: {value}" for key, value in situation.items() if key != "turns")
    card = persona.system_text("the user")[:LONGEST_CARD]
    example = persona.fill(persona.mes_example, "user")[:2000]
    system = (
        f"You write dialogues between a user and the character {persona.display_name}. "
        "Stay true to the card; "
        "invent no facts that contradict it; the character never speaks for the user and never calls "
        'itself an AI. Answer with JSON alone: {"turns": [{"user": "...", "reply": "..."}]}.'
        f"\n\nThe card:\n{card}" + (f"\n\nExamples:\n{example}" if example.strip() else "")
    )
    user = f"Write one dialogue of exactly {turns} turns (a turn is a user's message and a reply).\n{details}"
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    digest = hashlib.sha256(json.dumps(messages, ensure_ascii=False).encode("utf-8", "replace"))
    return ScenarioPrompt(situation, messages, digest.hexdigest()[:16])


def parse_turns(text: str) -> Iterator[tuple[str, str]]:
    """(message, reply) for each turn of an answer. DataError when it is not a dialogue as requested.

    >>> list(parse_turns('Sure!\\n```json\\n{"turns": [{"user": "a", "reply": "b"}]}\\n```'))
    [('a', 'b')]
    """
    match = re.search(r"\{.*\}", text, re.S)
    try:
        value = json.loads(match.group() if match else "")
        turns = value["turns"]
        pairs = [(turn["user"].strip(), turn["reply"].strip()) for turn in turns]
    except (ValueError, RecursionError):
        raise DataError("data.answer_not_json") from None
    except (KeyError, TypeError, AttributeError):
        raise DataError("data.answer_without_turns") from None
    if not pairs or not all(ask and reply for ask, reply in pairs):
        raise DataError("data.answer_empty_message")
    yield from pairs
