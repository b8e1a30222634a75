"""Reads one value of a row, or says in a sentence what is wrong with it. Knows nothing of formats
or files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from elysia.core.errors import DataError, nearest

_HALF = re.compile("[\ud800-\udfff]")


def require_text(
    row: Mapping[str, Any], key: str, where: str = "", *, optional: bool = False
) -> str:
    """The text at `row[key]`; DataError when it is missing, null, not text or damaged.

    With `optional`, a missing or null value is "". `where` is the path of `row` in its row, for
    the sentence.
    """
    path = f"{where}.{key}" if where else key
    if key not in row:
        if optional:
            return ""
        raise DataError(f"the key '{path}' is missing.{_instead(row, key)}")
    value = row[key]
    if value is None:
        if optional:
            return ""
        raise DataError(f"'{path}' is null; give it a text or take the row out.")
    if not isinstance(value, str):
        raise DataError(f"'{path}' must be text, not {type(value).__name__} ({str(value)[:40]}).")
    if not _is_undamaged(value):
        _refuse_damage(value, path)
    return value


def require_reply(row: Mapping[str, Any], key: str, where: str = "") -> str:
    """`require_text` for what is to be learned: empty text is refused too."""
    text = require_text(row, key, where)
    if not text.strip():
        path = f"{where}.{key}" if where else key
        raise DataError(f"'{path}' is empty, so there is nothing to learn; take the row out.")
    return text


def require_list(row: Mapping[str, Any], key: str) -> list[Any]:
    """The list at `row[key]`, which may not be empty."""
    if key not in row:
        raise DataError(f"the key '{key}' is missing.{_instead(row, key)}")
    value = row[key]
    if not isinstance(value, list):
        raise DataError(f"'{key}' must be a list, not {type(value).__name__}.")
    if not value:
        raise DataError(f"'{key}' is an empty list.")
    return value


def iter_objects(row: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("messages[1]", value) for each object of the list at `row[key]`, counted from 1."""
    for number, value in enumerate(require_list(row, key), start=1):
        where = f"{key}[{number}]"
        yield where, require_object(value, where)


def require_object(value: Any, where: str) -> dict[str, Any]:
    """`value` as the object it must be; `where` is its path in the row."""
    if not isinstance(value, dict):
        raise DataError(f"'{where}' must be an object with keys, not {type(value).__name__}.")
    return value


def has_value(row: Mapping[str, Any], key: str) -> bool:
    """Whether a row has this key with a value."""
    return row.get(key) is not None


def _instead(row: Mapping[str, Any], key: str) -> str:
    keys = [str(name) for name in row]
    return f" The keys are: {', '.join(keys)}.{nearest(key, keys)}" if keys else " There are none."


def _is_undamaged(text: str) -> bool:
    """Whether no U+FFFD and no half of a pair, which UTF-8 cannot write, is in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\ufffd" not in text


def _refuse_damage(text: str, path: str) -> None:
    """Text that some earlier program decoded wrongly must not be learned."""
    at = text.find("\ufffd")
    if at >= 0:
        raise DataError(
            f"'{path}' holds U+FFFD, the mark of a character lost in decoding, at character "
            f"{at + 1} (“{text[max(0, at - 10) : at + 10]}”). Mend the text or take the row out."
        )
    if half := _HALF.search(text):
        raise DataError(
            f"'{path}' holds half of a surrogate pair at character {half.start() + 1}: an emoji "
            "was cut in two. Mend the text or take the row out."
        )
