"""What a model is asked: a dialogue of the character in one situation of a grid, and what it must
answer with. Knows nothing of endpoints.
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

# The grid: every combination is a situation. A file of one's own replaces it (--situations).
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
TOKENS_A_TURN = 120  # what a reply and its question are expected to take


@dataclass(frozen=True)
class ScenarioPrompt:
    """One request: its situation, the messages of it, and an id that follows from both."""

    situation: Mapping[str, Any]
    messages: tuple[Mapping[str, str], ...]
    id: str

    @property
    def estimate(self) -> int:
        """Tokens of the prompt, at most: a token for every Chinese character, or for every two others."""
        text = "".join(message["content"] for message in self.messages)
        chinese = sum(ch >= "\u2e80" for ch in text)
        return chinese + (len(text) - chinese) // 2 + 16

    @property
    def expected(self) -> int:
        """Tokens of the answer, about."""
        return TOKENS_A_TURN * int(self.situation.get("turns", 3))


def build_prompts(
    persona: Persona, count: int, grid: Mapping[str, Sequence[Any]], seed: int
) -> list[ScenarioPrompt]:
    """`count` different prompts: situations of the grid in an order that `seed` draws.

    DataError when the grid has fewer situations; the same arguments give the same prompts.
    """
    every = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    if count > len(every):
        raise DataError(f"The grid has {len(every)} situations, and {count} are wanted: widen it.")
    random.Random(f"{seed} situations").shuffle(every)
    return [_build_prompt(persona, situation) for situation in every[:count]]


def load_grid(path: Path) -> dict[str, list[Any]]:
    """A grid of one's own: a JSON object of lists. DataError when it is not."""
    try:
        grid = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"There is no file of situations {path}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}.") from None
    if (
        not isinstance(grid, dict)
        or not grid
        or not all(isinstance(v, list) and v for v in grid.values())
    ):
        raise DataError(
            f"{path} must hold an object of lists, such as {{'topic': ['tea', 'rain']}}."
        )
    turns = grid.get("turns", [3])
    if not all(type(turn) is int and 1 <= turn <= 50 for turn in turns):
        raise DataError(f"{path}, key 'turns': whole numbers from 1 to 50.")
    return grid


def _build_prompt(persona: Persona, situation: Mapping[str, Any]) -> ScenarioPrompt:
    turns = situation.get("turns", 3)
    told = "\n".join(f"- {key}: {value}" for key, value in situation.items() if key != "turns")
    card = persona.system_text("the user")[:LONGEST_CARD]
    example = persona.fill(persona.mes_example, "user")[:2000]
    system = (
        f"You write dialogues between a user and the character {persona.display_name}. Stay true to the card; "
        "invent no facts that contradict it; the character never speaks for the user and never calls "
        'itself an AI. Answer with JSON alone: {"turns": [{"user": "...", "reply": "..."}]}.'
        f"\n\nThe card:\n{card}" + (f"\n\nExamples:\n{example}" if example.strip() else "")
    )
    user = f"Write one dialogue of exactly {turns} turns (a turn is a user's message and a reply).\n{told}"
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    digest = hashlib.sha256(json.dumps(messages, ensure_ascii=False).encode("utf-8", "replace"))
    return ScenarioPrompt(situation, messages, digest.hexdigest()[:16])


def parse_turns(text: str) -> Iterator[tuple[str, str]]:
    """(message, reply) of an answer. DataError, saying why, when it is no dialogue as asked for.

    >>> list(parse_turns('Sure!\\n```json\\n{"turns": [{"user": "a", "reply": "b"}]}\\n```'))
    [('a', 'b')]
    """
    found = re.search(r"\{.*\}", text, re.S)
    try:
        value = json.loads(found.group() if found else "")
        turns = value["turns"]
        pairs = [(turn["user"].strip(), turn["reply"].strip()) for turn in turns]
    except (ValueError, RecursionError):
        raise DataError("the answer is not JSON") from None
    except (KeyError, TypeError, AttributeError):
        raise DataError("the answer has no turns of user and reply") from None
    if not pairs or not all(ask and reply for ask, reply in pairs):
        raise DataError("a message or reply is empty")
    yield from pairs
