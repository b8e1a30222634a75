"""The one shape of a conversation, from the first dataset row to the last chat turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, init=False)
class Message:
    """One message.

    `learn` matters to training only: None means that an assistant's message is learned and any other
    is not; False on an assistant's message makes it context.

    `images` are files in training data and URLs in a chat. `calls` are the tools that an assistant
    called, as OpenAI writes them; `answers` is the id of the call that a tool's message answers.
    """

    role: str
    text: str
    name: str | None = None
    images: tuple[str, ...] = ()
    learn: bool | None = None
    calls: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    answers: str | None = field(default=None, repr=False)

    def __init__(
        self,
        role: str,
        text: str,
        name: str | None = None,
        images: tuple[str, ...] = (),
        learn: bool | None = None,
        calls: tuple[Mapping[str, Any], ...] = (),
        answers: str | None = None,
    ) -> None:
        if role not in ROLES:
            raise ValueError(f"role {role!r} is none of {', '.join(ROLES)}")
        # What a frozen dataclass writes for itself takes three times as long, and a dataset has
        # millions of messages.
        values = self.__dict__
        values["role"], values["text"], values["name"] = role, text, name
        values["images"], values["learn"] = images, learn
        values["calls"], values["answers"] = calls, answers

    @property
    def learned(self) -> bool:
        """Whether training puts loss on this message's text."""
        return self.role == "assistant" if self.learn is None else self.learn


Conversation = Sequence[Message]
