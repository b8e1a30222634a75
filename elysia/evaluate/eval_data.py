"""The replies of dataset files, each with what was said before it: what models are measured on.

Knows nothing of models or measures.
"""

from __future__ import annotations

from collections.abc import Iterator

from elysia.core.errors import DataError
from elysia.core.messages import Conversation, Message
from elysia.data.formats.conversion import load_conversations
from elysia.data.formats.registry import detect_format
from elysia.data.readers.row_reader import read_rows

ReplyExample = tuple[list[Message], str]  # what was said before, and the reply


def iter_reply_examples(messages: Conversation) -> Iterator[ReplyExample]:
    """Every reply of a conversation that is learned, with all that was said before it."""
    for place, message in enumerate(messages):
        if place and message.role == "assistant" and message.learned:
            yield list(messages[:place]), message.text


def read_reply_examples(file: str, limit: int = 0) -> list[ReplyExample]:
    """The replies of a file in any dataset format; `limit` of them, spread over it (0: all).

    DataError for a file that cannot be read or whose rows are of no format.
    """
    format = detect_format(next(iter(read_rows(file))).value)
    if format is None:
        raise DataError(f"{file}: its rows are of no dataset format; `elysia data lint` says why.")
    found = [
        talk for s in load_conversations(file, format) for talk in iter_reply_examples(s.messages)
    ]
    if limit and len(found) > limit:
        found = [found[place * len(found) // limit] for place in range(limit)]
    return found
