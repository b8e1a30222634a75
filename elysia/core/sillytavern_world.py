"""Conversion between SillyTavern's world files and stand-alone V3 lorebooks, without losing a field.

A field that the other form has no room for travels under the entry's `extensions` (key
`WORLD_EXTENSION`) and returns from there when the file is converted back.
"""

from __future__ import annotations

import copy
from typing import Any

from elysia.core.errors import PersonaError
from elysia.core.i18n import Text

WORLD_EXTENSION = "elysia/world"
# V3's name -> SillyTavern's, for fields with the same meaning in both.
FIELD_NAMES = {
    "keys": "key",
    "secondary_keys": "keysecondary",
    "insertion_order": "order",
    "content": "content",
    "comment": "comment",
    "constant": "constant",
    "selective": "selective",
    "case_sensitive": "caseSensitive",
    "id": "uid",
}
# The name under a card entry's `extensions` -> SillyTavern's name in a world file.
EXTENSION_NAMES = {
    "position": "position",
    "depth": "depth",
    "role": "role",
    "selectiveLogic": "selectiveLogic",
    "probability": "probability",
    "useProbability": "useProbability",
    "match_whole_words": "matchWholeWords",
    "scan_depth": "scanDepth",
    "exclude_recursion": "excludeRecursion",
    "prevent_recursion": "preventRecursion",
}
# Fields of an entry that a world file cannot hold, and the sentence that says so.
LOSSES = {"priority": "core.world_loses_priority", "use_regex": "core.world_loses_regex"}


def is_world(document: object) -> bool:
    """Whether a parsed file is a world file: its entries are an object, by their uid."""
    return isinstance(document, dict) and isinstance(document.get("entries"), dict)


def convert_world_to_lorebook(world: dict[str, Any]) -> dict[str, Any]:
    """A `lorebook_v3` document with the same meaning. PersonaError when an entry is not an object."""
    entries = []
    for key, entry in world["entries"].items():
        if not isinstance(entry, dict):
            raise PersonaError("core.world_entry_not_object", key=repr(key))
        entries.append(convert_world_entry(key, entry))
    rest = {name: value for name, value in world.items() if name != "entries"}
    data = {"scan_depth": 2, "extensions": {WORLD_EXTENSION: rest}, "entries": entries}
    return {"spec": "lorebook_v3", "data": copy.deepcopy(data)}


def convert_world_entry(key: str, world_entry: dict[str, Any]) -> dict[str, Any]:
    """A world file's entry, stored under `key`, in the fields of a card's lorebook."""
    rest = {n: value for n, value in world_entry.items() if n not in FIELD_NAMES.values()}
    entry = {v3: world_entry[st] for v3, st in FIELD_NAMES.items() if st in world_entry}
    extensions = {
        name: world_entry[st]
        for name, st in EXTENSION_NAMES.items()
        if world_entry.get(st) is not None
    }
    return entry | {
        "enabled": world_entry.get("disable") is not True,
        "use_regex": False,
        "position": "after_char" if world_entry.get("position") == 1 else "before_char",
        "extensions": {WORLD_EXTENSION: {"entry": key, **rest}, **extensions},
    }


def convert_lorebook_to_world(book: dict[str, Any]) -> tuple[dict[str, Any], list[Text]]:
    """A world file with the book's entries, and a sentence for each thing it cannot hold."""
    losses = [
        Text("core.world_loses_field", {"field": name})
        for name in ("name", "description", "token_budget", "recursive_scanning")
        if book.get(name)
    ]
    entries: dict[str, Any] = {}
    for number, entry in enumerate(book.get("entries") or []):
        if not isinstance(entry, dict):
            continue
        losses += [
            Text("core.loss_in_entry", {"number": number + 1, "loss": Text(code)})
            for name, code in LOSSES.items()
            if entry.get(name)
        ]
        stash = _get_stash(entry)
        key = str(stash.pop("entry", number))
        world_entry = {st: entry[v3] for v3, st in FIELD_NAMES.items() if v3 in entry}
        world_entry.setdefault("uid", number)
        after = entry.get("position") == "after_char"
        world_entry |= {"disable": entry.get("enabled") is False, "position": 1 if after else 0}
        # Two entries may carry one key, where books were merged; both stay.
        entries[key if key not in entries else f"{number}-{key}"] = world_entry | stash
    return copy.deepcopy({**_get_stash(book), "entries": entries}), losses


def _get_stash(holder: dict[str, Any]) -> dict[str, Any]:
    """A copy of what an earlier conversion put under `extensions`."""
    extensions = holder.get("extensions")
    stash = extensions.get(WORLD_EXTENSION) if isinstance(extensions, dict) else None
    return dict(stash) if isinstance(stash, dict) else {}
