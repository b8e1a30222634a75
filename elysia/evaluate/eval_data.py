"""The replies of dataset files, each with the messages before it: what models are measured on."""

from __future__ import annotations

from collections.abc import Iterator

from elysia.core.errors import DataError
from elysia.core.messages import Conversation, Message
from elysia.data.formats.conversion import load_conversations
from elysia.data.formats.registry import detect_format
from elysia.data.readers.row_reader import read_rows

ReplyExample = tuple[list[Message], str]  # the messages before a reply, and its text


def iter_reply_examples(messages: Conversation) -> Iterator[ReplyExample]:
    """Every reply of a conversation that is trained on, with all messages before it."""
    for index, message in enumerate(messages):
        if index and message.role == "assistant" and message.learned:
            yield list(messages[:index]), message.text


def read_reply_examples(file: str, limit: int = 0) -> list[ReplyExample]:
    """The replies of a file in any dataset format; `limit` of them, spread over the file (0: all).

    Raises DataError for a file that cannot be read or whose rows have no known format.
    """
    format = detect_format(next(iter(read_rows(file))).value)
    if format is None:
        raise DataError("evaluate.unknown_format", path=file)
    examples = [
        e for s in load_conversations(file, format) for e in iter_reply_examples(s.messages)
    ]
    if limit and len(examples) > limit:
        examples = [examples[index * len(examples) // limit] for index in range(limit)]
    return examples
