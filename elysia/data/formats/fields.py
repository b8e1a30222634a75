"""Take one value out of a row, or raise a DataError that says what is wrong with it.

The errors name the key; whoever reads the file adds file and row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from elysia.core.errors import DataError, nearest
from elysia.core.i18n import Text

_SURROGATE = re.compile("[\ud800-\udfff]")


def require_text(
    row: Mapping[str, Any], key: str, where: str = "", *, optional: bool = False
) -> str:
    """The text at `row[key]`; DataError when it is missing, null, not text or damaged.

    With `optional`, a missing or null value is "". `where` is the path of `row` within the dataset's
    row, for the error.
    """
    path = f"{where}.{key}" if where else key
    if key not in row:
        if optional:
            return ""
        raise _missing_key(row, key, path)
    value = row[key]
    if value is None:
        if optional:
            return ""
        raise DataError("data.value_null", key=path)
    if not isinstance(value, str):
        raise DataError(
            "data.value_not_text", key=path, type=type(value).__name__, value=str(value)[:40]
        )
    if not _is_undamaged(value):
        _refuse_damage(value, path)
    return value


def require_reply(row: Mapping[str, Any], key: str, where: str = "") -> str:
    """`require_text` for text that will be learned: empty text is refused, too."""
    text = require_text(row, key, where)
    if not text.strip():
        raise DataError("data.reply_empty", key=f"{where}.{key}" if where else key)
    return text


def require_list(row: Mapping[str, Any], key: str) -> list[Any]:
    """The list at `row[key]`, which must not be empty."""
    if key not in row:
        raise _missing_key(row, key, key)
    value = row[key]
    if not isinstance(value, list):
        raise DataError("data.value_not_list", key=key, type=type(value).__name__)
    if not value:
        raise DataError("data.list_empty", key=key)
    return value


def iter_objects(row: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("messages[1]", value) for each object of the list at `row[key]`, counted from 1."""
    for number, value in enumerate(require_list(row, key), start=1):
        where = f"{key}[{number}]"
        yield where, require_object(value, where)


def require_object(value: Any, where: str) -> dict[str, Any]:
    """`value` as the object it must be; `where` is its path in the row."""
    if not isinstance(value, dict):
        raise DataError("data.value_not_object", key=where, type=type(value).__name__)
    return value


def has_value(row: Mapping[str, Any], key: str) -> bool:
    """Whether a row has this key with a value other than null."""
    return row.get(key) is not None


def _missing_key(row: Mapping[str, Any], key: str, path: str) -> DataError:
    keys = [str(name) for name in row]
    if not keys:
        return DataError("data.key_missing", key=path, keys=Text("data.keys_none"))
    names = Text("data.keys_known", {"names": keys, "hint": nearest(key, keys)})
    return DataError("data.key_missing", key=path, keys=names)


def _is_undamaged(text: str) -> bool:
    """Whether there is no U+FFFD and no half of a surrogate pair, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\ufffd" not in text


def _refuse_damage(text: str, path: str) -> None:
    """Raise for text that some earlier program decoded wrongly: it must not be learned."""
    at = text.find("\ufffd")
    if at >= 0:
        around = text[max(0, at - 10) : at + 10]
        raise DataError("data.replacement_character", key=path, position=at + 1, around=around)
    if half := _SURROGATE.search(text):
        raise DataError("data.half_surrogate", key=path, position=half.start() + 1)
