"""A character card as a file: JSON, a PNG that carries it, or CHARX; read, and written again.

https://github.com/malfoyslastname/character-card-spec-v2 ,
https://github.com/kwaroran/character-card-spec-v3 . Everything that was in the file is kept: the
JSON's own bytes, fields nobody knows, foreign chunks and members. Knows nothing of prompts.
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
from elysia.core.png import SIGNATURE, PngChunk, PngImage, decode_text, get_keyword, read_png

SPECS = {"chara_card_v2": 2, "chara_card_v3": 3}
KEYWORDS = ("ccv3", "chara")  # with both, the first wins
ASSET_KEYWORD = "chara-ext-asset_:"
KIND_BY_SUFFIX = {".json": "json", ".png": "png", ".apng": "png", ".charx": "charx"}


@dataclass(frozen=True)
class CharacterCard:
    """A card and what carried it. `document` is the parsed JSON, `text` its very bytes.

    `version` is 1, 2 or 3; `notes` are sentences on what is odd but was read all the same.
    """

    document: dict[str, Any]
    version: int
    text: bytes
    kind: str = "json"
    picture: PngImage | None = None
    members: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    original: bytes | None = None  # the whole file, while nothing of the card has changed

    @property
    def fields(self) -> dict[str, Any]:
        """The object that holds the card's fields: `data`, or of V1 the document itself."""
        return self.document if self.version == 1 else self.document["data"]

    @property
    def greetings(self) -> tuple[str, ...]:
        """first_mes and the alternates, in the order in which @@is_greeting counts them."""
        return (
            _get_text(self.fields, "first_mes"),
            *_get_texts(self.fields, "alternate_greetings"),
        )

    @property
    def group_greetings(self) -> tuple[str, ...]:
        """Greetings that only a group chat adds (V3)."""
        return _get_texts(self.fields, "group_only_greetings")


def read_card(path: str | Path) -> CharacterCard:
    """The card of a file. PersonaError, a sentence with the file's name, when there is none."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise PersonaError(f"{path} has more than {MAX_FILE >> 20} MB; it is no card.")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise PersonaError(f"There is no character card at {path}.") from None
    except OSError as error:
        raise PersonaError(f"{path} cannot be read: {error.strerror or error}.") from error
    return parse_card(raw, str(path))


def parse_card(raw: bytes, where: str) -> CharacterCard:
    """The card in the bytes of a file; what they begin with says which kind it is."""
    if not raw.strip():
        raise PersonaError(f"{where} is empty.")
    if raw.startswith(SIGNATURE):
        return _parse_png(raw, where)
    if raw.startswith(b"PK"):
        return _parse_charx(raw, where)
    return _build_card(raw, where, kind="json", original=raw)


def get_card_fields(card: object, where: str) -> tuple[dict[str, Any], int]:
    """The object that holds a parsed card's fields, and the card's version. PersonaError if none."""
    if not isinstance(card, dict):
        raise PersonaError(
            f"{where}: a character card is an object, and this is {describe_json_kind(card)}."
        )
    spec = card.get("spec")
    if spec is None:
        if isinstance(card.get("data"), dict):
            raise PersonaError(
                f"{where}: the card has 'data' but no 'spec'; write \"spec\": \"chara_card_v2\"."
            )
        return card, 1
    if not isinstance(spec, str) or spec not in SPECS:
        raise PersonaError(
            f"{where}, key 'spec': {spec!r} is no card version we know ({', '.join(SPECS)})."
            f"{nearest(str(spec), SPECS)}"
        )
    if not isinstance(card.get("data"), dict):
        raise PersonaError(
            f"{where}: a {spec} card keeps its fields in the object 'data', and it is missing."
        )
    return card["data"], SPECS[spec]


def describe_json_kind(value: object) -> str:
    """A JSON value's kind, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "null" if value is None else kinds.get(type(value), "a number")


def write_card(card: CharacterCard, path: str | Path, backfill: bytes = b"") -> None:
    """Write `card` as the kind that the name's ending says, whole or not at all.

    A PNG needs `card.picture`; beside a V3 card it carries `backfill`, the same card as V2 JSON,
    for programs that read nothing newer. A card that was only read goes out as the very file.
    """
    path = Path(path)
    kind = get_file_kind(path)
    if card.original is not None and kind == card.kind:
        write_atomic(path, card.original)
    elif kind == "json":
        write_atomic(path, card.text)
    elif kind == "charx":
        # The card comes first, and once: readers look for it there.
        others = {name: body for name, body in card.members.items() if name != "card.json"}
        write_atomic(path, write_charx({"card.json": card.text, **others}))
    else:
        if card.picture is None:
            raise PersonaError(f"{path} is a PNG and the card has no picture; name one.")
        texts = [("ccv3", card.text)] if card.version == 3 else [("chara", card.text)]
        if card.version == 3 and backfill:
            texts.insert(0, ("chara", backfill))
        packed = [(keyword, base64.b64encode(text)) for keyword, text in texts]
        write_atomic(path, card.picture.with_texts(packed, without=KEYWORDS).to_bytes())


def get_file_kind(path: Path) -> str:
    """json, png or charx, by the ending of a file's name."""
    kind = KIND_BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise PersonaError(f"{path}: a card's file ends in {', '.join(KIND_BY_SUFFIX)}.")
    return kind


def _parse_png(raw: bytes, where: str) -> CharacterCard:
    picture = read_png(raw, where)
    found: dict[str, PngChunk] = {}
    for chunk in picture.chunks:
        keyword = (get_keyword(chunk) or "").lower()
        if keyword in KEYWORDS:
            found.setdefault(keyword, chunk)
    for keyword in KEYWORDS:
        if keyword in found:
            place = f"{where}, chunk '{keyword}'"
            text = _decode_base64(decode_text(found[keyword], place), place)
            return _build_card(text, where, kind="png", picture=picture, original=raw)
    raise PersonaError(
        f"{where} is a picture without a character card: it has no text chunk 'ccv3' or 'chara'. "
        "Programs that shrink or re-save pictures drop it; fetch the original file."
    )


def _decode_base64(text: bytes, place: str) -> bytes:
    packed = b"".join(text.split())
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error:
        if text.lstrip().startswith(b"{"):  # a few programs forget the base64
            return text
        raise PersonaError(f"{place}: the card is not base64.") from None


def _parse_charx(raw: bytes, where: str) -> CharacterCard:
    members = read_charx(raw, where)
    if "card.json" not in members:
        raise PersonaError(f"{where}: the archive has no card.json at its root; it is no CHARX.")
    return _build_card(members["card.json"], where, kind="charx", members=members, original=raw)


def _build_card(text: bytes, where: str, **carrier: Any) -> CharacterCard:
    notes: list[str] = []
    document = card_json.loads(text, where, notes)
    fields, version = get_card_fields(document, where)
    if not isinstance(fields.get("name"), str) or not fields["name"].strip():
        raise PersonaError(f"{where}: the card has no 'name'; every character needs one.")
    newest = {2: "2.0", 3: "3.0"}.get(version)
    said = document.get("spec_version")
    if version > 1 and said != newest:
        notes.append(f"spec_version is {said!r}; it is read as {newest}, and what is new is kept")
    return CharacterCard(document, version, text, notes=tuple(notes), **carrier)


def _get_text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _get_texts(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = fields.get(key)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
