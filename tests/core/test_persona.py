"""Character cards: every version is read alike, and what is not a card gets a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elysia.core.errors import PersonaError
from elysia.core.persona import Persona

PERSONAS = sorted((Path(__file__).resolve().parents[2] / "configs" / "personas").glob("*.json"))
FIELDS = {
    "name": "Mira",
    "description": "{{char}} waits for {{user}}.",
    "personality": "calm",
    "scenario": "a harbour",
    "first_mes": "Hi, {{USER}}.",
    "mes_example": "<START>",
}


def card(version: int, **more: object) -> dict[str, object]:
    if version == 1:
        return {**FIELDS, **more}
    return {
        "spec": f"chara_card_v{version}",
        "spec_version": f"{version}.0",
        "data": {**FIELDS, **more},
    }


def saved(folder: Path, content: object) -> Path:
    path = folder / "card.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", PERSONAS, ids=lambda path: path.stem)
def test_every_bundled_persona_is_a_card_with_something_to_say(path: Path) -> None:
    persona = Persona.load(path)
    assert persona.name and persona.description and persona.first_mes and persona.system_prompt
    assert persona.name in persona.system_text()
    assert "{{" not in persona.system_text() + persona.fill(persona.first_mes)


def test_the_demo_persona_names_itself_its_author_and_a_short_system_prompt() -> None:
    persona = Persona.load(next(path for path in PERSONAS if path.stem == "elysia"))
    assert (persona.name, persona.elysia_extensions["english_name"]) == ("爱莉希雅", "Elysia")
    assert {"Elysia", "爱莉", "爱莉希雅"} <= set(persona.elysia_extensions["aliases"])
    assert persona.elysia_extensions["author"]
    assert len(persona.system_line()) <= 40


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_three_versions_of_a_card_are_read_alike(tmp_path: Path, version: int) -> None:
    persona = Persona.load(saved(tmp_path, card(version)))
    assert persona.version == version
    assert {key: getattr(persona, key) for key in FIELDS} == FIELDS


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    document = card(2, creator="us", character_book={"entries": []}, extensions={"x/y": {"z": 1}})
    persona = Persona.load(saved(tmp_path, document))
    assert persona.extra == {"creator": "us", "character_book": {"entries": []}}
    assert persona.extensions == {"x/y": {"z": 1}}
    assert persona.elysia_extensions == {}


def test_fields_that_are_null_or_missing_are_empty(tmp_path: Path) -> None:
    persona = Persona.load(saved(tmp_path, {"name": "Mira", "scenario": None, "extensions": None}))
    assert persona.scenario == persona.personality == "" and persona.extensions == {}


def test_the_system_text_joins_the_parts_and_fills_the_macros(tmp_path: Path) -> None:
    persona = card(2, system_prompt="You are {{char}}. {{original}}")
    text = Persona.load(saved(tmp_path, persona)).system_text(user="Tom")
    assert text.splitlines() == [
        "You are Mira. 你是Mira，正在和Tom说话。",
        "Mira waits for Tom.",
        "calm",
        "a harbour",
    ]


def test_a_card_without_a_system_prompt_still_says_who_it_is() -> None:
    assert "Mira" in Persona("Mira").system_line()


def test_macros_are_filled_in_any_case_and_others_stay() -> None:
    persona = Persona("Miranda", nickname="Mira", version=3)
    assert (
        persona.fill("{{Char}} {{ USER }} {{random:a,b}} {char}", "Tom")
        == "Mira Tom {{random:a,b}} {char}"
    )


def test_a_name_with_regex_signs_is_filled_as_it_is() -> None:
    assert Persona(r"A\1").fill("{{char}}") == r"A\1"


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("{", "is not JSON"),
        ("[]", "a list"),
        ({"spec": "chara_card_v2"}, "'data'"),
        ({"data": {}}, "no 'spec'"),
        ({"spec": "chara_card_v9", "data": {"name": "a"}}, "Did you mean"),
        ({"spec": ["chara_card_v2"], "data": {"name": "a"}}, "'spec'"),
        (card(2, name=""), "'name'"),
        (card(1, name=None), "'name'"),
        (card(2, scenario=["a"]), "'scenario'"),
        (card(3, description=5), "'description'"),
        (card(2, personality="a\ufffdb"), "U+FFFD"),
        (card(2, extensions=[1]), "'extensions'"),
    ],
)
def test_what_is_not_a_card_gets_a_sentence_with_file_and_key(
    tmp_path: Path, content: object, pattern: str
) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(PersonaError) as caught:
        Persona.load(path)
    assert str(path) in str(caught.value) and pattern in str(caught.value)


def test_a_missing_file_a_folder_a_picture_and_other_bytes_get_a_sentence(tmp_path: Path) -> None:
    picture, other = tmp_path / "a.png", tmp_path / "b.json"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    other.write_bytes('{"name": "爱"}'.encode("gbk"))
    for path in (tmp_path / "none.json", tmp_path, picture, other):
        with pytest.raises(PersonaError, match=path.name):
            Persona.load(path)


def test_a_card_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card(1)), encoding="utf-8-sig")
    assert Persona.load(path).name == "Mira"


def test_real_cards_of_others_are_read(shared_data: Path) -> None:
    read = {
        path.stem: Persona.load(path) for path in sorted((shared_data / "cards").glob("*.json"))
    }
    assert {persona.version for persona in read.values()} == {2, 3}
    assert all("{{char}}" not in persona.system_text() for persona in read.values())
    nova = read["jasl_full_v3_card"]
    assert nova.nickname and nova.system_line().startswith(f"You are {nova.nickname}")


@pytest.mark.parametrize(
    ("extensions", "voice"),
    [({"elysia": {"voice": "espeak"}}, "espeak"), ({"elysia": {"voice": 3}}, None), ({}, None)],
)
def test_a_card_names_its_voice(extensions, voice):
    assert Persona("X", extensions=extensions).voice == voice
