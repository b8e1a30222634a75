"""What a character heard, as the prompt of her reply: the talk with her ears, her card, her sources.

Knows nothing of workers, nor of how a reply is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from elysia.chat.cast import Member
from elysia.chat.character import Character
from elysia.chat.greetings import seed_of
from elysia.chat.model import Model
from elysia.chat.prompt import Composed, Limits, Sources, compose, language_of
from elysia.chat.surroundings import Surroundings, heard_line, name_of, was_present
from elysia.chat.talk_settings import TalkSettings
from elysia.chat.tree import Conversation, Line
from elysia.core.errors import ElysiaError
from elysia.core.messages import Message
from elysia.knowledge.base import Found
from elysia.memory import summary
from elysia.memory.base import Recalled, Scope

log = logging.getLogger(__name__)

TABLE = {
    "zh": "在座的还有：{others}。只说{char}自己的话。",
    "en": "Also at the table: {others}. Speak for {char} only.",
}


class Ear:
    """Composes prompts in one conversation. `summary` is what the last one summed up, to be kept."""

    def __init__(
        self,
        user: str,
        conversation: Conversation,
        members: Mapping[str, Member],
        model: Model,
        surroundings: Surroundings,
        settings: TalkSettings,
    ) -> None:
        self.user, self.conversation, self.members = user, conversation, members
        self.model, self.surroundings, self.settings = model, surroundings, settings
        self.summary: dict[str, str] = {}

    def compose(self, lines: Sequence[Line], speaker: str) -> Composed:
        """The prompt for `speaker`, who heard what was said while she was there."""
        self.summary = {}
        heard = [line for line in lines if was_present(line, speaker) and line.text]
        member = self.members[speaker]
        first = lines[0] if lines else None
        matched = {
            entry for line in heard if line.speaker == speaker
            for entry in line.details.get("lore", ())
        }  # fmt: skip
        character = Character(
            member.card,
            self.settings.persona(),
            greeting=int(first.details.get("greeting", 0)) if first else 0,
            seed=seed_of(self.conversation.id),
            turn=len(lines),
            matched=matched,
        )
        messages = [self._as_heard(line, speaker) for line in heard]
        if not messages or messages[-1].role == "assistant":
            messages.append(Message("user", ""))
        table = self._table(speaker, messages[-1].text) if len(self.members) > 1 else ""
        return compose(
            character,
            messages,
            [line.id for line in heard],
            count=self.model.count,
            limits=Limits(self.model.engine.context_length, self.settings.max_new_tokens),
            sources=self._sources(speaker, lines),
            system=self.settings.system or self.model.system,
            note=table,
            examples=self.settings.examples,
        )

    def _as_heard(self, line: Line, speaker: str) -> Message:
        """A line as `speaker` heard it: her own is a reply, others' are told with their names."""
        if line.speaker == speaker:
            return Message("assistant", line.text)
        if len(self.members) == 1:
            return Message("user", line.text)
        name = self._name(line)
        mark = "：" if language_of(line.text) == "zh" else ": "
        return Message("user", f"{name}{mark}{line.text}")

    def _name(self, line: Line) -> str:
        return name_of(line, self.members, self.settings.persona().name)

    def _table(self, speaker: str, newest: str) -> str:
        others = [self.settings.persona().name]
        others += [m.name for key, m in self.members.items() if key != speaker]
        words = TABLE[language_of(newest)]
        return words.format(others="、".join(others), char=self.members[speaker].name)

    def _sources(self, speaker: str, lines: Sequence[Line]) -> Sources:
        around, settings = self.surroundings, self.settings
        memory, knowledge = around.memory, around.knowledge
        question = next((line.text for line in reversed(lines) if line.role == "user"), "")
        scope = Scope(self.user, speaker)

        def recall(_: str, without: Sequence[str]) -> list[Recalled]:
            if memory is None or not settings.memory or not question:
                return []
            found: list[Recalled] = self._tried(
                lambda: memory.recall(scope, question, k=8, without=without), "memory"
            )
            there = set(without)
            # The same words of another day, a greeting for instance, are in the prompt, too.
            said = {line.text.strip() for line in lines if line.id in there}
            return [one for one in found if one.memory.text.strip() not in said]

        def look_up(_: str) -> list[Found]:
            if knowledge is None or not settings.knowledge or not question:
                return []
            shelves = around.shelves(self.user, speaker)
            return self._tried(lambda: knowledge.search(shelves, question, k=4), "knowledge")

        def summarize(left_out: Sequence[str], budget: int) -> str:
            if not settings.memory or budget < 16:
                return ""
            return self._summed(speaker, lines, left_out, budget)

        return Sources(recall, look_up, summarize)

    def _summed(
        self, speaker: str, lines: Sequence[Line], left_out: Sequence[str], budget: int
    ) -> str:
        """What no longer fits, summed up: the summary of her last reply and what left since."""
        before, upto = "", -1
        for line in reversed(lines):
            kept = line.details.get("summary") if line.speaker == speaker else None
            if kept and kept["upto"] in left_out:
                before, upto = kept["text"], list(left_out).index(kept["upto"])
                break
        name = self.settings.persona().name
        by_id = {line.id: line for line in lines}
        newer = [
            heard_line(by_id[id], self.conversation, self.members, name)
            for id in left_out[upto + 1 :]
        ]
        count = self.model.count
        empty = count([Message("user", "")])
        made = summary.shown(
            summary.summarize(
                summary.read_summary(before), newer, budget=budget,
                count=lambda text: count([Message("user", text)]) - empty,
            )
        )  # fmt: skip
        self.summary = {"upto": left_out[-1], "text": made} if made else {}
        return made

    def _tried(self, search: Callable[[], list[Any]], what: str) -> list[Any]:
        """A search that fails costs the reply nothing but what it would have found."""
        try:
            return search()
        except ElysiaError as error:
            log.warning("She answers without %s: %s", what, error)
        except Exception:
            log.exception("She answers without %s", what)
        return []
