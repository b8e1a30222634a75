"""The texts of a row with their roles and places, taken as they stand, faults and all.

Training's own reading (formats.py) joins, drops and refuses; lint must see what is written. Knows
the keys of the formats and nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from elysia.core.errors import DataError
from elysia.data.formats.multi_turn import parse_role
from elysia.data.formats.preference_pairs import PREFERENCES, REPLY_KEYS, detect_pair_format
from elysia.data.formats.registry import FORMATS, detect_format


class TextField(NamedTuple):
    """One text of a row: where it stands, who says it ("" where no format tells), and the text.

    `text` is whatever lies there: None, or no text at all.
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
    """The format whose keys a row has, of pairs too; None when it has no format's."""
    if not isinstance(row, dict):
        return None
    return detect_pair_format(row) or detect_format(row)


def get_refusal(row: Mapping[str, Any], format: str) -> str:
    """What training's own reader says against a row; "" when it takes it."""
    try:
        if format in PREFERENCES:
            PREFERENCES[format](row)
        else:
            FORMATS[format](row)
    except DataError as error:
        return str(error)
    return ""


def get_text_fields(row: Mapping[str, Any], format: str | None) -> list[TextField]:
    """Every text of a row, in order. Of a row that no format fits, every text in it, with no role."""
    found = _fields_of_format(row, format) if format else []
    if any(isinstance(part.text, str) for part in found):
        return found
    return [*found, *_all_texts(row, "")]


def _fields_of_format(row: Mapping[str, Any], format: str) -> list[TextField]:
    if format == "xtuner":
        return list(_fields_of_turns(row))
    found: list[TextField] = []
    for key in ("system", "system_prompt"):
        if isinstance(row.get(key), str):
            found.append(TextField(key, "system", row[key]))
    for key in ("messages", "conversations", "prompt"):
        if isinstance(row.get(key), list):
            found += _fields_of_messages(row[key], key)
    if format in PREFERENCES:
        asked = [key for key in ("prompt", "instruction", "input") if isinstance(row.get(key), str)]
        found += [TextField(key, "user", row[key]) for key in asked]
        for key in REPLY_KEYS:
            value = row.get(key)
            said = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
            found += (
                _fields_of_messages(said, key) if said else [TextField(key, "assistant", value)]
            )
        return found
    if format in ("pretrain", "oasst1"):
        return [*found, TextField("text", "", row.get("text"))]
    asks, reply = _SINGLE_TURN_KEYS.get(format, ((), ""))
    found += [TextField(key, "user", row[key]) for key in asks if key in row]
    return [*found, TextField(reply, "assistant", row.get(reply))] if reply else found


def _fields_of_turns(row: Mapping[str, Any]) -> Iterator[TextField]:
    turns = row.get("conversation")
    for number, turn in enumerate(turns if isinstance(turns, list) else [], start=1):
        if not isinstance(turn, dict):
            continue
        for key, role in (("system", "system"), ("input", "user"), ("output", "assistant")):
            if key in turn:
                yield TextField(f"conversation[{number}].{key}", role, turn[key])


def _fields_of_messages(said: list[Any], key: str) -> Iterator[TextField]:
    for number, message in enumerate(said, start=1):
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
                continue  # no text, and its digits are nobody's telephone number
            yield from _all_texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            yield from _all_texts(inner, f"{where}[{number}]")
