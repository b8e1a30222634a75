"""A card at work in a conversation: its greeting, its prompt with lore and macros, turn by turn.

Knows nothing of engines, nor of how a prompt is written for a model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from elysia.chat.prompt.safe_regex import TimeLimitedRegex
from elysia.core.card_file import CharacterCard
from elysia.core.errors import UsageError
from elysia.core.lorebook import parse_lorebook
from elysia.core.lorebook_activation import (
    ActivatedEntry,
    ActivationResult,
    ScanContext,
    activate_entries,
)
from elysia.core.macros import MacroExpander
from elysia.core.messages import Message
from elysia.core.persona import DEFAULT_SYSTEM, Persona, UserPersona


@dataclass(frozen=True)
class PromptFrame:
    """What stands around the chat's messages in one turn's prompt."""

    system: str
    lore: ActivationResult = field(default_factory=ActivationResult)
    closing: str = ""  # behind the newest message

    def around(self, messages: Sequence[Message]) -> list[Message]:
        """The prompt: the system message, `messages` with lore at its depths, the closing."""
        placed = list(messages)
        for one in self.lore.inserted:
            if one.place == "depth":
                _insert_at_depth(placed, one, len(messages))
        front = [Message("system", self.system)] if self.system else []
        return [*front, *placed, *([Message("system", self.closing)] if self.closing else [])]


class CharacterState:
    """One card in one conversation. Draws and remembers, so not for two conversations at once."""

    def __init__(
        self,
        card: CharacterCard,
        user: UserPersona | None = None,
        *,
        greeting: int = 0,
        seed: int = 0,
        turn: int = 0,
        matched: Collection[str] = (),
    ) -> None:
        """`greeting` counts from 0 over the card's own and its alternates; UsageError without it.

        In the midst of a conversation `turn` gives {{random}} new draws while {{pick}} stays with
        the `seed`, and `matched` are the lore entries of earlier turns.
        """
        self.persona = Persona.from_card(card.document)
        self.user = user or UserPersona()
        if greeting and not 0 <= greeting < len(card.greetings):
            raise UsageError(
                f"The card has the greetings 0 to {len(card.greetings) - 1}, not {greeting}."
            )
        self.greeting = greeting
        self._greeting = card.greetings[greeting]
        closing = self.persona.extra.get("post_history_instructions")
        self._closing = closing if isinstance(closing, str) else ""
        book = self.persona.extra.get("character_book")
        self._book = parse_lorebook(book) if isinstance(book, dict) else None
        self._macros = MacroExpander(
            self.persona.display_name,
            self.user.name,
            random.Random(f"{seed}/{turn}" if turn else seed),
            seed=str(seed),
        )
        self._patterns = TimeLimitedRegex()
        self._matched: set[str] = set(matched)

    def opening(self) -> list[Message]:
        """The conversation's first message, when the card greets; earlier turns are forgotten."""
        self._matched = set()
        text = self._macros.fill(self._greeting).strip()
        return [Message("assistant", text)] if text else []

    def stage(
        self,
        messages: Sequence[Message],
        count: Callable[[str], int],
        context: int,
        original: str = "",
    ) -> PromptFrame:
        """This turn's prompt around `messages`. `original` is the user's own system prompt, which
        the card's replaces or, with {{original}}, quotes.
        """
        lore = ActivationResult()
        if self._book:
            self._patterns.new_turn()
            scene = ScanContext(messages, self.greeting, frozenset(self._matched), context)
            lore = activate_entries(
                self._book,
                scene,
                count,
                fill=self._macros.fill,
                search=self._patterns.search,
                chance=self._macros.chance,
            )
        self._macros.original = ""
        closing = self._macros.fill(self._closing).strip()
        self._macros.original = self._macros.fill(original or DEFAULT_SYSTEM)
        system = self._macros.fill(self.persona.system_prompt.strip() or "{{original}}")
        self._macros.original = None
        return PromptFrame(self._system(system.strip(), lore), lore, closing)

    def fill(self, text: str) -> str:
        """`text` with the card's macros filled."""
        return self._macros.fill(text).strip()

    def examples(self) -> list[list[Message]]:
        """The card's example dialogue, a list of messages to each block, macros filled."""
        blocks = re.split(r"<START>", self._macros.fill(self.persona.mes_example), flags=re.I)
        return [block for text in blocks if (block := self._dialogue(text))]

    def _dialogue(self, text: str) -> list[Message]:
        """`Name: words` lines as messages; a line without a name goes on with the one before."""
        roles = {self.persona.display_name: "assistant", self.persona.name: "assistant"}
        roles[self.user.name] = "user"
        found: list[tuple[str, list[str]]] = []
        for line in filter(None, map(str.strip, text.splitlines())):
            name, mark, words = (line.replace("：", ":", 1)).partition(":")
            if mark and name.strip() in roles:
                found.append((roles[name.strip()], [words.strip()]))
            elif found:
                found[-1][1].append(line)
        return [Message(role, "\n".join(lines)) for role, lines in found]

    def remember(self, staging: PromptFrame) -> None:
        """That the turn took place: decorators look back at what matched."""
        self._matched |= staging.lore.matched

    def _system(self, line: str, lore: ActivationResult) -> str:
        """The parts of Persona.system_text, in its order, with the lore between them."""
        fill, persona = self._macros.fill, self.persona
        parts = [
            line,
            *lore.at("before_char", "before_desc"),
            fill(persona.description),
            *lore.at("after_desc"),
            fill(persona.personality),
            *lore.at("personality"),
            fill(persona.scenario),
            *lore.at("scenario"),
            *lore.at("after_char"),
            fill(self.user.description),
        ]
        return "\n".join(part.strip() for part in parts if part.strip())


def _insert_at_depth(placed: list[Message], one: ActivatedEntry, chat: int) -> None:
    """At its depth, counted in messages of the chat from the newest; deeper than all is first."""
    # What was inserted before shifts nothing below it: the place is counted from the end.
    seen = 0
    for place in range(len(placed), -1, -1):
        if seen >= min(one.depth, chat):
            # A reply that stands last would be taken for the reply to come.
            role = "system" if one.role == "assistant" and place == len(placed) else one.role
            placed.insert(place, Message(role, one.text, name="lore"))
            return
        if placed[place - 1].name != "lore":
            seen += 1
