"""A lorebook: a card's character_book, a stand-alone `lorebook_v3`, or SillyTavern's world file.

https://github.com/kwaroran/character-card-spec-v3 , "Lorebook Fields". A field of a wrong kind counts
as absent; what was in the file is kept by whoever holds the document. Knows nothing of when an entry
is inserted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from elysia.core.errors import PersonaError

MAX_ENTRIES = 10_000
MAX_KEYS = 200  # of one entry; further ones are not looked for
WORLD_SCAN_DEPTH = 2  # SillyTavern's defaults for a world without its own
WORLD_CONTEXT_SHARE = 0.25  # of the context
# What SillyTavern calls the places 0 to 6; those around an author's note have no place of their own.
WORLD_POSITIONS = (
    "before_char",
    "after_char",
    "before_char",
    "after_char",
    "depth",
    "before_char",
    "after_char",
)
ROLES = ("system", "user", "assistant")
SELECTIVE_LOGIC = ("any", "not_all", "not_any", "all")  # SillyTavern's selectiveLogic 0 to 3


@dataclass(frozen=True, eq=False)
class LorebookEntry:
    """One entry; `text` is its content without decorators, `said` what the decorators say."""

    number: int  # its place in the book, from 0
    keys: tuple[str, ...]
    text: str
    decorators: Mapping[str, DecoratorValue] = field(default_factory=dict)
    enabled: bool = True
    insertion_order: float = 0
    priority: float | None = None
    case_sensitive: bool = False
    whole_words: bool = False
    use_regex: bool = False
    constant: bool = False
    selective: bool = False
    secondary_keys: tuple[str, ...] = ()
    logic: str = "any"
    position: str = "before_char"  # before_char, after_char or depth
    depth: int = 4
    role: str = "system"
    scan_depth: int | None = None
    chance: float = 1.0  # that a match is one
    woken_by_entries: bool = True
    wakes_entries: bool = True
    name: str = ""
    id: str = ""

    @property
    def label(self) -> str:
        """What to call it in a receipt."""
        return self.name or (self.keys[0] if self.keys else f"entry {self.number + 1}")


@dataclass(frozen=True)
class Lorebook:
    """Entries in the file's order. None: not said; `share` is the budget as a part of the context."""

    entries: tuple[LorebookEntry, ...]
    name: str = ""
    scan_depth: int | None = None
    token_budget: int | None = None
    share: float | None = None
    recursive: bool = False


def parse_lorebook(document: object, where: str = "the lorebook") -> Lorebook:
    """The lorebook in a parsed book, stand-alone lorebook or world file. PersonaError if it is none."""
    if isinstance(document, dict) and document.get("spec") == "lorebook_v3":
        document = document.get("data")
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, dict | list):
        raise PersonaError(f"{where}: a lorebook is an object with 'entries', and this is none.")
    if len(entries) > MAX_ENTRIES:
        raise PersonaError(f"{where}: the lorebook has more than {MAX_ENTRIES} entries.")
    if isinstance(entries, dict):
        found = [_parse_world_entry(number, one) for number, one in enumerate(entries.values())]
        return Lorebook(
            tuple(entry for entry in found if entry),
            _get_text(document, "name"),
            scan_depth=WORLD_SCAN_DEPTH,
            share=WORLD_CONTEXT_SHARE,
        )
    made = [_parse_card_entry(number, one) for number, one in enumerate(entries)]
    return Lorebook(
        tuple(entry for entry in made if entry),
        _get_text(document, "name"),
        scan_depth=_get_count(document, "scan_depth"),
        token_budget=_get_count(document, "token_budget"),
        recursive=document.get("recursive_scanning") is True,
    )


def _parse_card_entry(number: int, one: object) -> LorebookEntry | None:
    if not isinstance(one, dict):
        return None
    more = one["extensions"] if isinstance(one.get("extensions"), dict) else {}
    place = _get_count(more, "position")
    position = WORLD_POSITIONS[place] if place is not None and place < len(WORLD_POSITIONS) else ""
    if not position:  # some programs write after_char_defs
        position = "after_char" if str(one.get("position")).startswith("after") else "before_char"
    said, text = split_decorators(_get_text(one, "content"))
    return LorebookEntry(
        number,
        keys=_get_keys(one, "keys"),
        text=text,
        decorators=said,
        enabled=one.get("enabled") is not False,
        insertion_order=_get_number(one, "insertion_order") or 0,
        priority=_get_number(one, "priority"),
        case_sensitive=_get_flag(one, "case_sensitive", more),
        whole_words=more.get("match_whole_words") is True,
        use_regex=one.get("use_regex") is True,
        constant=one.get("constant") is True,
        selective=one.get("selective") is True,
        secondary_keys=_get_keys(one, "secondary_keys"),
        logic=SELECTIVE_LOGIC[(_get_count(more, "selectiveLogic") or 0) % len(SELECTIVE_LOGIC)],
        position=position,
        depth=_get_count_or(more, "depth", 4),
        role=ROLES[(_get_count(more, "role") or 0) % len(ROLES)],
        scan_depth=_get_count(more, "scan_depth"),
        chance=_get_probability(more, "probability")
        if more.get("useProbability") is not False
        else 1.0,
        woken_by_entries=more.get("exclude_recursion") is not True,
        wakes_entries=more.get("prevent_recursion") is not True,
        name=_get_text(one, "name") or _get_text(one, "comment"),
        id=_get_id(one, "id", number),
    )


def _parse_world_entry(number: int, one: object) -> LorebookEntry | None:
    if not isinstance(one, dict):
        return None
    place = _get_count_or(one, "position", 0)
    said, text = split_decorators(_get_text(one, "content"))
    return LorebookEntry(
        number,
        keys=_get_keys(one, "key"),
        text=text,
        decorators=said,
        enabled=one.get("disable") is not True,
        insertion_order=_get_number(one, "order") or 0,
        case_sensitive=one.get("caseSensitive") is True,
        whole_words=one.get("matchWholeWords") is True,
        constant=one.get("constant") is True,
        selective=one.get("selective") is True,
        secondary_keys=_get_keys(one, "keysecondary"),
        logic=SELECTIVE_LOGIC[(_get_count(one, "selectiveLogic") or 0) % len(SELECTIVE_LOGIC)],
        position=WORLD_POSITIONS[place] if place < len(WORLD_POSITIONS) else "before_char",
        depth=_get_count_or(one, "depth", 4),
        role=ROLES[(_get_count(one, "role") or 0) % len(ROLES)],
        scan_depth=_get_count(one, "scanDepth"),
        chance=_get_probability(one, "probability")
        if one.get("useProbability") is not False
        else 1.0,
        woken_by_entries=one.get("excludeRecursion") is not True,
        wakes_entries=one.get("preventRecursion") is not True,
        name=_get_text(one, "comment"),
        id=_get_id(one, "uid", number),
    )


def _get_text(holder: Mapping[str, Any], key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def _get_number(holder: Mapping[str, Any], key: str) -> float | None:
    value = holder.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _get_count(holder: Mapping[str, Any], key: str) -> int | None:
    """A count: not negative, cut at a million (1e400 is a JSON number)."""
    value = _get_number(holder, key)
    return int(min(value, 1_000_000)) if value is not None and value >= 0 else None


def _get_count_or(holder: Mapping[str, Any], key: str, default: int) -> int:
    value = _get_count(holder, key)
    return default if value is None else value


def _get_probability(holder: Mapping[str, Any], key: str) -> float:
    value = _get_count(holder, key)
    return 1.0 if value is None else min(value, 100) / 100


def _get_keys(holder: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts, or one text with commas; an empty key matches nothing."""
    value = holder.get(key)
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return ()
    found = [item.strip() for item in value if isinstance(item, str)]
    return tuple(item for item in found if item)[:MAX_KEYS]


def _get_flag(holder: Mapping[str, Any], key: str, more: Mapping[str, Any]) -> bool:
    value = holder.get(key)
    return (value if isinstance(value, bool) else more.get(key)) is True


def _get_id(holder: Mapping[str, Any], key: str, number: int) -> str:
    value = holder.get(key)
    return str(value) if isinstance(value, str | int) else f"#{number}"


DecoratorValue = int | str | bool | tuple[str, ...]

DECORATOR_LINE = re.compile(r"(@@@?)([A-Za-z_]+)(?:[ \t]+(.*))?$")


def _parse_int(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else None


def _parse_period(text: str) -> int | None:
    number = _parse_int(text)
    return number if number and number > 0 else None


def _parse_choice(*allowed: str) -> Callable[[str], str | None]:
    return lambda text: text if text in allowed else None


def _parse_list(text: str) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",") if part.strip()) or None


def _parse_flag(text: str) -> bool | None:
    return True if text in ("", "true") else None


# name -> what reads its value; None from it means that the decorator is passed over.
DECORATOR_PARSERS: dict[str, Callable[[str], DecoratorValue | None]] = {
    "activate": _parse_flag,
    "dont_activate": _parse_flag,
    "activate_only_after": _parse_int,
    "activate_only_every": _parse_period,
    "keep_activate_after_match": _parse_flag,
    "dont_activate_after_match": _parse_flag,
    "ignore_on_max_context": _parse_flag,
    "is_greeting": _parse_int,
    "is_user_icon": lambda text: text or None,
    "scan_depth": _parse_int,
    "additional_keys": _parse_list,
    "exclude_keys": _parse_list,
    "depth": _parse_int,
    "role": _parse_choice("assistant", "system", "user"),
    "position": _parse_choice("before_desc", "after_desc", "personality", "scenario"),
}


def split_decorators(content: str) -> tuple[dict[str, DecoratorValue], str]:
    """What the leading decorators say, and the text behind them without the blank lines between.

    Of two with one name the first holds. A fallback holds when nothing above it in its chain did.

    >>> split_decorators("@@depth 4\\n@@unheard_of 1\\n@@@role user\\n\\nThe sea.")
    ({'depth': 4, 'role': 'user'}, 'The sea.')
    """
    said: dict[str, DecoratorValue] = {}
    if not content.lstrip().startswith("@@"):
        return said, content
    lines = content.split("\n")
    held = True  # whether the chain that a fallback would belong to is settled
    for number, line in enumerate(lines):
        line = line.strip()
        if not line:
            continue
        found = DECORATOR_LINE.match(line)
        if not found:
            return said, "\n".join(lines[number:]).strip("\r\n")
        mark, name, text = found[1], found[2].lower(), (found[3] or "").strip()
        if mark == "@@@" and held:
            continue
        read = DECORATOR_PARSERS.get(name)
        value = read(text) if read else None
        held = value is not None
        if value is not None:
            said.setdefault(name, value)
    return said, ""


def strip_decorators(content: str) -> str:
    """The text alone, as a V2 reader should get it; a text without decorators is untouched."""
    return split_decorators(content)[1]
