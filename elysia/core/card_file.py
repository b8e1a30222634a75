"""Character card files, read and written: JSON, a PNG with the card in a text chunk, or a CHARX archive.

Specifications: https://github.com/malfoyslastname/character-card-spec-v2 and
https://github.com/kwaroran/character-card-spec-v3 . Everything in a file survives: the bytes of the JSON,
unknown fields, foreign chunks and archive members.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysia.core import card_json
from elysia.core.charx import MAX_FILE, read_charx, write_charx
from elysia.core.errors import PersonaError, nearest
from elysia.core.files import write_atomic
from elysia.core.i18n import Text
from elysia.core.png import SIGNATURE, PngChunk, PngImage, decode_text, get_keyword, read_png

SPECS = {"chara_card_v2": 2, "chara_card_v3": 3}
KEYWORDS = ("ccv3", "chara")  # of the text chunks that hold a card; V3 wins where both are there
ASSET_KEYWORD = "chara-ext-asset_:"  # begins the keyword of a chunk with an asset of the card
KIND_BY_SUFFIX = {".json": "json", ".png": "png", ".apng": "png", ".charx": "charx"}


@dataclass(frozen=True)
class CharacterCard:
    """A card and the file that carried it.

    `document` is the parsed JSON and `text` its bytes; `version` is 1, 2 or 3. `notes` say what is odd
    about the card although it could be read.
    """

    document: dict[str, Any]
    version: int
    text: bytes
    kind: str = "json"  # json, png or charx
    picture: PngImage | None = None
    members: Mapping[str, bytes] = field(default_factory=dict)  # of a CHARX
    notes: tuple[Text, ...] = ()
    original: bytes | None = None  # the whole file, as long as the card is unchanged

    @property
    def fields(self) -> dict[str, Any]:
        """The object that holds the card's fields: `data`, or in V1 the document itself."""
        return self.document if self.version == 1 else self.document["data"]

    @property
    def greetings(self) -> tuple[str, ...]:
        """first_mes and the alternate greetings, in the order that @@is_greeting counts them in."""
        return (
            _get_text(self.fields, "first_mes"),
            *_get_texts(self.fields, "alternate_greetings"),
        )

    @property
    def group_greetings(self) -> tuple[str, ...]:
        """Greetings for group chats only (V3)."""
        return _get_texts(self.fields, "group_only_greetings")


def read_card(path: str | Path) -> CharacterCard:
    """The card in a file. Raises PersonaError, naming the file, when there is none."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise PersonaError("core.card_file_too_large", path=path, limit=MAX_FILE >> 20)
        raw = path.read_bytes()
    except FileNotFoundError:
        raise PersonaError("core.no_card_file", path=path) from None
    except OSError as error:
        raise PersonaError(
            "core.file_unreadable", path=path, reason=error.strerror or str(error)
        ) from error
    return parse_card(raw, str(path))


def parse_card(raw: bytes, where: str) -> CharacterCard:
    """The card in the bytes of a file, whose first bytes tell the kind. `where` names it in errors."""
    if not raw.strip():
        raise PersonaError("core.card_empty", where=where)
    if raw.startswith(SIGNATURE):
        return _parse_png(raw, where)
    if raw.startswith(b"PK"):
        return _parse_charx(raw, where)
    return _build_card(raw, where, kind="json", original=raw)


def get_card_fields(card: object, where: str) -> tuple[dict[str, Any], int]:
    """(fields, version) of a parsed card. Raises PersonaError when it is no card of a known version."""
    if not isinstance(card, dict):
        raise PersonaError("core.card_not_object", where=where, kind=describe_json_kind(card))
    spec = card.get("spec")
    if spec is None:
        if isinstance(card.get("data"), dict):
            raise PersonaError("core.card_without_spec", where=where)
        return card, 1
    if not isinstance(spec, str) or spec not in SPECS:
        hint = nearest(str(spec), SPECS)
        raise PersonaError(
            "core.card_unknown_spec", where=where, spec=repr(spec), known=list(SPECS), hint=hint
        )
    if not isinstance(card.get("data"), dict):
        raise PersonaError("core.card_without_data", where=where, spec=spec)
    return card["data"], SPECS[spec]


def describe_json_kind(value: object) -> Text | str:
    """The type of a JSON value in words, as a parameter of an error: an object, a list, …"""
    codes = {
        dict: "core.kind_object",
        list: "core.kind_list",
        str: "core.kind_text",
        bool: "core.kind_boolean",
    }
    return "null" if value is None else Text(codes.get(type(value), "core.kind_number"))


def write_card(card: CharacterCard, path: str | Path, backfill: bytes = b"") -> None:
    """Write `card` atomically, as the kind that the suffix of `path` says.

    A PNG needs `card.picture`. Beside a V3 card it carries `backfill`, the same card as V2 JSON, for
    programs that read nothing newer. A card that was read and not changed is written as the same bytes.
    """
    path = Path(path)
    kind = get_file_kind(path)
    if card.original is not None and kind == card.kind:
        write_atomic(path, card.original)
    elif kind == "json":
        write_atomic(path, card.text)
    elif kind == "charx":
        # The card is the first member, where readers look for it.
        others = {name: body for name, body in card.members.items() if name != "card.json"}
        write_atomic(path, write_charx({"card.json": card.text, **others}))
    else:
        if card.picture is None:
            raise PersonaError("core.card_needs_picture", path=path)
        texts = [("ccv3", card.text)] if card.version == 3 else [("chara", card.text)]
        if card.version == 3 and backfill:
            texts.insert(0, ("chara", backfill))
        packed = [(keyword, base64.b64encode(text)) for keyword, text in texts]
        write_atomic(path, card.picture.with_texts(packed, without=KEYWORDS).to_bytes())


def get_file_kind(path: Path) -> str:
    """json, png or charx, by the suffix of a file's name. Raises PersonaError for any other suffix."""
    kind = KIND_BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise PersonaError("core.card_unknown_suffix", path=path, suffixes=list(KIND_BY_SUFFIX))
    return kind


def _parse_png(raw: bytes, where: str) -> CharacterCard:
    picture = read_png(raw, where)
    chunks: dict[str, PngChunk] = {}
    for chunk in picture.chunks:
        keyword = (get_keyword(chunk) or "").lower()
        if keyword in KEYWORDS:
            chunks.setdefault(keyword, chunk)
    for keyword in KEYWORDS:
        if keyword in chunks:
            place = f"{where}, chunk '{keyword}'"
            text = _decode_base64(decode_text(chunks[keyword], place), place)
            return _build_card(text, where, kind="png", picture=picture, original=raw)
    raise PersonaError("core.picture_without_card", where=where)


def _decode_base64(text: bytes, place: str) -> bytes:
    packed = b"".join(text.split())
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error:
        if text.lstrip().startswith(b"{"):  # a few programs write the JSON without base64
            return text
        raise PersonaError("core.card_not_base64", where=place) from None


def _parse_charx(raw: bytes, where: str) -> CharacterCard:
    members = read_charx(raw, where)
    if "card.json" not in members:
        raise PersonaError("core.archive_without_card", where=where)
    return _build_card(members["card.json"], where, kind="charx", members=members, original=raw)


def _build_card(text: bytes, where: str, **carrier: Any) -> CharacterCard:
    notes: list[Text] = []
    document = card_json.loads(text, where, notes)
    fields, version = get_card_fields(document, where)
    if not isinstance(fields.get("name"), str) or not fields["name"].strip():
        raise PersonaError("core.card_without_name", where=where)
    newest = {2: "2.0", 3: "3.0"}.get(version)
    actual = document.get("spec_version")
    if version > 1 and actual != newest:
        notes.append(Text("core.card_newer_version", {"actual": repr(actual), "read_as": newest}))
    return CharacterCard(document, version, text, notes=tuple(notes), **carrier)


def _get_text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _get_texts(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = fields.get(key)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
