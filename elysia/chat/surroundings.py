"""What a turn may draw from, and what each guest at a table heard of it.

Nothing of one user or character reaches another: shelves and scopes are made here. Knows nothing of
prompts or engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from elysia.chat.cast import Member
from elysia.chat.talk_settings import TalkSettings
from elysia.chat.tree import CUT, STOPPED, WHOLE, Conversation, Line
from elysia.knowledge.base import Knowledge
from elysia.memory.base import Heard, MemoryStore, Scope


@dataclass(frozen=True)
class Surroundings:
    """What a turn may draw from. None: there is none."""

    memory: MemoryStore | None = None
    knowledge: Knowledge | None = None

    def shelves(self, user: str, character: str) -> list[str]:
        """Whose documents a reply of `character` to `user` may show."""
        return [f"character/{character}", f"user/{user}/{character}"]

    def remember(
        self,
        user: str,
        conversation: Conversation,
        members: Mapping[str, Member],
        lines: Sequence[Line],
    ) -> None:
        """Hand to each guest's memory what she heard."""
        if self.memory is None:
            return
        name = TalkSettings.of(conversation.settings).persona().name
        for key in members:
            heard = [
                heard_line(line, conversation, members, name)
                for line in lines
                if line.state in (WHOLE, STOPPED, CUT) and line.text and was_present(line, key)
            ]
            self.memory.remember(Scope(user, key), heard)

    def close(self) -> None:
        """Let go of memory and knowledge."""
        for part in (self.memory, self.knowledge):
            if part is not None:
                part.close()

    def forget(self, user: str, guests: Sequence[str], messages: Sequence[str]) -> None:
        """Take back what was remembered of messages."""
        if self.memory is not None:
            for key in guests:
                self.memory.forget_messages(Scope(user, key), messages)


def was_present(line: Line, key: str) -> bool:
    """Whether a guest heard a line."""
    present = line.details.get("present")
    return not isinstance(present, list) or key in present


def name_of(line: Line, members: Mapping[str, Member], user: str) -> str:
    """Who said it, as it is shown. Somebody who has left the table is 'somebody'."""
    if line.speaker is None:
        return user
    return members[line.speaker].name if line.speaker in members else "?"


def heard_line(
    line: Line, conversation: Conversation, members: Mapping[str, Member], user: str
) -> Heard:
    """A line in memory's terms."""
    return Heard(
        line.id, conversation.id, line.role, name_of(line, members, user), line.text, line.created
    )
