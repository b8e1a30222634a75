"""The shape of a conversation: messages in a tree, of which one branch is shown.

Plain data. Knows nothing of databases, engines or pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What may be said of a message: being written, ended by itself, by the user, by a dead process, by a fault.
WRITING, WHOLE, STOPPED, CUT, FAILED = "writing", "whole", "stopped", "cut", "failed"


@dataclass(frozen=True)
class Conversation:
    """One conversation. `guests` are the keys of its characters; with several it is a group."""

    id: str
    user: str
    title: str
    guests: tuple[str, ...]
    settings: Mapping[str, Any]
    head: str | None
    created: float
    updated: float


@dataclass(frozen=True)
class ChatMessage:
    """A message as it stands in a conversation. `speaker` is a character's key, None the user.

    `siblings` are the ids of all that stand in its place, itself among them, the oldest first.
    """

    id: str
    parent: str | None
    role: str
    speaker: str | None
    text: str
    state: str = WHOLE
    fault: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    created: float = 0.0
    number: int = 0
    siblings: tuple[str, ...] = ()


def get_branch(tree: Mapping[str, ChatMessage], head: str | None) -> list[ChatMessage]:
    """The messages from the first down to `head`."""
    found: list[ChatMessage] = []
    while head is not None and head in tree:
        found.append(tree[head])
        head = tree[head].parent
    return found[::-1]


def find_newest_leaf(tree: Mapping[str, ChatMessage], message: str) -> str:
    """Down from `message`, always to the child that was begun last."""
    newest: dict[str | None, str] = {}
    for key, line in tree.items():
        newest[line.parent] = key
    while message in newest:
        message = newest[message]
    return message
