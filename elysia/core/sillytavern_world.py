"""SillyTavern's world files to stand-alone V3 lorebooks and back, with every field kept.

What one form has no field for goes with the entry, under its `extensions`, and comes back from there.
Knows nothing of what the fields do in a chat.
"""

from __future__ import annotations

import copy
from typing import Any

from elysia.core.errors import PersonaError

WORLD_EXTENSION = "elysia/world"
# V3's name -> SillyTavern's, where one is the other.
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
LOSSES = {
    "priority": "its priority: a world goes by its order alone",
    "use_regex": "its keys are regular expressions, which a world writes /like this/",
}


def is_world(document: object) -> bool:
    """Whether a parsed file is a world: entries in an object, by their uid."""
    return isinstance(document, dict) and isinstance(document.get("entries"), dict)


def convert_world_to_lorebook(world: dict[str, Any]) -> dict[str, Any]:
    """A `lorebook_v3` document that means what the world does."""
    entries = []
    for key, one in world["entries"].items():
        if not isinstance(one, dict):
            raise PersonaError(f"The world's entry {key!r} is no object.")
        rest = {name: value for name, value in one.items() if name not in FIELD_NAMES.values()}
        entry = {ours: one[theirs] for ours, theirs in FIELD_NAMES.items() if theirs in one}
        entry["enabled"] = one.get("disable") is not True
        entry["use_regex"] = False
        entry["position"] = "after_char" if one.get("position") == 1 else "before_char"
        entry["extensions"] = {
            WORLD_EXTENSION: {"entry": key, **rest},
            **_build_card_extensions(one),
        }
        entries.append(entry)
    rest = {name: value for name, value in world.items() if name != "entries"}
    data: dict[str, Any] = {
        "scan_depth": 2,
        "extensions": {WORLD_EXTENSION: rest},
        "entries": entries,
    }
    return {"spec": "lorebook_v3", "data": copy.deepcopy(data)}


def convert_lorebook_to_world(book: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A world with the book's entries, and what a world cannot say of them."""
    losses = [
        f"{name}, which a world has no field for"
        for name in ("name", "description", "token_budget", "recursive_scanning")
        if book.get(name)
    ]
    entries: dict[str, Any] = {}
    for number, one in enumerate(book.get("entries") or []):
        if not isinstance(one, dict):
            continue
        losses += [f"entry {number + 1}: {what}" for name, what in LOSSES.items() if one.get(name)]
        kept = _get_stash(one)
        key = str(kept.pop("entry", number))
        made = {theirs: one[ours] for ours, theirs in FIELD_NAMES.items() if ours in one}
        made.setdefault("uid", number)
        after = one.get("position") == "after_char"
        made |= {"disable": one.get("enabled") is False, "position": 1 if after else 0}
        entries[key if key not in entries else f"{number}-{key}"] = made | kept
    return copy.deepcopy({**_get_stash(book), "entries": entries}), losses


def _get_stash(holder: dict[str, Any]) -> dict[str, Any]:
    extensions = holder.get("extensions")
    kept = extensions.get(WORLD_EXTENSION) if isinstance(extensions, dict) else None
    return dict(kept) if isinstance(kept, dict) else {}


def _build_card_extensions(one: dict[str, Any]) -> dict[str, Any]:
    """The fields that SillyTavern writes under a card entry's `extensions`."""
    names = {
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
    return {ours: one[theirs] for ours, theirs in names.items() if one.get(theirs) is not None}
