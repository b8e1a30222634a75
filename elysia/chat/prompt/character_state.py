"""A character card at work in one conversation: its greeting, and the frame of each turn's prompt.

`CharacterState.build_frame` gives a `PromptFrame`, which puts the system message, the lore and the card's
closing instructions around the messages; `fit_history` leaves out the oldest that find no room.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

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
class TokenBudget:
    """How the model's `context` (tokens) is divided between the prompt and a reply of `max_reply`."""

    context: int
    max_reply: int

    @property
    def reply(self) -> int:
        """Tokens kept for the reply: never more than half of the context, so that a small model with
        a generous limit still remembers something.
        """
        return min(self.max_reply, self.context // 2)

    @property
    def prompt(self) -> int:
        """Tokens that the prompt may take."""
        return self.context - self.reply


@dataclass(frozen=True)
class PromptFrame:
    """What stands around a conversation's messages in one turn's prompt."""

    system: str
    lore: ActivationResult = field(default_factory=ActivationResult)
    closing: str = ""  # behind the newest message

    def append(self, text: str) -> PromptFrame:
        """The same frame with more text at the end of the system message."""
        return replace(self, system="\n".join(filter(None, [self.system, text])))

    def wrap(self, messages: Sequence[Message]) -> list[Message]:
        """The prompt: the system message, `messages` with lore at its depths, the closing."""
        placed = list(messages)
        for entry in self.lore.inserted:
            if entry.place == "depth":
                _insert_at_depth(placed, entry, len(messages))
        front = [Message("system", self.system)] if self.system else []
        return [*front, *placed, *([Message("system", self.closing)] if self.closing else [])]


def fit_history(
    frame: PromptFrame,
    messages: Sequence[Message],
    first: int,
    count: Callable[[Sequence[Message]], int],
    limit: int,
    find_next: Callable[[int], int],
) -> tuple[list[Message], int, int]:
    """(prompt, number of the first message in it, tokens) with as many messages as fit `limit` tokens.

    Begins with message `first` and goes on to `find_next(first)` as long as the prompt is too long and
    there is a next one. The last prompt may still be too long: that is the caller's to refuse.
    """
    prompt = frame.wrap(messages[first:])
    while (tokens := count(prompt)) > limit and (following := find_next(first)) > first:
        first = following
        prompt = frame.wrap(messages[first:])
    return prompt, first, tokens


class CharacterState:
    """One card in one conversation. It draws random numbers and remembers what lore matched, so it
    serves one conversation and one thread at a time.
    """

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
        """`greeting` counts from 0 over the card's own and its alternates; UsageError for another.

        In the middle of a conversation `turn` gives {{random}} new draws while {{pick}} stays with
        the `seed`, and `matched` are the ids of the lore entries that matched in earlier turns.
        """
        self.persona = Persona.from_card(card.document)
        self.user = user or UserPersona()
        if greeting and not 0 <= greeting < len(card.greetings):
            raise UsageError("chat.no_greeting", last=len(card.greetings) - 1, greeting=greeting)
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
        self._regex = TimeLimitedRegex()
        self._matched: set[str] = set(matched)

    def begin(self) -> list[Message]:
        """A new conversation's first message, when the card greets; earlier turns are forgotten."""
        self._matched = set()
        text = self._macros.fill(self._greeting).strip()
        return [Message("assistant", text)] if text else []

    def build_frame(
        self,
        messages: Sequence[Message],
        count: Callable[[str], int],
        context: int,
        original: str = "",
    ) -> PromptFrame:
        """What stands around `messages` in this turn's prompt.

        `count` gives a text's tokens, `context` is the model's in tokens (a lorebook's budget may be a
        part of it). `original` is the user's own system prompt, which the card's replaces or, with
        {{original}}, quotes.
        """
        lore = ActivationResult()
        if self._book:
            self._regex.new_turn()
            scene = ScanContext(messages, self.greeting, frozenset(self._matched), context)
            lore = activate_entries(
                self._book,
                scene,
                count,
                fill=self._macros.fill,
                search=self._regex.search,
                chance=self._macros.chance,
            )
        self._macros.original = ""
        closing = self._macros.fill(self._closing).strip()
        self._macros.original = self._macros.fill(original or DEFAULT_SYSTEM)
        system = self._macros.fill(self.persona.system_prompt.strip() or "{{original}}")
        self._macros.original = None
        return PromptFrame(self._build_system(system.strip(), lore), lore, closing)

    def fill(self, text: str) -> str:
        """`text` with the card's macros filled."""
        return self._macros.fill(text).strip()

    def examples(self) -> list[list[Message]]:
        """The card's example dialogue, a list of messages for each block, macros filled."""
        blocks = re.split(r"<START>", self._macros.fill(self.persona.mes_example), flags=re.I)
        return [block for text in blocks if (block := self._parse_dialogue(text))]

    def _parse_dialogue(self, text: str) -> list[Message]:
        """`Name: words` lines as messages; a line without a name continues the one before."""
        roles = {self.persona.display_name: "assistant", self.persona.name: "assistant"}
        roles[self.user.name] = "user"
        speeches: list[tuple[str, list[str]]] = []
        for line in filter(None, map(str.strip, text.splitlines())):
            name, mark, words = (line.replace("：", ":", 1)).partition(":")
            if mark and name.strip() in roles:
                speeches.append((roles[name.strip()], [words.strip()]))
            elif speeches:
                speeches[-1][1].append(line)
        return [Message(role, "\n".join(lines)) for role, lines in speeches]

    def remember(self, frame: PromptFrame) -> None:
        """Record that the turn took place: a lorebook's decorators look back at what matched."""
        self._matched |= frame.lore.matched

    def _build_system(self, line: str, lore: ActivationResult) -> str:
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


def _insert_at_depth(placed: list[Message], entry: ActivatedEntry, chat: int) -> None:
    """Insert at the entry's depth, counted in messages of the chat from the newest; an entry deeper than
    all `chat` messages comes first.
    """
    # Entries that were inserted earlier shift nothing: the depth is counted from the end.
    passed = 0
    for place in range(len(placed), -1, -1):
        if passed >= min(entry.depth, chat):
            # A reply that stands last would be taken for the reply to come.
            is_last_reply = entry.role == "assistant" and place == len(placed)
            role = "system" if is_last_reply else entry.role
            placed.insert(place, Message(role, entry.text, name="lore"))
            return
        if placed[place - 1].name != "lore":
            passed += 1
