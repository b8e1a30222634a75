"""`Message` and `Conversation`: what dataset readers produce, templates render and engines answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, init=False)
class Message:
    """One message of a conversation.

    `learn` matters in training alone: None means that an assistant's message gets loss and any other
    does not; False on an assistant's message makes it context without loss.

    `images` are paths in training data and URLs in a chat. `calls` are the tool calls of an assistant's
    message in OpenAI's format; `answers` is the id of the call that a tool's message answers.

    Raises ValueError for a role that is not in ROLES.
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
        # The `__init__` that a frozen dataclass generates takes three times as long (it calls
        # object.__setattr__ per field), and a dataset has millions of messages.
        values = self.__dict__
        values["role"], values["text"], values["name"] = role, text, name
        values["images"], values["learn"] = images, learn
        values["calls"], values["answers"] = calls, answers

    @property
    def learned(self) -> bool:
        """Whether training puts loss on this message's text."""
        return self.role == "assistant" if self.learn is None else self.learn


Conversation = Sequence[Message]
