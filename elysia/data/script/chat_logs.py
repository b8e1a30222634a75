"""Parse chat logs (JSON, JSON lines, CSV) into script lines: messages with a sender, a text and perhaps a
time. A new session or a long silence ends a scene.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from elysia.core.errors import DataError
from elysia.data.script.script_line import OTHER, SPEECH, ScriptLine, normalize_speaker

DEPTH = 8  # levels of sessions in sessions
SESSION_GAP = 1800.0  # seconds without a message that end a scene
SENDER_KEYS = (
    "speaker", "sender", "from", "name", "nickname", "talker", "author", "user", "username", "role",
    "发送者", "昵称", "姓名",
)  # fmt: skip
TEXT_KEYS = ("text", "content", "message", "msg", "strcontent", "body", "value", "内容", "消息")
TIME_KEYS = ("time", "timestamp", "date", "ts", "createtime", "datetime", "strtime", "时间", "日期")
SESSION_KEYS = (
    "session",
    "session_id",
    "conversation",
    "conversation_id",
    "thread",
    "channel",
    "room",
    "会话",
)
_TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d/%m/%Y %H:%M",
)  # fmt: skip


def parse_chat_log(text: str, format: str, gap: float = 0.0) -> Iterator[ScriptLine]:
    """The lines of a log; numbers count messages. `format` is json, jsonl or csv.

    DataError where it cannot be read, or no message has a sender and a text.
    """
    messages = list(_csv(text) if format == "csv" else _json(text, format))
    if not any(
        _get_first(message, SENDER_KEYS) and _get_first(message, TEXT_KEYS)
        for message, _ in messages
    ):
        raise DataError(
            "data.no_messages", senders=list(SENDER_KEYS[:6]), texts=list(TEXT_KEYS[:4])
        )
    scene, before, group = 1, None, None
    for number, (message, session) in enumerate(messages, start=1):
        when, group_now = (
            _parse_time(_get_first(message, TIME_KEYS)),
            _get_first(message, SESSION_KEYS) or session,
        )
        long = before is not None and when is not None and abs(when - before) > (gap or SESSION_GAP)
        if number > 1 and (long or group_now != group):
            scene += 1
        before, group = when if when is not None else before, group_now
        speaker = normalize_speaker(str(_get_first(message, SENDER_KEYS) or ""))
        words = _join_parts(_get_first(message, TEXT_KEYS)).strip()
        if speaker and words:
            yield ScriptLine(SPEECH, words, scene, (number,), speaker)
        else:
            reason = f"the message has not {'a text' if speaker else 'a sender'}"
            yield ScriptLine(OTHER, words, scene, (number,), speaker, reason=reason)


def _csv(text: str) -> Iterator[tuple[Mapping[str, Any], Any]]:
    csv.field_size_limit(2**31 - 1)
    try:
        for row in csv.DictReader(io.StringIO(text, newline="")):
            yield row, None
    except csv.Error as error:
        raise DataError("data.chat_not_csv", detail=str(error)) from None


def _json(text: str, format: str) -> Iterator[tuple[Mapping[str, Any], Any]]:
    try:
        if format == "jsonl":
            value: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("data.chat_not_json", detail=str(error) or "nested too deeply") from None
    yield from _messages(value, None, 0)


def _messages(value: Any, session: Any, depth: int) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Messages of a list, of an object that holds one, or of a list of such sessions."""
    if depth > DEPTH:
        return
    if isinstance(value, dict) and _is_message(value):
        yield value, session
    elif isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        for number, inner in enumerate(lists):
            yield from _messages(inner, (session, number), depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            message = isinstance(item, dict) and _is_message(item)
            yield from _messages(item, session if message else (session, number), depth + 1)


def _is_message(value: Mapping[str, Any]) -> bool:
    """Whether an object is a message, not a session that holds some."""
    texts = [inner for key, inner in value.items() if str(key).lower().strip() in TEXT_KEYS]
    return any(
        not isinstance(text, list)
        or not any(isinstance(part, dict) and _get_first(part, SENDER_KEYS) for part in text)
        for text in texts
    )


def _get_first(message: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    low = {str(key).lower().strip(): value for key, value in message.items()}
    return next((low[key] for key in keys if low.get(key) not in (None, "")), None)


def _join_parts(value: Any) -> str:
    """A text; some exports write it as a list of parts."""
    if isinstance(value, list):
        return "".join(str(p.get("text", "")) if isinstance(p, dict) else str(p) for p in value)
    return "" if value is None else str(value)


def _parse_time(value: Any) -> float | None:
    """Seconds since 1970 of a timestamp or a date as text; None when it is neither."""
    if value is None:
        return None
    try:
        number = float(value)
        return number / 1000 if number > 1e11 else number
    except (TypeError, ValueError):
        pass
    text = str(value).strip()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    for form in _TIME_FORMATS:
        try:
            return datetime.strptime(text, form).timestamp()
        except ValueError:
            continue
    return None
