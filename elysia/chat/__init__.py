"""Conversations with characters: the service behind the pages, and the session behind the terminal.

`ChatService` stores conversations of many users in a database, writes replies in worker threads and follows
them with memory; `ChatSession` is one conversation in memory. `generation` writes replies, `prompt` builds
their prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elysia.core.lazy_imports import build_getattr

if TYPE_CHECKING:
    from elysia.chat.accounts import AccountStore
    from elysia.chat.characters import CharacterRegistry
    from elysia.chat.chat_model import ChatModel
    from elysia.chat.message_tree import ChatMessage, Conversation, MessageState
    from elysia.chat.service import ChatService
    from elysia.chat.session import ChatSession
    from elysia.chat.settings import ConversationSettings
    from elysia.chat.transcript import export_conversation, import_conversation

__all__ = [
    "AccountStore",
    "CharacterRegistry",
    "ChatMessage",
    "ChatModel",
    "ChatService",
    "ChatSession",
    "Conversation",
    "ConversationSettings",
    "MessageState",
    "export_conversation",
    "import_conversation",
]

_MODULES = {
    "AccountStore": "accounts",
    "CharacterRegistry": "characters",
    "ChatMessage": "message_tree",
    "ChatModel": "chat_model",
    "ChatService": "service",
    "ChatSession": "session",
    "Conversation": "message_tree",
    "ConversationSettings": "settings",
    "MessageState": "message_tree",
    "export_conversation": "transcript",
    "import_conversation": "transcript",
}

# Imported on first use: a session in the terminal does without the database behind the service.
__getattr__ = build_getattr(__name__, _MODULES)
