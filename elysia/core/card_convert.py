"""Conversion of character cards between versions (V1, V2, V3) and kinds of file, with a list of losses.

What V2 has no field for is stored under `extensions` (key `V3_EXTENSION`), where a V2 reader does not see
it, and returns from there when the card becomes V3 again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from elysia.core import card_json
from elysia.core.card_file import ASSET_KEYWORD, KEYWORDS, CharacterCard
from elysia.core.i18n import Text
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


def convert_version(card: CharacterCard, version: int) -> tuple[CharacterCard, list[Text]]:
    """`card` as V2 or V3, and a sentence for each thing that a reader of that version will not see."""
    if card.version == version:
        return card, []
    losses: list[Text] = []
    document = copy.deepcopy(card.document)
    if card.version == 1:
        document = _upgrade_v1(document)
    if version == 3:
        _upgrade_to_v3(document)
    elif card.version == 3:
        losses = _downgrade_to_v2(document)
    text = card_json.dumps(document)
    return replace(card, document=document, version=version, text=text, original=None), losses


def build_v2_backfill(card: CharacterCard) -> bytes:
    """A V3 card as the V2 JSON that goes beside it into a PNG; its creator_notes say what it is."""
    document = copy.deepcopy(card.document)
    _downgrade_to_v2(document)
    notes = document["data"].get("creator_notes")
    has_notes = isinstance(notes, str) and notes
    document["data"]["creator_notes"] = (
        f"{BACKFILL_NOTICE}\n\n{notes}" if has_notes else BACKFILL_NOTICE
    )
    return card_json.dumps(document, indent=0)


def convert_kind(card: CharacterCard, kind: str) -> tuple[CharacterCard, list[Text]]:
    """`card` ready to be written as json, png or charx, and what that kind of file cannot hold."""
    if kind == card.kind:
        return card, []
    if card.kind == "png" and kind == "charx":
        return _move_picture_to_members(
            card
        ), []  # the icon is the whole PNG, with its other chunks
    if card.kind == "png":
        return card, [Text("core.loss_picture"), *_describe_chunk_assets(card)]
    if card.kind == "charx":
        names = [name for name in card.members if name != "card.json"]
        return card, _describe_loss("core.loss_archive_files", names)
    return card, []


def get_main_picture(card: CharacterCard) -> bytes | None:
    """The PNG member of a CHARX that its assets list as the main icon; None without one."""
    for asset in _filter_objects(card.fields.get("assets")):
        if _is_main_icon(asset):
            body = card.members.get(_get_embedded_name(asset.get("uri")))
            return body if body and body.startswith(b"\x89PNG") else None
    return None


def _upgrade_v1(fields: dict[str, Any]) -> dict[str, Any]:
    known = {key: fields.get(key) for key in V2_DEFAULTS if fields.get(key) is not None}
    data = {**copy.deepcopy(V2_DEFAULTS), **known}
    # V1 programs added fields at the top level. `extensions` is where the V2 specification forbids
    # editors to destroy what they do not know.
    unknown = {key: value for key, value in fields.items() if key not in data}
    if isinstance(data["extensions"], dict):
        data["extensions"] = {**unknown, **data["extensions"]}
    else:
        data |= unknown
    return {"spec": "chara_card_v2", "spec_version": "2.0", "data": data}


def _upgrade_to_v3(document: dict[str, Any]) -> None:
    data = document["data"]
    document |= {"spec": "chara_card_v3", "spec_version": "3.0"}
    data |= {key: value for key, value in _pop_stash(data).items() if key not in data}
    data.setdefault("group_only_greetings", [])
    for entry in _get_entries(data):
        stash = _pop_stash(entry)
        if "content" in stash and strip_decorators(stash["content"]) != entry.get("content"):
            stash.pop("content")  # the text was edited as V2; the edit wins over the stored text
        entry.update(stash)
        entry.setdefault("use_regex", False)


def _downgrade_to_v2(document: dict[str, Any]) -> list[Text]:
    data = document["data"]
    document |= {"spec": "chara_card_v2", "spec_version": "2.0"}
    stash = {key: data.pop(key) for key in V3_ONLY if key in data}
    losses = [Text("core.loss_v3_field", {"field": key}) for key, value in stash.items() if value]
    if stash.get("group_only_greetings") == []:
        del stash["group_only_greetings"]  # `_upgrade_to_v3` adds it again
    _stash(data, stash)
    for number, entry in enumerate(_get_entries(data), 1):
        losses += [
            Text("core.loss_in_entry", {"number": number, "loss": loss})
            for loss in _downgrade_entry(entry)
        ]
    for key, value in V2_DEFAULTS.items():
        data.setdefault(key, copy.deepcopy(value))
    return losses


def _downgrade_entry(entry: dict[str, Any]) -> Iterator[Text]:
    stash: dict[str, Any] = {}
    if entry.pop("use_regex", False) is True:
        stash["use_regex"] = True
        yield Text("core.loss_regex_keys")
    content = entry.get("content")
    if isinstance(content, str) and strip_decorators(content) != content:
        stash["content"] = content
        entry["content"] = strip_decorators(content)
        yield Text("core.loss_decorators")
    if isinstance(entry.get("id"), str):
        stash["id"] = entry.pop("id")
        yield Text("core.loss_text_id")
    _stash(entry, stash)


def _stash(holder: dict[str, Any], values: dict[str, Any]) -> None:
    """Store `values` under the extensions of a card or entry, where `_pop_stash` finds them."""
    if not isinstance(holder.get("extensions"), dict | None):
        values = {**values, "extensions": holder["extensions"]}
        holder["extensions"] = {}
    if values:
        holder["extensions"] = {**(holder.get("extensions") or {}), V3_EXTENSION: values}


def _pop_stash(holder: dict[str, Any]) -> dict[str, Any]:
    extensions = holder.get("extensions")
    stash = extensions.pop(V3_EXTENSION, None) if isinstance(extensions, dict) else None
    return stash if isinstance(stash, dict) else {}


def _move_picture_to_members(card: CharacterCard) -> CharacterCard:
    """The picture as the main icon, under the name that the card's assets give it, else MAIN_ICON."""
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


def _describe_chunk_assets(card: CharacterCard) -> list[Text]:
    assert card.picture is not None
    names = [get_keyword(chunk) or "" for chunk in card.picture.chunks]
    assets = [name for name in names if name.startswith(ASSET_KEYWORD)]
    return _describe_loss("core.loss_chunk_assets", assets)


def _describe_loss(code: str, names: list[str]) -> list[Text]:
    """One sentence that counts `names` and shows the first three; none without names."""
    shown = [*names[:3], *(["..."] if len(names) > 3 else [])]
    return [Text(code, {"count": len(names), "names": shown})] if names else []


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
