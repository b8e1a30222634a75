"""A lorebook: a card's character_book, a stand-alone `lorebook_v3`, or SillyTavern's world file.

https://github.com/kwaroran/character-card-spec-v3 , "Lorebook Fields". A field of a wrong kind counts
as absent; what was in the file is kept by whoever holds the document. Knows nothing of when an entry
is inserted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elysia.core.decorators import Value, split_decorators
from elysia.core.errors import PersonaError

MAX_ENTRIES = 10_000
MAX_KEYS = 200  # of one entry; further ones are not looked for
WORLD_DEPTH = 2  # SillyTavern's defaults for a world without its own
WORLD_SHARE = 0.25  # of the context
# What SillyTavern calls the places 0 to 6; those around an author's note have no place of their own.
PLACES = (
    "before_char",
    "after_char",
    "before_char",
    "after_char",
    "depth",
    "before_char",
    "after_char",
)
ROLES = ("system", "user", "assistant")
LOGIC = ("any", "not_all", "not_any", "all")  # SillyTavern's selectiveLogic 0 to 3


@dataclass(frozen=True, eq=False)
class Entry:
    """One entry; `text` is its content without decorators, `said` what the decorators say."""

    number: int  # its place in the book, from 0
    keys: tuple[str, ...]
    text: str
    said: Mapping[str, Value] = field(default_factory=dict)
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

    entries: tuple[Entry, ...]
    name: str = ""
    scan_depth: int | None = None
    token_budget: int | None = None
    share: float | None = None
    recursive: bool = False


def lorebook_of(document: object, where: str = "the lorebook") -> Lorebook:
    """The lorebook in a parsed book, stand-alone lorebook or world file. PersonaError if it is none."""
    if isinstance(document, dict) and document.get("spec") == "lorebook_v3":
        document = document.get("data")
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, dict | list):
        raise PersonaError(f"{where}: a lorebook is an object with 'entries', and this is none.")
    if len(entries) > MAX_ENTRIES:
        raise PersonaError(f"{where}: the lorebook has more than {MAX_ENTRIES} entries.")
    if isinstance(entries, dict):
        found = [_of_world(number, one) for number, one in enumerate(entries.values())]
        return Lorebook(
            tuple(entry for entry in found if entry),
            _text(document, "name"),
            scan_depth=WORLD_DEPTH,
            share=WORLD_SHARE,
        )
    made = [_of_book(number, one) for number, one in enumerate(entries)]
    return Lorebook(
        tuple(entry for entry in made if entry),
        _text(document, "name"),
        scan_depth=_whole(document, "scan_depth"),
        token_budget=_whole(document, "token_budget"),
        recursive=document.get("recursive_scanning") is True,
    )


def _of_book(number: int, one: object) -> Entry | None:
    if not isinstance(one, dict):
        return None
    more = one["extensions"] if isinstance(one.get("extensions"), dict) else {}
    place = _whole(more, "position")
    position = PLACES[place] if place is not None and place < len(PLACES) else ""
    if not position:  # some programs write after_char_defs
        position = "after_char" if str(one.get("position")).startswith("after") else "before_char"
    said, text = split_decorators(_text(one, "content"))
    return Entry(
        number,
        keys=_keys(one, "keys"),
        text=text,
        said=said,
        enabled=one.get("enabled") is not False,
        insertion_order=_number(one, "insertion_order") or 0,
        priority=_number(one, "priority"),
        case_sensitive=_first_flag(one, "case_sensitive", more),
        whole_words=more.get("match_whole_words") is True,
        use_regex=one.get("use_regex") is True,
        constant=one.get("constant") is True,
        selective=one.get("selective") is True,
        secondary_keys=_keys(one, "secondary_keys"),
        logic=LOGIC[(_whole(more, "selectiveLogic") or 0) % len(LOGIC)],
        position=position,
        depth=_whole_or(more, "depth", 4),
        role=ROLES[(_whole(more, "role") or 0) % len(ROLES)],
        scan_depth=_whole(more, "scan_depth"),
        chance=_share(more, "probability") if more.get("useProbability") is not False else 1.0,
        woken_by_entries=more.get("exclude_recursion") is not True,
        wakes_entries=more.get("prevent_recursion") is not True,
        name=_text(one, "name") or _text(one, "comment"),
        id=_id(one, "id", number),
    )


def _of_world(number: int, one: object) -> Entry | None:
    if not isinstance(one, dict):
        return None
    place = _whole_or(one, "position", 0)
    said, text = split_decorators(_text(one, "content"))
    return Entry(
        number,
        keys=_keys(one, "key"),
        text=text,
        said=said,
        enabled=one.get("disable") is not True,
        insertion_order=_number(one, "order") or 0,
        case_sensitive=one.get("caseSensitive") is True,
        whole_words=one.get("matchWholeWords") is True,
        constant=one.get("constant") is True,
        selective=one.get("selective") is True,
        secondary_keys=_keys(one, "keysecondary"),
        logic=LOGIC[(_whole(one, "selectiveLogic") or 0) % len(LOGIC)],
        position=PLACES[place] if place < len(PLACES) else "before_char",
        depth=_whole_or(one, "depth", 4),
        role=ROLES[(_whole(one, "role") or 0) % len(ROLES)],
        scan_depth=_whole(one, "scanDepth"),
        chance=_share(one, "probability") if one.get("useProbability") is not False else 1.0,
        woken_by_entries=one.get("excludeRecursion") is not True,
        wakes_entries=one.get("preventRecursion") is not True,
        name=_text(one, "comment"),
        id=_id(one, "uid", number),
    )


def _text(holder: Mapping[str, Any], key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def _number(holder: Mapping[str, Any], key: str) -> float | None:
    value = holder.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(holder: Mapping[str, Any], key: str) -> int | None:
    """A count: not negative, cut at a million (1e400 is a JSON number)."""
    value = _number(holder, key)
    return int(min(value, 1_000_000)) if value is not None and value >= 0 else None


def _whole_or(holder: Mapping[str, Any], key: str, default: int) -> int:
    value = _whole(holder, key)
    return default if value is None else value


def _share(holder: Mapping[str, Any], key: str) -> float:
    value = _whole(holder, key)
    return 1.0 if value is None else min(value, 100) / 100


def _keys(holder: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts, or one text with commas; an empty key matches nothing."""
    value = holder.get(key)
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return ()
    found = [item.strip() for item in value if isinstance(item, str)]
    return tuple(item for item in found if item)[:MAX_KEYS]


def _first_flag(holder: Mapping[str, Any], key: str, more: Mapping[str, Any]) -> bool:
    value = holder.get(key)
    return (value if isinstance(value, bool) else more.get(key)) is True


def _id(holder: Mapping[str, Any], key: str, number: int) -> str:
    value = holder.get(key)
    return str(value) if isinstance(value, str | int) else f"#{number}"
