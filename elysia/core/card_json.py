"""JSON of strangers: read within bounds, and written again without a changed digit.

A number that Python would spell otherwise (1.10, 1e400, a 30-digit integer) keeps its own spelling.
Knows nothing of what a card's fields mean.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from elysia.core.errors import PersonaError

MAX_BYTES = 8 << 20  # of text; the largest cards in the wild are near 1 MB
MAX_PARTS = 1_000_000  # commas and opening brackets: what memory the parsed values take
MAX_DEPTH = 64


class VerbatimNumber(float):
    """A number with the very text it had in the file. Compares and counts as a float."""

    text: str

    def __new__(cls, text: str) -> VerbatimNumber:
        made = super().__new__(cls, text)
        made.text = text
        return made


def loads(raw: bytes, where: str, notes: list[str] | None = None) -> Any:
    """The value of UTF-8 JSON (with or without a BOM). `where` names the source in errors.

    Raises PersonaError when it is too large, too deep, not UTF-8 or not JSON. Of a key that an
    object has twice the last value holds, as in browsers; `notes` is told.
    """
    if len(raw) > MAX_BYTES:
        raise PersonaError(
            f"{where}: the JSON has {len(raw) >> 20} MB; cards of up to {MAX_BYTES >> 20} MB are read."
        )
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > MAX_PARTS:
        raise PersonaError(f"{where}: the JSON has more than {MAX_PARTS} values; it is no card.")
    twice: set[str] = set()

    def of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice.update(
                key for key, times in Counter(key for key, _ in pairs).items() if times > 1
            )
        return made

    try:
        value = json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=of_pairs,
            parse_float=_parse_number,
            parse_int=_parse_number,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError:
        raise PersonaError(f"{where} is not UTF-8 text: save the card as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise PersonaError(
            f"{where}, line {error.lineno}: the card is not JSON ({error.msg})."
        ) from None
    except RecursionError:
        raise PersonaError(f"{where}: the card is nested too deeply to be one.") from None
    except ValueError as error:
        raise PersonaError(f"{where}: the card is not JSON ({error}).") from None
    if _is_deeper_than(value, MAX_DEPTH):
        raise PersonaError(f"{where}: the card is nested too deeply to be one.")
    if notes is not None and twice:
        names = ", ".join(sorted(twice)[:5])
        notes.append(f"these keys stand twice in one object, and the last value holds: {names}")
    return value


def dumps(value: Any, indent: int = 2) -> bytes:
    """UTF-8 JSON of what `loads` gave. With `indent` 0 it is one line."""
    text = _serialize(value, indent, 0)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can write
        return "".join(
            c if c < "\ud800" or c > "\udfff" else f"\\u{ord(c):04x}" for c in text
        ).encode()


def _parse_number(text: str) -> int | float:
    if len(text) <= 15 and text.lstrip("-").isdigit() and text != "-0":
        return int(text)
    value = VerbatimNumber(text)
    return float(text) if repr(float(text)) == text else value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _is_deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _serialize(value: Any, indent: int, depth: int) -> str:
    if isinstance(value, VerbatimNumber):
        return value.text
    if not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {_serialize(inner, indent, depth + 1)}"
            for key, inner in value.items()
        ]
    else:
        parts = [_serialize(inner, indent, depth + 1) for inner in value]
    if not parts:
        return opening + closing
    if not indent:
        return opening + ", ".join(parts) + closing
    margin = "\n" + " " * indent * (depth + 1)
    return opening + margin + ("," + margin).join(parts) + "\n" + " " * indent * depth + closing
