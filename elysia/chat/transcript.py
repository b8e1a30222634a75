"""A conversation as JSONL, out and in: a first line that says what it is, then a message a line.

The branch that is shown goes out. In come our own files and those of SillyTavern's chats (`name`,
`is_user`, `mes`); each line is checked, and nothing is kept when one is wrong. Knows nothing of pages.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from elysia.chat.message_tree import CUT, FAILED, STOPPED, WHOLE, WRITING
from elysia.chat.service import ChatService
from elysia.core.errors import DataError

FORMAT, VERSION = "elysia-chat", 1
MAX_BYTES, MAX_MESSAGES, MAX_TEXT_LENGTH = 20 << 20, 20_000, 100_000


def export_conversation(service: ChatService, user: str, id: str) -> bytes:
    """The branch that is shown, as UTF-8 JSONL. What is being written goes as far as it is."""
    talk = service.store.get(user, id)
    names = {key: _get_name(service, user, key) for key in talk.guests}
    head = {
        "format": FORMAT, "version": VERSION, "title": talk.title, "characters": names,
        "created": talk.created,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [head]
    for line in service.get_messages(user, id):
        row: dict[str, Any] = {"role": line.role, "text": line.text, "at": round(line.created, 3)}
        if line.speaker is not None:
            row |= {"speaker": line.speaker, "name": names.get(line.speaker, line.speaker)}
        if line.state != WHOLE:
            row["state"] = line.state
        rows.append(row)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def import_conversation(service: ChatService, user: str, guests: list[str], content: bytes) -> str:
    """A new conversation with `guests` from a file; its id. DataError with the line that is wrong."""
    title, lines = parse_transcript(content)
    members = {member.name: member.key for member in service.characters.guests(user, guests)}
    keys = set(members.values())
    first = next(iter(members.values()), None)
    if first is None:
        raise DataError("Choose with whom the conversation was.")
    for line in lines:
        if line["role"] == "assistant":
            said = line.pop("speaker", None)
            line["speaker"] = said if said in keys else members.get(line.pop("name", ""), first)
        line.pop("name", None)
        line["details"] = {"present": list(guests), "imported": True}
    talk = service.store.new(user, guests, title or "、".join(members), {})
    service.store.add(user, talk.id, lines, parent=None)
    return talk.id


def parse_transcript(content: bytes) -> tuple[str, list[dict[str, Any]]]:
    """A file's title and messages: role, text, created, state, for a reply speaker and name."""
    if len(content) > MAX_BYTES:
        raise DataError(f"The file has more than {MAX_BYTES >> 20} MB.")
    try:
        rows = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"The file is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    title, lines = "", []
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        found = _parse_object(row, number)
        if number == 1 and ("format" in found or "chat_metadata" in found or "user_name" in found):
            title = _parse_title(found)
        else:
            lines.append(_parse_message(found, number))
        if len(lines) > MAX_MESSAGES:
            raise DataError(f"The file has more than {MAX_MESSAGES} messages.")
    if not lines:
        raise DataError("The file holds no message.")
    return title, lines


def _parse_object(row: str, number: int) -> Mapping[str, Any]:
    try:
        found = json.loads(row)
    except (ValueError, RecursionError):
        raise DataError(f"Line {number} is not JSON; each line is one object.") from None
    if not isinstance(found, dict):
        raise DataError(f"Line {number} is not an object.")
    return found


def _parse_title(head: Mapping[str, Any]) -> str:
    if head.get("format", FORMAT) != FORMAT:
        raise DataError(f"Line 1: the format is {head['format']!r}, not '{FORMAT}'.")
    version = head.get("version")
    if isinstance(version, int) and version > VERSION:
        raise DataError("Line 1: the file is of a newer version; update Elysia.")
    title = head.get("title") or head.get("character_name") or ""
    return title if isinstance(title, str) else ""


def _parse_message(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One of ours, or one of SillyTavern's."""
    text = row.get("text", row.get("mes"))
    role = row.get("role")
    if role is None and isinstance(row.get("is_user"), bool):
        role = "user" if row["is_user"] else "assistant"
    if role is None:
        raise DataError(f"Line {number} has no 'role' (user or assistant).")
    if role not in ("user", "assistant"):
        raise DataError(f"Line {number}: the role is {role!r}; it is user or assistant.")
    if not isinstance(text, str):
        raise DataError(f"Line {number} has no 'text'.")
    if len(text) > MAX_TEXT_LENGTH:
        raise DataError(
            f"Line {number} has {len(text)} characters; {MAX_TEXT_LENGTH} are the most."
        )
    state, at = row.get("state"), row.get("at")
    if state not in (STOPPED, CUT, FAILED):
        state = STOPPED if state == WRITING else WHOLE
    line: dict[str, Any] = {
        "role": role,
        "text": text.replace("\x00", ""),
        "state": state,
        "created": float(at) if isinstance(at, int | float) and 0 < at < 1e11 else time.time(),
    }
    if role == "assistant":
        for key in ("speaker", "name"):
            if isinstance(row.get(key), str):
                line[key] = row[key]
    return line


def _get_name(service: ChatService, user: str, key: str) -> str:
    member = next((one for one in service.characters.all(user) if one.key == key), None)
    return member.name if member else key
