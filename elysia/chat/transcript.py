"""Conversations as JSONL files: a first line that says what the file is, then one message a line.

The branch that is shown is exported. Our own files are imported, and SillyTavern's chats (`name`,
`is_user`, `mes`); every line is checked, and nothing is stored when one is wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from elysia.chat.message_tree import MessageState
from elysia.chat.service import ChatService
from elysia.core.errors import DataError
from elysia.core.files import render_json_lines

FORMAT, VERSION = "elysia-chat", 1
# Nobody goes on writing a reply that was being written when the file was made.
IMPORTED_STATES = {
    **{state.value: state for state in MessageState},
    MessageState.WRITING.value: MessageState.STOPPED,
}
MAX_BYTES, MAX_MESSAGES, MAX_TEXT_LENGTH = 20 << 20, 20_000, 100_000


def export_conversation(service: ChatService, user: str, id: str) -> bytes:
    """The branch that is shown, as UTF-8 JSONL; a reply that is being written, as far as it is."""
    conversation = service.store.get(user, id)
    known = {member.key: member.name for member in service.characters.all(user)}
    names = {key: known.get(key, key) for key in conversation.guests}
    head = {
        "format": FORMAT, "version": VERSION, "title": conversation.title, "characters": names,
        "created": conversation.created,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [head]
    for message in service.get_messages(user, id):
        row: dict[str, Any] = {
            "role": message.role, "text": message.text, "at": round(message.created, 3),
        }  # fmt: skip
        if message.speaker is not None:
            row |= {"speaker": message.speaker, "name": names.get(message.speaker, message.speaker)}
        if message.state != MessageState.COMPLETE:
            row["state"] = message.state.value
        rows.append(row)
    return render_json_lines(rows).encode()


def import_conversation(service: ChatService, user: str, guests: list[str], content: bytes) -> str:
    """A new conversation with `guests` from a file; its id. DataError names the line that is wrong."""
    title, messages = parse_transcript(content)
    keys = {member.name: member.key for member in service.characters.get_many(user, guests)}
    if not keys:
        raise DataError("chat.choose_speakers")
    first = next(iter(keys.values()))
    for message in messages:
        name, speaker = message.pop("name", ""), message.pop("speaker", None)
        if message["role"] == "assistant":
            message["speaker"] = speaker if speaker in keys.values() else keys.get(name, first)
        message["details"] = {"present": list(guests), "imported": True}
    conversation = service.store.create(user, guests, title or "、".join(keys), {})
    service.store.add(user, conversation.id, messages, parent=None)
    return conversation.id


def parse_transcript(content: bytes) -> tuple[str, list[dict[str, Any]]]:
    """A file's title and messages: role, text, created and state, for a reply speaker and name."""
    if len(content) > MAX_BYTES:
        raise DataError("chat.transcript_too_large", limit=MAX_BYTES >> 20)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("chat.transcript_not_utf8", byte=error.start) from None
    title, messages = "", []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _parse_object(line, number)
        if number == 1 and ("format" in row or "chat_metadata" in row or "user_name" in row):
            title = _parse_title(row)
        else:
            messages.append(_parse_message(row, number))
        if len(messages) > MAX_MESSAGES:
            raise DataError("chat.transcript_too_long", limit=MAX_MESSAGES)
    if not messages:
        raise DataError("chat.transcript_empty")
    return title, messages


def _parse_object(line: str, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError("chat.transcript_not_json", line=number) from None
    if not isinstance(row, dict):
        raise DataError("chat.transcript_not_object", line=number)
    return row


def _parse_title(head: Mapping[str, Any]) -> str:
    if head.get("format", FORMAT) != FORMAT:
        raise DataError("chat.transcript_format", format=head["format"], expected=FORMAT)
    version = head.get("version")
    if isinstance(version, int) and version > VERSION:
        raise DataError("chat.transcript_version")
    title = head.get("title") or head.get("character_name") or ""
    return title if isinstance(title, str) else ""


def _parse_message(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A message of one of our files, or of SillyTavern's."""
    text = row.get("text", row.get("mes"))
    role = row.get("role")
    if role is None and isinstance(row.get("is_user"), bool):
        role = "user" if row["is_user"] else "assistant"
    if role is None:
        raise DataError("chat.transcript_no_role", line=number)
    if role not in ("user", "assistant"):
        raise DataError("chat.transcript_role", line=number, role=role)
    if not isinstance(text, str):
        raise DataError("chat.transcript_no_text", line=number)
    if len(text) > MAX_TEXT_LENGTH:
        raise DataError(
            "chat.transcript_text_too_long", line=number, length=len(text), limit=MAX_TEXT_LENGTH
        )
    state, at = row.get("state"), row.get("at")
    message: dict[str, Any] = {
        "role": role,
        "text": text.replace("\x00", ""),
        "state": IMPORTED_STATES.get(str(state), MessageState.COMPLETE),
        "created": float(at) if isinstance(at, int | float) and 0 < at < 1e11 else time.time(),
    }
    if role == "assistant":
        for key in ("speaker", "name"):
            if isinstance(row.get(key), str):
                message[key] = row[key]
    return message
