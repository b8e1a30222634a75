"""JSON from strangers, read within bounds and written again without changing a digit.

A number that Python would spell differently (1.10, 1e400, a 30-digit integer) keeps its spelling.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from elysia.core.errors import PersonaError
from elysia.core.i18n import Text

MAX_BYTES = 8 << 20  # the largest cards seen in the wild have about 1 MB
MAX_PARTS = 1_000_000  # commas and opening brackets, which bound the memory of the parsed values
MAX_DEPTH = 64


class VerbatimNumber(float):
    """A number that keeps its text in the file. Compares and computes as a float."""

    text: str

    def __new__(cls, text: str) -> VerbatimNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number


def loads(raw: bytes, where: str, notes: list[Text] | None = None) -> Any:
    """The value of UTF-8 JSON (with or without a BOM). `where` names the source in errors.

    Raises PersonaError when it is too large, too deep, not UTF-8 or not JSON. Where an object has a key
    twice, the last value holds, as in browsers, and a remark is added to `notes`.
    """
    if len(raw) > MAX_BYTES:
        raise PersonaError(
            "core.json_too_large", where=where, size=len(raw) >> 20, limit=MAX_BYTES >> 20
        )
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > MAX_PARTS:
        raise PersonaError("core.json_too_many_values", where=where, limit=MAX_PARTS)
    twice: set[str] = set()

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice.update(key for key, count in counts.items() if count > 1)
        return fields

    try:
        value = json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=build_object,
            parse_float=_parse_number,
            parse_int=_parse_number,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError:
        raise PersonaError("core.json_not_utf8", where=where) from None
    except json.JSONDecodeError as error:
        raise PersonaError(
            "core.json_invalid_line", where=where, line=error.lineno, reason=error.msg
        ) from None
    except RecursionError:
        raise PersonaError("core.json_too_deep", where=where) from None
    except ValueError as error:
        raise PersonaError("core.json_invalid", where=where, reason=str(error)) from None
    if _is_deeper_than(value, MAX_DEPTH):
        raise PersonaError("core.json_too_deep", where=where)
    if notes is not None and twice:
        notes.append(Text("core.json_keys_twice", {"keys": sorted(twice)[:5]}))
    return value


def dumps(value: Any, indent: int = 2) -> bytes:
    """UTF-8 JSON of a value from `loads`, on one line when `indent` is 0."""
    text = _serialize(value, indent, 0)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can only hold as an escape
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
