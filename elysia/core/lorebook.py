"""Lorebooks (World Info): read from a card's `character_book`, a stand-alone `lorebook_v3` or a
SillyTavern world file into one set of typed entries, with their decorators (`@@name value`) parsed.

Specification: https://github.com/kwaroran/character-card-spec-v3 , "Lorebook Fields" and "Decorators".
A field of the wrong type counts as absent. `lorebook_activation` decides which entries enter a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from elysia.core.errors import PersonaError
from elysia.core.sillytavern_world import convert_world_entry

MAX_ENTRIES = 10_000
MAX_KEYS = 200  # of one entry; further keys are ignored
WORLD_SCAN_DEPTH = 2  # messages; SillyTavern's default, since a world file does not say
WORLD_CONTEXT_SHARE = 0.25  # of the context, SillyTavern's default budget
# SillyTavern's positions 0 to 6. Those around an author's note have no place of their own here.
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

DecoratorValue = int | str | bool | tuple[str, ...]
DECORATOR_LINE = re.compile(r"(@@@?)([A-Za-z_]+)(?:[ \t]+(.*))?$")


@dataclass(frozen=True, eq=False)
class LorebookEntry:
    """One entry. `text` is its content without the decorators, which `decorators` holds by name."""

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
    logic: str = "any"  # one of SELECTIVE_LOGIC
    position: str = "before_char"  # before_char, after_char or depth
    depth: int = 4  # messages from the end of the chat, for position "depth"
    role: str = "system"
    scan_depth: int | None = None  # messages; None: the book's
    chance: float = 1.0  # probability that a match counts
    woken_by_entries: bool = True  # whether other entries' texts are scanned for its keys
    wakes_entries: bool = True  # whether its text is scanned for others' keys
    name: str = ""
    id: str = ""

    @property
    def label(self) -> str:
        """A short name for lists: the entry's own name, else its first key."""
        return self.name or (self.keys[0] if self.keys else f"entry {self.number + 1}")


@dataclass(frozen=True)
class Lorebook:
    """Entries in the file's order, and the book's own limits (None where the file has none)."""

    entries: tuple[LorebookEntry, ...]
    name: str = ""
    scan_depth: int | None = None  # messages
    token_budget: int | None = None
    share: float | None = None  # the budget as a part of the context instead, from 0 to 1
    recursive: bool = False  # whether activated entries can activate others


def parse_lorebook(document: object, where: str = "the lorebook") -> Lorebook:
    """The lorebook in a parsed character_book, stand-alone lorebook or world file.

    `where` names the source in errors. Raises PersonaError when it is none of them, or too large.
    """
    if isinstance(document, dict) and document.get("spec") == "lorebook_v3":
        document = document.get("data")
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, dict | list):
        raise PersonaError("core.not_a_lorebook", where=where)
    if len(entries) > MAX_ENTRIES:
        raise PersonaError("core.lorebook_too_large", where=where, limit=MAX_ENTRIES)
    name = _get_text(document, "name")
    if isinstance(entries, dict):  # a world file
        parsed = [
            _parse_entry(number, convert_world_entry(key, entry))
            for number, (key, entry) in enumerate(entries.items())
            if isinstance(entry, dict)
        ]
        return Lorebook(tuple(parsed), name, scan_depth=WORLD_SCAN_DEPTH, share=WORLD_CONTEXT_SHARE)
    return Lorebook(
        tuple(_parse_entry(n, entry) for n, entry in enumerate(entries) if isinstance(entry, dict)),
        name,
        scan_depth=_get_count(document, "scan_depth"),
        token_budget=_get_count(document, "token_budget"),
        recursive=document.get("recursive_scanning") is True,
    )


def _parse_entry(number: int, entry: Mapping[str, Any]) -> LorebookEntry:
    """A card's entry; what SillyTavern adds to the specification lies under its `extensions`."""
    more = entry["extensions"] if isinstance(entry.get("extensions"), dict) else {}
    place = _get_count(more, "position")
    position = WORLD_POSITIONS[place] if place is not None and place < len(WORLD_POSITIONS) else ""
    if not position:  # some programs write after_char_defs
        position = "after_char" if str(entry.get("position")).startswith("after") else "before_char"
    decorators, text = split_decorators(_get_text(entry, "content"))
    return LorebookEntry(
        number,
        keys=_get_keys(entry, "keys"),
        text=text,
        decorators=decorators,
        enabled=entry.get("enabled") is not False,
        insertion_order=_get_number(entry, "insertion_order") or 0,
        priority=_get_number(entry, "priority"),
        case_sensitive=_get_flag(entry, "case_sensitive", more),
        whole_words=more.get("match_whole_words") is True,
        use_regex=entry.get("use_regex") is True,
        constant=entry.get("constant") is True,
        selective=entry.get("selective") is True,
        secondary_keys=_get_keys(entry, "secondary_keys"),
        logic=SELECTIVE_LOGIC[(_get_count(more, "selectiveLogic") or 0) % len(SELECTIVE_LOGIC)],
        position=position,
        depth=_get_count_or(more, "depth", 4),
        role=ROLES[(_get_count(more, "role") or 0) % len(ROLES)],
        scan_depth=_get_count(more, "scan_depth"),
        chance=_get_probability(more) if more.get("useProbability") is not False else 1.0,
        woken_by_entries=more.get("exclude_recursion") is not True,
        wakes_entries=more.get("prevent_recursion") is not True,
        name=_get_text(entry, "name") or _get_text(entry, "comment"),
        id=str(entry["id"]) if isinstance(entry.get("id"), str | int) else f"#{number}",
    )


def _get_text(holder: Mapping[str, Any], key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def _get_number(holder: Mapping[str, Any], key: str) -> float | None:
    value = holder.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _get_count(holder: Mapping[str, Any], key: str) -> int | None:
    """A count: not negative, and a million at most (1e400 is a JSON number, too)."""
    value = _get_number(holder, key)
    return int(min(value, 1_000_000)) if value is not None and value >= 0 else None


def _get_count_or(holder: Mapping[str, Any], key: str, default: int) -> int:
    value = _get_count(holder, key)
    return default if value is None else value


def _get_probability(holder: Mapping[str, Any]) -> float:
    return min(_get_count_or(holder, "probability", 100), 100) / 100


def _get_keys(holder: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts, or one text with commas. Empty keys go, since they would match everything."""
    value = holder.get(key)
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return ()
    texts = [item.strip() for item in value if isinstance(item, str)]
    return tuple(text for text in texts if text)[:MAX_KEYS]


def _get_flag(holder: Mapping[str, Any], key: str, more: Mapping[str, Any]) -> bool:
    value = holder.get(key)
    return (value if isinstance(value, bool) else more.get(key)) is True


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


# Decorator -> the parser of its value; None from it means that the decorator is ignored. Those that the
# specification has for instruct mode alone are missing, since this is chat.
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
    """The leading decorators of an entry's content by name, and the text behind them.

    Of two with one name the first holds. A fallback (`@@@`) holds when no decorator above it in its chain
    was understood.

    >>> split_decorators("@@depth 4\\n@@unheard_of 1\\n@@@role user\\n\\nThe sea.")
    ({'depth': 4, 'role': 'user'}, 'The sea.')
    """
    decorators: dict[str, DecoratorValue] = {}
    if not content.lstrip().startswith("@@"):
        return decorators, content
    lines = content.split("\n")
    settled = True  # whether the chain that a fallback would belong to has its decorator
    for number, line in enumerate(lines):
        line = line.strip()
        if not line:
            continue
        match = DECORATOR_LINE.match(line)
        if not match:
            return decorators, "\n".join(lines[number:]).strip("\r\n")
        mark, name, text = match[1], match[2].lower(), (match[3] or "").strip()
        if mark == "@@@" and settled:
            continue
        parse = DECORATOR_PARSERS.get(name)
        value = parse(text) if parse else None
        settled = value is not None
        if value is not None:
            decorators.setdefault(name, value)
    return decorators, ""


def strip_decorators(content: str) -> str:
    """The text alone, as a V2 reader should see it. A text without decorators is returned unchanged."""
    return split_decorators(content)[1]
