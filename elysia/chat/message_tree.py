"""The shape of a conversation: messages in a tree, of which one branch is shown. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from elysia.core.errors import ElysiaError
from elysia.core.i18n import Text


class MessageState(StrEnum):
    """Where a message stands; the values are those of the database and of exported files."""

    WRITING = "writing"
    COMPLETE = "whole"
    STOPPED = "stopped"  # by the user
    CUT = "cut"  # by the end of the process that wrote it
    FAILED = "failed"  # by an error


@dataclass(frozen=True)
class Conversation:
    """One conversation. `guests` (the name of the column) are its characters' keys; with several, a group."""

    id: str
    user: str
    title: str
    guests: tuple[str, ...]
    settings: Mapping[str, Any]
    head: str | None  # the last message of the branch that is shown
    created: float
    updated: float

    @property
    def seed(self) -> int:
        """The conversation's own seed, for macros that keep what they picked."""
        return int(self.id[:8], 16)


@dataclass(frozen=True)
class ChatMessage:
    """A message as it stands in a conversation.

    `speaker` is a character's key, or None for the user. `fault` is the English sentence of the error
    that ended a reply. `siblings` are the ids of all messages in the same place of the tree, this one
    among them, the oldest first.
    """

    id: str
    parent: str | None
    role: str
    speaker: str | None
    text: str
    state: MessageState = MessageState.COMPLETE
    fault: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    created: float = 0.0
    number: int = 0
    siblings: tuple[str, ...] = ()

    def render_fault(self, language: str) -> str:
        """The sentence of the error in a language; as it was stored where no code was."""
        return render_packed(self.details.get("error"), language, self.fault or "")


def pack_text(text: ElysiaError | Text) -> dict[str, Any]:
    """The code and parameters of an error or a text as JSON values, for a message's details.

    >>> pack_text(Text("chat.cut_short"))
    {'code': 'chat.cut_short', 'params': {}}
    """
    params = {name: _pack(value) for name, value in text.params.items()}
    return {"code": str(text.code), "params": params}


def render_packed(packed: Mapping[str, Any] | None, language: str, sentence: str) -> str:
    """A packed text in a language. Without one, or with a code of another version of this program, the
    `sentence` that was stored beside it.
    """
    try:
        return str(_unpack(packed).render(language)) if packed else sentence
    except (KeyError, AttributeError):
        return sentence


def _pack(value: Any) -> Any:
    if isinstance(value, ElysiaError | Text):
        return pack_text(value)
    if isinstance(value, list | tuple):
        return [_pack(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def _unpack(value: Any) -> Any:
    if isinstance(value, Mapping) and "code" in value:
        params = {name: _unpack(param) for name, param in value.get("params", {}).items()}
        return Text(value["code"], params)
    return [_unpack(item) for item in value] if isinstance(value, list) else value


def get_branch(tree: Mapping[str, ChatMessage], head: str | None) -> list[ChatMessage]:
    """The messages from the first down to `head`."""
    upwards: list[ChatMessage] = []
    while head is not None and head in tree:
        upwards.append(tree[head])
        head = tree[head].parent
    return upwards[::-1]


def find_newest_leaf(tree: Mapping[str, ChatMessage], message: str) -> str:
    """The end of the branch below `message` that follows the newest child each time."""
    newest: dict[str | None, str] = {}
    for key, child in tree.items():  # in the order they were begun, so the last one wins
        newest[child.parent] = key
    while message in newest:
        message = newest[message]
    return message
