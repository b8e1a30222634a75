"""A round: the replies to one message, one after the other; each recalled, composed, streamed, kept.

Runs in a worker's thread. Knows nothing of pages, nor of which engine answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elysia.chat import director
from elysia.chat.cast import Member
from elysia.chat.character import Character
from elysia.chat.greetings import seed_of
from elysia.chat.live import Live
from elysia.chat.own_words import OwnWords
from elysia.chat.prompt import Composed, Limits, Sources, compose, language_of
from elysia.chat.store import Conversations
from elysia.chat.surroundings import Surroundings, heard_line, name_of, was_present
from elysia.chat.talk_settings import TalkSettings
from elysia.chat.tree import FAILED, STOPPED, WHOLE, WRITING, Conversation, Line
from elysia.core.errors import ElysiaError
from elysia.core.messages import Message
from elysia.core.templates import PromptTemplate
from elysia.engines.base import Engine, Request
from elysia.knowledge.base import Found
from elysia.memory.base import Recalled, Scope

log = logging.getLogger(__name__)

KEEP_EVERY = 0.5  # seconds between writes of a growing reply
REMEMBERED = 8  # newest messages that are handed to memory after a round; it knows those it has
TABLE = {
    "zh": "在座的还有：{others}。只说{char}自己的话。",
    "en": "Also at the table: {others}. Speak for {char} only.",
}


@dataclass(frozen=True)
class Model:
    """An engine and how its model wants to be spoken to."""

    engine: Engine
    template: PromptTemplate
    system: str = ""
    stop: tuple[str, ...] = ()


@dataclass
class Round:
    """The replies to one message. `place` keeps the first one's place, `run` writes them."""

    user: str
    conversation: Conversation
    members: Mapping[str, Member]
    model: Model
    store: Conversations
    surroundings: Surroundings
    slots: threading.BoundedSemaphore
    live: MutableMapping[str, Live]
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.settings = TalkSettings.of(self.conversation.settings)
        self.guests = [member.guest for member in self.members.values()]
        self._stopped = threading.Event()
        self._single = False
        self._reply = ""

    def stop(self) -> None:
        """End the reply that is being written, and the round with it."""
        self._stopped.set()
        if live := self.live.get(self._reply):
            live.cancel.set()

    def place(
        self, lines: Sequence[Mapping[str, Any]], parent: str | None, speaker: str | None = None
    ) -> str:
        """Keep `lines` and an empty reply behind them; the reply's id. With a `speaker` there is one
        reply, hers; else the director chooses.
        """
        above = [*self._above(parent), *(_unkept(line) for line in lines)]
        choice = (
            director.Choice(speaker, "asked to answer anew") if speaker else self._next(above, [])
        )
        self._single = speaker is not None
        chosen = choice or director.Choice(self.guests[0].key, "the only one")
        return self._place(lines, parent, chosen)

    def _place(
        self, lines: Sequence[Mapping[str, Any]], parent: str | None, choice: director.Choice
    ) -> str:
        details = {"present": list(self.members), "reason": choice.reason}
        reply = {
            "role": "assistant", "speaker": choice.key, "text": "", "state": WRITING,
            "details": details,
        }  # fmt: skip
        made = self.store.add(self.user, self.conversation.id, [*lines, reply], parent=parent)
        self.live[made[-1]] = Live()
        self._reply = made[-1]
        return made[-1]

    def run(self) -> None:
        """Write the reply that has its place, then those of whoever the director lets speak."""
        spoken: list[str] = []
        while True:
            lines = self._above(self._reply)
            if not lines or lines[-1].id != self._reply:
                self.live.pop(self._reply, None)
                return  # deleted meanwhile
            spoken.append(str(lines[-1].speaker))
            whole = self._write(lines)
            if not whole or self._single or self._stopped.is_set() or len(self.guests) == 1:
                return
            choice = self._next(self._above(self._reply), spoken)
            if choice is None:
                return
            self._place([], self._reply, choice)

    def remember(self) -> None:
        """Let every guest remember what she heard."""
        lines = self._above(self._reply)[-REMEMBERED:]
        self.surroundings.remember(self.user, self.conversation, self.members, lines)

    def _above(self, message: str | None) -> list[Line]:
        return self.store.path(self.user, self.conversation.id, message)

    def _next(self, lines: Sequence[Line], spoken: Sequence[str]) -> director.Choice | None:
        talk = [director.Heard(line.speaker, line.text) for line in lines]
        return director.next_speaker(talk, self.guests, spoken, self.settings.round)

    # One reply

    def _write(self, lines: Sequence[Line]) -> bool:
        """Write the last of `lines`; whether it came to its own end."""
        line, live = lines[-1], self.live[lines[-1].id]
        details: dict[str, Any] = dict(line.details)
        state, fault = FAILED, None
        try:
            began = time.monotonic()
            composed = self._compose(lines[:-1], str(line.speaker))
            details["prepared"] = round(time.monotonic() - began, 4)
            details["lore"] = sorted(composed.matched)
            self.store.keep_receipt(line.id, composed.receipt)
            with self.slots:
                details["waited"] = round(time.monotonic() - began, 4)
                state = self._stream(line, live, composed, details)
        except ElysiaError as error:
            fault = str(error)
        except Exception as error:
            fault = f"The reply failed by a mistake of ours: {type(error).__name__}: {error}."
            log.exception("A reply failed")
        try:
            self.store.finish(line.id, live.text, state, fault, details)
        finally:
            # Watchers are told last: who then looks into the store finds the end there.
            live.end(state)
            self.live.pop(line.id, None)
        return state == WHOLE

    def _stream(self, line: Line, live: Live, composed: Composed, details: dict[str, Any]) -> str:
        if self._stopped.is_set() or live.cancel.is_set():
            return STOPPED
        member = self.members[str(line.speaker)]
        user = self.settings.persona().name
        stop = (*self.model.stop, *director.other_names(self.guests, member.key, user))
        request = Request(
            composed.messages, self.model.template, stop, self.settings.sampling(line.number)
        )
        words = OwnWords(member.guest.names)
        kept, finish = time.monotonic(), None
        for delta in self.model.engine.stream(request, live.cancel):
            finish = delta.finish
            if text := words.push(delta.text):
                live.write(text)
            if delta.usage is not None:
                details["tokens"] = delta.usage.reply_tokens
            if time.monotonic() - kept > KEEP_EVERY:
                kept = time.monotonic()
                if not self.store.write(line.id, live.text):
                    live.cancel.set()
        if text := words.rest():
            live.write(text)
        details["finish"] = finish
        return STOPPED if finish == "cancelled" else WHOLE

    def _compose(self, lines: Sequence[Line], speaker: str) -> Composed:
        """The prompt for `speaker`, who heard what was said while she was there."""
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
        table = self._table(speaker, messages[-1].text) if len(self.guests) > 1 else ""
        return compose(
            character,
            messages,
            [line.id for line in heard],
            count=lambda asked: self.model.engine.count_tokens(asked, self.model.template),
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
        if len(self.guests) == 1:
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
        memory, knowledge, by_id = (
            around.memory,
            around.knowledge,
            {line.id: line for line in lines},
        )
        question = next((line.text for line in reversed(lines) if line.role == "user"), "")
        scope = Scope(self.user, speaker)
        name = settings.persona().name

        def recall(_: str, without: Sequence[str]) -> list[Recalled]:
            if memory is None or not settings.memory or not question:
                return []
            return self._tried(
                lambda: memory.recall(scope, question, k=8, without=without), "memory"
            )

        def look_up(_: str) -> list[Found]:
            if knowledge is None or not settings.knowledge or not question:
                return []
            shelves = around.shelves(self.user, speaker)
            return self._tried(lambda: knowledge.search(shelves, question, k=4), "knowledge")

        def summarize(left_out: Sequence[str], budget: int) -> str:
            if around.summarize is None or not settings.memory or budget < 16:
                return ""
            heard = [
                heard_line(by_id[id], self.conversation, self.members, name) for id in left_out
            ]
            count = self.model.engine.count_tokens
            empty = count([Message("user", "")], self.model.template)
            return around.summarize(
                heard, budget,
                lambda text: count([Message("user", text)], self.model.template) - empty,
            )  # fmt: skip

        return Sources(recall, look_up, summarize)

    def _tried(self, search: Callable[[], list[Any]], what: str) -> list[Any]:
        """A search that fails costs the reply nothing but what it would have found."""
        try:
            return search()
        except ElysiaError as error:
            log.warning("She answers without %s: %s", what, error)
        except Exception:
            log.exception("She answers without %s", what)
        return []


def _unkept(line: Mapping[str, Any]) -> Line:
    return Line("", None, line["role"], line.get("speaker"), line["text"])
