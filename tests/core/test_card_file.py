"""Cards as files: what is read comes out again, and hostile files get a sentence."""

import base64
import io
import json
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from elysia.core import card_json, charx, png
from elysia.core.card_convert import (
    V3_EXTENSION,
    build_v2_backfill,
    convert_kind,
    convert_version,
    get_main_picture,
)
from elysia.core.card_file import parse_card, read_card, write_card
from elysia.core.charx import write_charx
from elysia.core.errors import PersonaError
from elysia.core.lorebook import parse_lorebook
from elysia.core.lorebook_activation import ScanContext, activate_entries
from elysia.core.messages import Message
from elysia.core.persona import Persona
from elysia.core.png import SIGNATURE, PngChunk, get_keyword, read_png

NAMES = [
    *(f"jasl_{name}" for name in (
        "ccv2_min.json", "ccv2_with_overrides.json", "ccv3_min.json", "ccv3_st_export_like.json",
        "full_v3_card.json", "with_lorebook.json", "test_character.charx", "test_character.png",
        "test_character_v2.png", "test_character_with_lorebook.charx",
    )),
    "ossirytk_Skynet_v2.png",
]  # fmt: skip


def packed(document):
    return base64.b64encode(
        document if isinstance(document, bytes) else json.dumps(document).encode()
    )


def picture(*texts, more=()):
    """A PNG of one pixel with text chunks (keyword, content) behind its pixels."""
    chunks = [
        PngChunk.build(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        PngChunk.build(b"IDAT", zlib.compress(b"\0\0")),
        *more,
        *(PngChunk.build(b"tEXt", key.encode() + b"\0" + text) for key, text in texts),
        PngChunk.build(b"IEND", b""),
    ]
    return png.PngImage(tuple(chunks)).to_bytes()


def v2(**more):
    return {"spec": "chara_card_v2", "spec_version": "2.0", "data": {"name": "Mira", **more}}


def v3(**more):
    return {"spec": "chara_card_v3", "spec_version": "3.0", "data": {"name": "Mira", **more}}


def zipped(members, **info):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(member, key, value)
            archive.writestr(member, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_real_card_comes_back_as_it_was(shared_data: Path, tmp_path: Path, name: str) -> None:
    path = shared_data / "cards" / name
    card = read_card(path)
    write_card(card, tmp_path / name)
    assert (tmp_path / name).read_bytes() == path.read_bytes()
    assert Persona.load(path).name == card.fields["name"]
    assert json.loads(card_json.dumps(card.document)) == json.loads(card.text.decode("utf-8-sig"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["json", "png", "charx"])
def test_a_real_card_keeps_its_json_in_every_other_kind(
    shared_data: Path, tmp_path: Path, name: str, ending: str
) -> None:
    card = read_card(shared_data / "cards" / name)
    if card.version < 3 and ending == "charx":
        card, lost = convert_version(card, 3)
        assert not lost
    converted, _ = convert_kind(card, ending)
    if ending == "png" and converted.picture is None:
        converted = _with(
            converted, picture=read_png(get_main_picture(card) or picture(), "a picture")
        )
    write_card(
        converted,
        tmp_path / f"a.{ending}",
        build_v2_backfill(converted) if converted.version == 3 else b"",
    )
    again = read_card(tmp_path / f"a.{ending}")
    if converted.document == card.document:
        assert again.text == card.text  # to the byte
    else:  # the picture got its name among the assets
        assert (card.kind, ending) == ("png", "charx")
        without = {key: value for key, value in again.fields.items() if key != "assets"}
        assert without == {key: value for key, value in card.fields.items() if key != "assets"}


def _with(card, **more):
    return replace(card, original=None, **more)


@pytest.mark.parametrize("name", NAMES)
def test_a_real_card_survives_the_way_to_the_other_version_and_back(
    shared_data: Path, name: str
) -> None:
    card = read_card(shared_data / "cards" / name)
    there, _ = convert_version(card, 5 - max(card.version, 2))
    assert parse_card(there.text, "x").version == 5 - max(card.version, 2)
    back, lost = convert_version(there, max(card.version, 2))
    expected = convert_version(card, 2)[0] if card.version == 1 else card
    first, second = (
        json.loads(card_json.dumps(document.document)) for document in (expected, back)
    )
    if card.version == 3:
        for document in (first, second):  # what the specification wants and a card may leave out
            document["data"].setdefault("group_only_greetings", [])
            for entry in (document["data"].get("character_book") or {}).get("entries", []):
                entry.setdefault("use_regex", False)
                if not entry.get("extensions"):
                    entry["extensions"] = {}
            document["data"].setdefault("extensions", {})
    assert first == second
    assert not lost or card.version < 3


def test_foreign_chunks_their_checksums_and_bytes_behind_the_picture_are_kept(
    tmp_path: Path,
) -> None:
    foreign = [
        PngChunk(b"prVt", bytes(4 << 20), 12345),
        PngChunk.build(b"tEXt", b"Title\0\xff\xfe"),
    ]
    raw = picture(("Chara", packed(v3(creator="us"))), more=foreign) + b"behind"
    card = parse_card(raw, "x")
    assert card.version == 3  # a `chara` chunk that says V3
    lowered, _ = convert_version(card, 2)
    write_card(lowered, tmp_path / "a.png")
    again = read_card(tmp_path / "a.png")
    assert again.version == 2 and again.picture.tail == b"behind"
    assert [c for c in again.picture.chunks if c in foreign] == foreign


def test_a_v3_picture_carries_both_versions_and_the_newer_wins(tmp_path: Path) -> None:
    book = {"entries": [{"keys": ["a"], "content": "@@depth 3\n\nThe sea.", "use_regex": True}]}
    card = parse_card(
        picture(
            ("chara", packed(v2(name="Old"))),
            ("CCV3", packed(v3(nickname="Mi", character_book=book))),
        ),
        "x",
    )
    assert card.fields["name"] == "Mira"
    write_card(_with(card), tmp_path / "a.png", build_v2_backfill(card))
    chunks = {
        get_keyword(c): png.decode_text(c, "x")
        for c in read_card(tmp_path / "a.png").picture.chunks
        if get_keyword(c)
    }
    assert list(chunks) == ["chara", "ccv3"]
    old = json.loads(base64.b64decode(chunks["chara"]))
    assert old["spec"] == "chara_card_v2" and "V3" in old["data"]["creator_notes"]
    assert old["data"]["character_book"]["entries"][0]["content"] == "The sea."
    assert base64.b64decode(chunks["ccv3"]) == card.text


def test_what_v2_cannot_say_is_told_kept_and_comes_back() -> None:
    entry = {
        "keys": ["a"],
        "content": "@@depth 3\nThe sea.",
        "use_regex": True,
        "id": "x",
        "extensions": {"y": 1},
    }
    document = v3(
        nickname="Mi",
        source=["s"],
        group_only_greetings=["hi"],
        character_book={"entries": [entry]},
    )
    document["data"]["extensions"] = {"other": {"deep": [1]}}
    card = parse_card(json.dumps(document).encode(), "x")
    lowered, lost = convert_version(card, 2)
    assert len(lost) == 6 and "nickname" in str(lost[0])
    assert "nickname" not in lowered.fields and lowered.fields["extensions"]["other"] == {
        "deep": [1]
    }
    assert V3_EXTENSION in lowered.fields["extensions"]
    back, _ = convert_version(lowered, 3)
    assert back.fields["character_book"] == document["data"]["character_book"]
    assert {key: back.fields[key] for key in document["data"]} == document["data"]


def test_fields_that_v1_does_not_know_go_where_v2_must_keep_them() -> None:
    card = parse_card(
        json.dumps({"name": "Mira", "metadata": {"v": 1.10}, "create_date": "x"}).encode(), "x"
    )
    converted, lost = convert_version(card, 2)
    assert not lost and converted.fields["extensions"] == {
        "metadata": {"v": 1.1},
        "create_date": "x",
    }
    assert converted.fields["alternate_greetings"] == [] and converted.fields["scenario"] == ""


def test_numbers_and_half_surrogates_keep_their_spelling() -> None:
    text = (
        b'{"a": [1.10, 1e400, -0, 1E5, 123456789012345678901234567890, 0.1, "\\ud83d", "\\u7231"]}'
    )
    out = card_json.dumps(card_json.loads(text, "x"), indent=0)
    assert out == text.replace(b"\\u7231", "爱".encode())


def test_greetings_stand_in_the_order_that_decorators_count() -> None:
    card = parse_card(
        json.dumps(
            v3(first_mes="a", alternate_greetings=["b", 5, "c"], group_only_greetings=["d"])
        ).encode(),
        "x",
    )
    assert (card.greetings, card.group_greetings) == (("a", "b", "c"), ("d",))


def test_a_newer_version_and_a_key_that_stands_twice_are_noted_not_refused() -> None:
    newer = v3() | {"spec_version": "3.7", "future": {"x": 1}}
    card = parse_card(json.dumps(newer).encode(), "x")
    assert "3.7" in str(card.notes[0]) and card.document["future"] == {"x": 1}
    assert "name" in str(parse_card(b'{"name": "a", "name": "b"}', "x").notes[0])


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_card_in_a_compressed_text_is_read(kind: bytes) -> None:
    head = b"chara\0\0" if kind == b"zTXt" else b"chara\0\1\0en\0x\0"
    chunk = PngChunk.build(kind, head + zlib.compress(packed(v2())))
    assert parse_card(picture(more=[chunk]), "x").fields["name"] == "Mira"


HOSTILE_NAMES = ["../a.png", "a/../../b", "/etc/passwd", "C:/a", "a\\..\\b", "./a", "a//b"]
GOOD = json.dumps(v3()).encode()


@pytest.mark.parametrize(
    ("raw", "pattern"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"GIF89a", "UTF-8|JSON"),
        ('{"name": "爱莉希雅"}'.encode("gbk"), "UTF-8"),
        (b'{"name": NaN}', "JSON"),
        (b"[" * 100_000, "nested"),
        (b'{"name": "a", "b": ' + b"[" * 80 + b"]" * 80 + b"}", "nested"),
        (b'{"name": "a", "b": [' + b"0," * 1_000_001 + b"0]}", "values"),
        (b'{"name": "' + b"a" * (9 << 20) + b'"}', "MB"),
        (picture(), "without a character card"),
        (picture(("Title", b"a castle")), "without a character card"),
        (picture(("chara", b"!!!")), "base64"),
        (picture(("chara", packed(b"{"))), "JSON"),
        (picture(("chara", b"")), "JSON"),
        (picture(("chara", packed(v2())))[:-30], "cut short"),
        (SIGNATURE, "cut short"),
        (SIGNATURE + b"\xff\xff\xff\xffIDAT", "cut short"),
        (SIGNATURE + PngChunk.build(b"a", b"").kind * 0 + struct.pack(">I4sI", 0, b"junk", 0) * 100_001, "chunks"),
        (picture(more=[PngChunk.build(b"zTXt", b"chara\0\0" + zlib.compress(bytes(20 << 20)))]), "grows"),
        (picture(more=[PngChunk.build(b"zTXt", b"chara\0\0junk")]), "damaged"),
        (b"PK\x03\x04junk", "damaged"),
        (zipped([("a.json", GOOD)]), "card.json"),
        (zipped([("sub/card.json", GOOD)]), "card.json"),
        (zipped([("card.json", b"[]")]), "a list"),
        *((zipped([("card.json", GOOD), (name, b"x")]), "leads out") for name in HOSTILE_NAMES),
        (zipped([("card.json", GOOD), ("a", b"x")], external_attr=0o120777 << 16), "link"),
        (zipped([("card.json", GOOD), *((f"{n}", b"") for n in range(2_001))]), "members"),
        (zipped([("card.json", b" " * (9 << 20))]), "MB"),
        (zipped([("card.json", GOOD), *((f"{n}", bytes(30 << 20)) for n in range(9))]), "unpacks"),
        (zipped([("card.json", GOOD)])[:-60], "damaged"),
    ],
)  # fmt: skip
def test_a_hostile_or_broken_file_gets_a_sentence(raw: bytes, pattern: str) -> None:
    with pytest.raises(PersonaError, match=pattern) as caught:
        parse_card(raw, "my file")
    assert "my file" in str(caught.value)


def test_two_members_of_one_name_an_encrypted_one_and_a_lying_size_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zipped([("card.json", GOOD), ("card.json", b"{}")])
    locked = bytearray(zipped([("card.json", GOOD)]))
    central = locked.rfind(b"PK\x01\x02")
    locked[6] |= 1
    locked[central + 8] |= 1
    bomb = bytearray(zipped([("card.json", GOOD), ("a", bytes(1 << 20))]))
    place = bomb.rfind(b"PK\x01\x02")
    bomb[place + 24 : place + 28] = struct.pack("<I", 10)  # says 10 bytes, holds a million
    for raw, pattern in (
        (twice, "two members"),
        (bytes(locked), "encrypted"),
        (bytes(bomb), "damaged|size"),
    ):
        with pytest.raises(PersonaError, match=pattern):
            parse_card(raw, "x")


@pytest.mark.parametrize(
    "extensions", [{"elysia": 5}, {"__proto__": {"a": 1}}, {"depth_prompt": ["<script>"]}]
)
def test_strange_extensions_are_carried_and_mean_nothing(extensions: dict[str, object]) -> None:
    card = parse_card(json.dumps(v2(extensions=extensions)).encode(), "x")
    assert Persona.from_card(card.document).elysia_extensions == {}
    raised, lost = convert_version(card, 3)
    assert not lost and raised.fields["extensions"] == extensions


def test_a_picture_becomes_the_icon_that_the_card_names(tmp_path: Path) -> None:
    icon = [{"type": "icon", "uri": "embeded://assets/main.png", "name": "main", "ext": "png"}]
    for assets, member in ((icon, "assets/main.png"), ([], "assets/icon/images/main.png")):
        raw = picture(("ccv3", packed(v3(assets=assets))))
        converted, lost = convert_kind(parse_card(raw, "x"), "charx")
        write_card(converted, tmp_path / "a.charx")
        again = read_card(tmp_path / "a.charx")
        assert not lost and list(again.members) == ["card.json", member]
        assert again.members[member] == picture() == get_main_picture(again)


def test_a_path_of_the_cards_own_never_leads_out_of_the_archive() -> None:
    icon = [{"type": "icon", "uri": "embeded://../../main.png", "name": "main", "ext": "png"}]
    converted, _ = convert_kind(
        parse_card(picture(("ccv3", packed(v3(assets=icon)))), "x"), "charx"
    )
    assert list(converted.members) == ["assets/icon/images/main.png"]


def test_an_archive_is_the_same_bytes_for_the_same_members() -> None:
    members = {"card.json": b"{}", "a/b.png": b"x"}
    assert write_charx(members) == write_charx(members)
    assert charx.read_charx(write_charx(members), "x") == members


PERSONAS = Path(__file__).resolve().parents[2] / "configs" / "personas"
FRIENDS = {"ayan": "阿砚", "dudu": "渡渡", "elysia": "爱莉希雅", "xiaotang": "小棠"}


@pytest.mark.parametrize("stem", sorted(set(FRIENDS) - {"elysia"}))
def test_a_bundled_character_greets_in_two_languages_and_knows_the_others(stem: str) -> None:
    card = read_card(PERSONAS / f"{stem}.json")
    book = parse_lorebook(card.fields["character_book"])
    assert (
        card.version == 3 and not card.notes and len(card.greetings) >= 3 and card.group_greetings
    )
    assert any(greeting.isascii() for greeting in card.greetings)
    for friend in set(FRIENDS.values()) - {FRIENDS[stem]}:
        scene = ScanContext([Message("user", f"你认识{friend}吗")])
        lore = activate_entries(book, scene, len, fill=Persona.load(PERSONAS / f"{stem}.json").fill)
        assert any(friend in item.text for item in lore.inserted)
    assert not activate_entries(book, ScanContext([Message("user", "1 + 1?")]), len).inserted


def test_the_bundled_folder_has_at_least_four_characters() -> None:
    assert set(FRIENDS) <= {path.stem for path in PERSONAS.glob("*.json")}
