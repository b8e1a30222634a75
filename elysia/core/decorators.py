"""The decorators of a lorebook entry: leading `@@name value` lines, with `@@@` fallbacks.

https://github.com/kwaroran/character-card-spec-v3 , "Decorators". Talk is chat here, so what the
specification has for instruct mode alone is passed over, as it asks. Knows nothing of matching.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Value = int | str | bool | tuple[str, ...]

LINE = re.compile(r"(@@@?)([A-Za-z_]+)(?:[ \t]+(.*))?$")


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else None


def _period(text: str) -> int | None:
    number = _whole(text)
    return number if number and number > 0 else None


def _one_of(*allowed: str) -> Callable[[str], str | None]:
    return lambda text: text if text in allowed else None


def _list(text: str) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",") if part.strip()) or None


def _flag(text: str) -> bool | None:
    return True if text in ("", "true") else None


# name -> what reads its value; None from it means that the decorator is passed over.
KNOWN: dict[str, Callable[[str], Value | None]] = {
    "activate": _flag,
    "dont_activate": _flag,
    "activate_only_after": _whole,
    "activate_only_every": _period,
    "keep_activate_after_match": _flag,
    "dont_activate_after_match": _flag,
    "ignore_on_max_context": _flag,
    "is_greeting": _whole,
    "is_user_icon": lambda text: text or None,
    "scan_depth": _whole,
    "additional_keys": _list,
    "exclude_keys": _list,
    "depth": _whole,
    "role": _one_of("assistant", "system", "user"),
    "position": _one_of("before_desc", "after_desc", "personality", "scenario"),
}


def split_decorators(content: str) -> tuple[dict[str, Value], str]:
    """What the leading decorators say, and the text behind them without the blank lines between.

    Of two with one name the first holds. A fallback holds when nothing above it in its chain did.

    >>> split_decorators("@@depth 4\\n@@unheard_of 1\\n@@@role user\\n\\nThe sea.")
    ({'depth': 4, 'role': 'user'}, 'The sea.')
    """
    said: dict[str, Value] = {}
    if not content.lstrip().startswith("@@"):
        return said, content
    lines = content.split("\n")
    held = True  # whether the chain that a fallback would belong to is settled
    for number, line in enumerate(lines):
        line = line.strip()
        if not line:
            continue
        found = LINE.match(line)
        if not found:
            return said, "\n".join(lines[number:]).strip("\r\n")
        mark, name, text = found[1], found[2].lower(), (found[3] or "").strip()
        if mark == "@@@" and held:
            continue
        read = KNOWN.get(name)
        value = read(text) if read else None
        held = value is not None
        if value is not None:
            said.setdefault(name, value)
    return said, ""


def without_decorators(content: str) -> str:
    """The text alone, as a V2 reader should get it; a text without decorators is untouched."""
    return split_decorators(content)[1]
