"""The texts of a row with their roles and places, exactly as written.

The functions that training reads rows with (data/formats) join, drop and refuse; lint must see the
faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from elysia.core.errors import DataError
from elysia.data.formats.multi_turn import parse_role
from elysia.data.formats.preference_pairs import PREFERENCES, REPLY_KEYS, detect_pair_format
from elysia.data.formats.registry import FORMATS, detect_format


class TextField(NamedTuple):
    """One text of a row: its path in the row, the role that says it ("" where the format has none),
    and the text, or whatever stands in its place: None, a number, a list.
    """

    where: str
    role: str
    text: Any


# Keys of formats with one turn: question (or several parts of it), reply, system.
_SINGLE_TURN_KEYS: dict[str, tuple[tuple[str, ...], str]] = {
    "alpaca": (("instruction", "input"), "output"),
    "alpaca_zh": (("instruction_zh", "input_zh"), "output_zh"),
    "arxiv": (("abstract",), "title"),
    "code_alpaca": (("prompt",), "completion"),
    "tiny_codes": (("prompt",), "response"),
    "colors": (("description",), "color"),
    "sql": (("context", "question"), "answer"),
    "law_reference": (("question",), "answer"),
    "openorca": (("question",), "response"),
    "stack_exchange": (("question",), "response"),
    "default": (("input",), "output"),
}
OPTIONAL_KEYS = {"input", "input_zh", "system", "system_prompt"}  # keys that may be empty


def detect_row_format(row: Any) -> str | None:
    """The format, also of pairs, whose keys a row has, or None."""
    if not isinstance(row, dict):
        return None
    return detect_pair_format(row) or detect_format(row)


def get_refusal(row: Mapping[str, Any], format: str) -> str:
    """Why training would refuse a row; "" when it would not."""
    try:
        if format in PREFERENCES:
            PREFERENCES[format](row)
        else:
            FORMATS[format](row)
    except DataError as error:
        return str(error)
    return ""


def get_text_fields(row: Mapping[str, Any], format: str | None) -> list[TextField]:
    """Every text of a row, in order; of a row of no format, every text in it, without roles."""
    fields = _fields_of_format(row, format) if format else []
    if any(isinstance(item.text, str) for item in fields):
        return fields
    return [*fields, *_all_texts(row, "")]


def _fields_of_format(row: Mapping[str, Any], format: str) -> list[TextField]:
    if format == "xtuner":
        return list(_fields_of_turns(row))
    fields: list[TextField] = []
    for key in ("system", "system_prompt"):
        if isinstance(row.get(key), str):
            fields.append(TextField(key, "system", row[key]))
    for key in ("messages", "conversations", "prompt"):
        if isinstance(row.get(key), list):
            fields += _fields_of_messages(row[key], key)
    if format in PREFERENCES:
        asks = [key for key in ("prompt", "instruction", "input") if isinstance(row.get(key), str)]
        fields += [TextField(key, "user", row[key]) for key in asks]
        for key in REPLY_KEYS:
            value = row.get(key)
            messages = [value] if isinstance(value, dict) else value
            if isinstance(messages, list) and messages:
                fields += _fields_of_messages(messages, key)
            else:
                fields.append(TextField(key, "assistant", value))
        return fields
    if format in ("pretrain", "oasst1"):
        return [*fields, TextField("text", "", row.get("text"))]
    questions, reply = _SINGLE_TURN_KEYS.get(format, ((), ""))
    fields += [TextField(key, "user", row[key]) for key in questions if key in row]
    return [*fields, TextField(reply, "assistant", row.get(reply))] if reply else fields


def _fields_of_turns(row: Mapping[str, Any]) -> Iterator[TextField]:
    turns = row.get("conversation")
    for number, turn in enumerate(turns if isinstance(turns, list) else [], start=1):
        if not isinstance(turn, dict):
            continue
        for key, role in (("system", "system"), ("input", "user"), ("output", "assistant")):
            if key in turn:
                yield TextField(f"conversation[{number}].{key}", role, turn[key])


def _fields_of_messages(messages: list[Any], key: str) -> Iterator[TextField]:
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            continue
        where = f"{key}[{number}]"
        speaker, words = ("from", "value") if "from" in message else ("role", "content")
        try:
            role = parse_role(str(message.get(speaker)), where)
        except DataError:
            role = ""
        text = message.get(words)
        if isinstance(text, list):
            inner = [part for part in text if isinstance(part, dict)]
            texts = [part.get("text", part.get("value")) for part in inner]
            text = "".join(part for part in texts if isinstance(part, str))
        yield TextField(f"{where}.{words}", role, text)


def _all_texts(value: Any, where: str) -> Iterator[TextField]:
    if isinstance(value, str):
        yield TextField(where, "", value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if str(key).lower().endswith("id"):
                continue  # an id is not text, and its digits are not a phone number
            yield from _all_texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            yield from _all_texts(inner, f"{where}[{number}]")
