"""What a base is asked for its rows, and its answers, kept so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elysia.core.messages import Conversation


@dataclass(frozen=True)
class BaseRequest:
    """What the base is to answer; `seed` makes its sampling repeatable."""

    messages: Conversation
    max_new_tokens: int
    temperature: float
    seed: int

    @property
    def key(self) -> str:
        """A digest of the request, under which its answer is kept."""
        talk = [(message.role, message.text) for message in self.messages]
        content = json.dumps([talk, self.max_new_tokens, self.temperature, self.seed])
        return hashlib.sha256(content.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class BaseAnswer:
    """The base's answer, and whether it ended by itself."""

    text: str
    ended: bool


Answerer = Callable[[Sequence[BaseRequest]], Iterable[tuple[int, BaseAnswer]]]


class AnswerJournal:
    """Answers of one base, a JSON line each, appended as they come; a broken last line is ignored."""

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        self.answers: dict[str, BaseAnswer] = {}
        self._is_open = False
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            value = json.loads(line)
            if value["model"] == self.model:
                self.answers[value["key"]] = BaseAnswer(str(value["text"]), bool(value["ended"]))
        except (ValueError, KeyError, TypeError):
            return

    def complete(self, requests: Sequence[BaseRequest], answerer: Answerer) -> list[BaseAnswer]:
        """The answer to each request; only those that are not kept yet are asked."""
        missing = [request for request in requests if request.key not in self.answers]
        missing = list({request.key: request for request in missing}.values())
        for place, answer in answerer(missing) if missing else ():
            key = missing[place].key
            self.answers[key] = answer
            line = {"model": self.model, "key": key, "text": answer.text, "ended": answer.ended}
            self._append(json.dumps(line, ensure_ascii=False))
        return [self.answers[request.key] for request in requests]

    def _append(self, line: str) -> None:
        """Append a line; the first one of a run begins anew, since a killed run may have left half a line."""
        text = line + "\n" if self._is_open else "\n" + line + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
        self._is_open = True
