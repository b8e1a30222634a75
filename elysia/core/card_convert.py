"""From one version or kind of card to another, and a sentence for everything that is lost on the way.

What V2 has no field for goes into `extensions`, under KEPT, and comes back from there: a reader of V2
does not see it, and no byte of it is destroyed. Knows nothing of files.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from elysia.core import card_json
from elysia.core.card_file import ASSET_KEYWORD, KEYWORDS, CharacterCard
from elysia.core.lorebook import strip_decorators
from elysia.core.png import get_keyword

V3_EXTENSION = "elysia/v3"
V1_TEXTS = ("name", "description", "personality", "scenario", "first_mes", "mes_example")
V2_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(V1_TEXTS, ""),
    "creator_notes": "",
    "system_prompt": "",
    "post_history_instructions": "",
    "alternate_greetings": [],
    "tags": [],
    "creator": "",
    "character_version": "",
    "extensions": {},
}
V3_ONLY = (
    "nickname",
    "group_only_greetings",
    "creator_notes_multilingual",
    "source",
    "assets",
    "creation_date",
    "modification_date",
)
BACKFILL_NOTICE = (
    "This is a V3 card, shown as V2 to programs that read nothing newer: its decorators and newer "
    "fields are not in effect here."
)
MAIN_ICON = "assets/icon/images/main.png"


def convert_version(card: CharacterCard, version: int) -> tuple[CharacterCard, list[str]]:
    """`card` as V2 or V3, and what a reader of that version does not get of it."""
    if card.version == version:
        return card, []
    losses: list[str] = []
    document = copy.deepcopy(card.document)
    if card.version == 1:
        document = _upgrade_v1(document)
    if version == 3:
        _upgrade_to_v3(document)
    elif card.version == 3:
        losses = _downgrade_to_v2(document)
    made = replace(
        card,
        document=document,
        version=version,
        text=card_json.dumps(document),
        original=None,
    )
    return made, losses


def build_v2_backfill(card: CharacterCard) -> bytes:
    """A V3 card as the V2 JSON that stands beside it in a PNG; its creator_notes say so."""
    document = copy.deepcopy(card.document)
    _downgrade_to_v2(document)
    notes = document["data"].get("creator_notes")
    said = f"{BACKFILL_NOTICE}\n\n{notes}" if isinstance(notes, str) and notes else BACKFILL_NOTICE
    document["data"]["creator_notes"] = said
    return card_json.dumps(document, indent=0)


def convert_kind(card: CharacterCard, kind: str) -> tuple[CharacterCard, list[str]]:
    """`card` ready to be written as json, png or charx, and what that kind has no room for."""
    if kind == card.kind:
        return card, []
    if card.kind == "png" and kind == "charx":
        return _move_picture_to_members(card), []  # with every foreign chunk still in it
    if card.kind == "png":
        return card, ["the picture", *_describe_chunk_assets(card)]
    if card.kind == "charx":
        names = [name for name in card.members if name != "card.json"]
        lost = [f"{len(names)} files of the archive: {_abbreviate(names)}"] if names else []
        return card, lost
    return card, []


def get_main_picture(card: CharacterCard) -> bytes | None:
    """The PNG among a CHARX's members that its assets call the main icon; None without one."""
    for asset in _filter_objects(card.fields.get("assets")):
        if _is_main_icon(asset):
            body = card.members.get(_get_embedded_name(asset.get("uri")))
            return body if body and body.startswith(b"\x89PNG") else None
    return None


def _upgrade_v1(fields: dict[str, Any]) -> dict[str, Any]:
    known = {key: fields.get(key) for key in V2_DEFAULTS if fields.get(key) is not None}
    data = {**copy.deepcopy(V2_DEFAULTS), **known}
    # What V1 programs added at the top level goes where no editor may destroy it.
    strange = {key: value for key, value in fields.items() if key not in data}
    if isinstance(data["extensions"], dict):
        data["extensions"] = {**strange, **data["extensions"]}
    else:
        data |= strange
    return {"spec": "chara_card_v2", "spec_version": "2.0", "data": data}


def _upgrade_to_v3(document: dict[str, Any]) -> None:
    data = document["data"]
    document |= {"spec": "chara_card_v3", "spec_version": "3.0"}
    data |= {key: value for key, value in _pop_stash(data).items() if key not in data}
    data.setdefault("group_only_greetings", [])
    for entry in _get_entries(data):
        kept = _pop_stash(entry)
        if "content" in kept and strip_decorators(kept["content"]) != entry.get("content"):
            kept.pop("content")  # edited since: the edit holds
        entry.update(kept)
        entry.setdefault("use_regex", False)


def _downgrade_to_v2(document: dict[str, Any]) -> list[str]:
    data = document["data"]
    document |= {"spec": "chara_card_v2", "spec_version": "2.0"}
    kept = {key: data.pop(key) for key in V3_ONLY if key in data}
    losses = [f"{key} (V3 only; kept under extensions)" for key, value in kept.items() if value]
    if kept.get("group_only_greetings") == []:
        del kept["group_only_greetings"]  # comes back by itself
    _stash(data, kept)
    for number, entry in enumerate(_get_entries(data), 1):
        losses += [f"lorebook entry {number}: {what}" for what in _downgrade_entry(entry)]
    for key, value in V2_DEFAULTS.items():
        data.setdefault(key, copy.deepcopy(value))
    return losses


def _downgrade_entry(entry: dict[str, Any]) -> Iterator[str]:
    kept: dict[str, Any] = {}
    if entry.pop("use_regex", False) is True:
        kept["use_regex"] = True
        yield "its keys are regular expressions, which V2 takes as plain text"
    content = entry.get("content")
    if isinstance(content, str) and strip_decorators(content) != content:
        kept["content"] = content
        entry["content"] = strip_decorators(content)
        yield "its decorators (@@...)"
    if isinstance(entry.get("id"), str):
        kept["id"] = entry.pop("id")
        yield "its id, which V2 wants as a number"
    _stash(entry, kept)


def _stash(holder: dict[str, Any], kept: dict[str, Any]) -> None:
    if not isinstance(holder.get("extensions"), dict | None):
        kept = {**kept, "extensions": holder["extensions"]}
        holder["extensions"] = {}
    if kept:
        holder["extensions"] = {**(holder.get("extensions") or {}), V3_EXTENSION: kept}


def _pop_stash(holder: dict[str, Any]) -> dict[str, Any]:
    extensions = holder.get("extensions")
    kept = extensions.pop(V3_EXTENSION, None) if isinstance(extensions, dict) else None
    return kept if isinstance(kept, dict) else {}


def _move_picture_to_members(card: CharacterCard) -> CharacterCard:
    """The picture becomes the main icon: under the name that the card has for it, or a usual one."""
    assert card.picture is not None
    picture = card.picture.with_texts([], without=KEYWORDS).to_bytes()
    assets = _filter_objects(card.fields.get("assets"))
    mains = [asset for asset in assets if _is_main_icon(asset)]
    name = _get_embedded_name(mains[0].get("uri")) if mains else ""
    if _is_safe_name(name):
        return replace(card, members={name: picture}, original=None)
    document = copy.deepcopy(card.document)
    icon = {"type": "icon", "uri": f"embeded://{MAIN_ICON}", "name": "main", "ext": "png"}
    document["data"]["assets"] = [icon, *(asset for asset in assets if not _is_main_icon(asset))]
    text = card_json.dumps(document)
    return replace(card, document=document, text=text, members={MAIN_ICON: picture}, original=None)


def _is_main_icon(asset: Mapping[str, Any]) -> bool:
    return (asset.get("type"), asset.get("name")) == ("icon", "main")


def _describe_chunk_assets(card: CharacterCard) -> list[str]:
    assert card.picture is not None
    names = [get_keyword(chunk) or "" for chunk in card.picture.chunks]
    assets = [name for name in names if name.startswith(ASSET_KEYWORD)]
    return (
        [f"{len(assets)} assets in chunks of the picture: {_abbreviate(assets)}"] if assets else []
    )


def _get_entries(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    book = data.get("character_book")
    return _filter_objects(book.get("entries")) if isinstance(book, dict) else []


def _filter_objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _get_embedded_name(uri: object) -> str:
    scheme, _, name = str(uri).partition("://")
    return name if scheme == "embeded" else ""


def _is_safe_name(name: str) -> bool:
    parts = name.split("/")
    return name.endswith(".png") and "\\" not in name and not {"", ".", ".."} & set(parts)


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
